"""Masks and edge maps: which pixels are white. White = 1 = hole; docs/conventions.md has the rule."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmif.images.decode import guarded
from mmif.images.photo import Photo
from mmif.images.source import ImageLike, check_size, check_unit_range, plane_of, reduce_16_bit


def to_hole(source: ImageLike, photo: Photo, invert: bool = False, notes: list[str] | None = None) -> np.ndarray:
    """Take the mask of a photograph; see :func:`to_binary`.

    Raises:
        ValueError: as there, or the mask is the photograph itself.
    """
    notes = [] if notes is None else notes
    values = _read(source, photo.size, "mask", notes)
    hole = _binary(values, "mask", invert, notes)
    brightness, seen = (values, np.s_[:]) if values.ndim == 2 else (values[..., 0], values[..., 1] > 0)
    if brightness.dtype.kind in "iu":
        _compare(brightness, seen, photo, notes)
    return hole


def to_binary(
    source: ImageLike,
    size: tuple[int, int],
    what: str = "mask",
    invert: bool = False,
    notes: list[str] | None = None,
) -> np.ndarray:
    """Take a mask or an edge map: bool [H, W], True where it is white, which is from half of the range on.

    Of a picture the brightness decides. Only where the pixels that can be seen all have one brightness does its alpha
    decide; else transparent paint is laid over black. Whole numbers that do not go beyond 1 are taken as 0 and 1.

    Args:
        source: file, PIL image, array or tensor; [H, W] with any number of single dimensions, or 3 or 4 channels.
        size: (width, height) it must have.
        what: its name in errors.
        invert: True where it is black instead.
        notes: what a person should know of how it was read is added here, one line each.

    Raises:
        ValueError: another size, another shape, values outside the range or all below half of it, unreadable file.
    """
    notes = [] if notes is None else notes
    return _binary(_read(source, size, what, notes), what, invert, notes)


def _read(source: ImageLike, size: tuple[int, int], what: str, notes: list[str]) -> np.ndarray:
    """Values [H, W], or uint8 [H, W, 2] of :func:`_brightness`."""
    values = plane_of(source, what, _brightness, notes)
    check_size(values, size, what)
    return values


def _brightness(image: Image.Image, name: str) -> np.ndarray:
    """Values [H, W] of any picture, or uint8 [H, W, 2] of brightness and alpha if the alpha varies."""
    with guarded(name):
        if image.mode in ("1", "F") or image.mode.startswith("I"):
            return np.asarray(image)
        if image.has_transparency_data:
            both = np.asarray(image.convert("RGBA").convert("LA"))
            return both if np.ptp(both[..., 1]) else both[..., 0]
        return np.asarray(image.convert("L"))


def _binary(values: np.ndarray, what: str, invert: bool, notes: list[str]) -> np.ndarray:
    """The rule of :func:`to_binary`; adds to ``notes``."""
    if values.ndim == 3:
        values = _with_alpha(values[..., 0], values[..., 1], what, notes)
    if values.dtype == bool:
        return ~values if invert else values
    top = _top(values, what)
    white = values >= 0.5 if values.dtype.kind == "f" else values > top // 2
    marks, chosen = (values < top, ~white) if invert else (values > 0, white)
    if marks.any() and not chosen.any():
        colour, extreme, value, side = "white", "brightest", values.max(), "below"
        if invert:
            colour, extreme, value, side = "black", "darkest", values.min(), "above"
        raise ValueError(
            f"the {what} has no {colour}: its {extreme} value is {value:.5g} of {top}, {side} half; "
            f"paint the {'hole' if what == 'mask' else 'marks'} {colour}"
        )
    return chosen


def _top(values: np.ndarray, what: str) -> int:
    """The end of the range that the values are taken from."""
    if values.dtype.kind == "f":
        check_unit_range(values, what)
        return 1
    if values.dtype.kind not in "iu":
        raise TypeError(f"a {what} must be bool, uint8, or float in [0, 1]; got {values.dtype}; convert it first")
    low, high = values.min(), values.max()
    if low < 0 or high > 65535:
        raise ValueError(f"a {what} must have values in 0..255, got {low}..{high}; convert it first")
    return next(top for top in (1, 255, 65535) if high <= top)


def _with_alpha(brightness: np.ndarray, alpha: np.ndarray, what: str, notes: list[str]) -> np.ndarray:
    """uint8 [H, W] of a picture whose alpha varies; what alpha 0 hides says nothing."""
    seen = brightness[alpha > 0]
    if seen.min() == seen.max():
        opposite = " (--invert-mask: transparent = hole)" if what == "mask" else ""
        notes.append(f"the {what} has one colour only: its alpha was read, opaque = white{opposite}")
        return alpha
    notes.append(f"the {what} is transparent in places: it was laid over black")
    return ((brightness.astype(np.uint16) * alpha + 127) // 255).astype(np.uint8)


def _compare(brightness: np.ndarray, seen: np.ndarray | slice, photo: Photo, notes: list[str]) -> None:
    """Refuse the photograph as its own mask, unless it is black and white; remark on what looks like one."""
    levels = brightness if brightness.dtype == np.uint8 else reduce_16_bit(brightness)
    grey = (levels > 0) & (levels < 255)
    if grey.any() and np.ptp(levels[seen]):
        own = np.asarray(Image.fromarray(photo.rgb).convert("L"))
        if np.array_equal(levels[seen], own[seen]):
            raise ValueError(
                "the mask must show the hole, white on black; this is the photograph itself; pass another file"
            )
    if np.count_nonzero((levels > 31) & (levels < 224)) > levels.size // 2:
        notes.append("most of the mask is neither black nor white: is it a photograph?")


def hole_note(hole: np.ndarray) -> str | None:
    """A word about a hole that is empty, or so large that the mask may have the other polarity, or None."""
    share = np.count_nonzero(hole) / hole.size
    if share == 0:
        return "the mask is empty: nothing to fill, the photograph is unchanged (white = hole)"
    if share <= 0.9:
        return None
    return f"the hole covers {100 * share:.2f} % of the photograph (white = hole): did you mean --invert-mask?"
