"""Masks and edge maps: which pixels are white. White = 1 = hole."""

from __future__ import annotations

import os

import numpy as np
from PIL import Image

from mmif.images.source import ImageLike, check_size, check_unit_range, plane_of


def read_hole(path: str | os.PathLike[str], size: tuple[int, int], invert: bool = False) -> np.ndarray:
    """Read a mask file: bool [H, W], True = hole; see :func:`to_binary`."""
    return to_binary(path, size, "mask", invert)


def to_binary(source: ImageLike, size: tuple[int, int], what: str = "mask", invert: bool = False) -> np.ndarray:
    """Take a mask or an edge map: bool [H, W], True where the source is white.

    The threshold is half of the range. A picture with transparency is read from its alpha, any other from its
    brightness; whole numbers that do not go beyond 1 are taken as 0 and 1.

    Args:
        source: path, PIL image, array or tensor, [H, W] with any number of single dimensions.
        size: (width, height) it must have.
        what: its name in errors.
        invert: black = hole.

    Raises:
        ValueError: another size, another shape, values outside the range, unreadable file.
    """
    values = plane_of(source, what, _brightness)
    check_size(values, size, what)
    if values.dtype.kind == "f":
        check_unit_range(values, what)
        result = values >= 0.5
    elif values.dtype.kind in "iu":
        if values.min() < 0 or values.max() > 65535:
            raise ValueError(
                f"a {what} must have values in 0..255, got {values.min()}..{values.max()}; convert it first"
            )
        top = next(limit for limit in (1, 255, 65535) if values.max() <= limit)
        result = values > top // 2
    elif values.dtype == bool:
        result = values
    else:
        raise TypeError(f"a {what} must be bool, uint8, or float in [0, 1]; got {values.dtype}; convert it first")
    return ~result if invert else result


def _brightness(image: Image.Image) -> np.ndarray:
    """[H, W] of any picture: its alpha if that says something, else its luma."""
    if image.has_transparency_data:
        alpha = image.convert("RGBA").getchannel("A")
        if alpha.getextrema() != (255, 255):
            return np.asarray(alpha)
    plain = image.mode in ("1", "L", "F") or image.mode.startswith("I")
    return np.asarray(image if plain else image.convert("L"))


def hole_note(hole: np.ndarray) -> str | None:
    """A word about a hole that is suspiciously large, small or empty, or None."""
    share = np.count_nonzero(hole) / hole.size
    if share == 0:
        return "the mask is empty: nothing to fill, the photograph is unchanged (white = hole)"
    if 0.001 <= share <= 0.9:
        return None
    return f"the hole covers {100 * share:.2f} % of the photograph (white = hole): did you mean --invert-mask?"
