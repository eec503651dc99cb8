"""Photographs as they come in, from a file or from memory, and what must be kept of their files."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

import numpy as np
from PIL import Image
from torch import Tensor

from mmif.images.decode import Source, check_bounds, decode, guarded, name_of, opened
from mmif.images.metadata import Metadata, read_metadata, upright
from mmif.images.source import ImageLike, array_of, channels_last, is_file, reduce_16_bit, to_8_bit

_REDUCED = "16-bit reduced to 8-bit"


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph as the model needs it, and what its file must keep.

    Attributes:
        rgb: uint8 [H, W, 3], upright.
        alpha: uint8 [H, W], or None if it is opaque.
        grey: the file holds one channel; the result will, too.
        deep: the values of a grey photograph of 16 bits, uint16 [H, W], of which ``rgb`` holds the upper 8.
        metadata: what the file says beside its pixels.
        notes: what was changed on the way in, one line each.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    deep: np.ndarray | None = None
    metadata: Metadata = field(default_factory=Metadata)
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]

    @property
    def hidden(self) -> np.ndarray | None:
        """Bool [H, W], True where alpha is 0, or None: nobody has seen the colours there, and no model should."""
        if self.alpha is None:
            return None
        hidden = self.alpha == 0
        return hidden if hidden.any() else None


def to_photo(source: ImageLike) -> Photo:
    """Take a photograph from a path, a file opened for reading bytes, a PIL image, an array or a tensor.

    Arrays are [H, W], [H, W, 1|3|4]; tensors [C, H, W] or [1, C, H, W]. Values: uint8, uint16, or float in [0, 1].

    Raises:
        ValueError: unreadable file, wrong shape, too many pixels, or values outside the range.
        TypeError: any other type or dtype.
    """
    if is_file(source):
        return read_rgb(source)
    if isinstance(source, Image.Image):
        return photo_from_pil(source)
    values = array_of(source, "image")
    came = tuple(values.shape)
    if isinstance(source, Tensor):
        values = channels_last(values)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))) or not values.size:
        raise ValueError(
            f"an image must be [H, W] or [H, W, 1|3|4] (array), [C, H, W] or [1, C, H, W] (tensor); got shape {came}"
        )
    check_bounds(values.shape[1], values.shape[0], "the image")
    if values.dtype != np.uint16:
        return _photo(to_8_bit(values, "image"))
    return _grey_photo(values) if values.ndim == 2 else _photo(to_8_bit(values, "image"), (_REDUCED,))


def _photo(values: np.ndarray, notes: tuple[str, ...] = ()) -> Photo:
    """A Photo of uint8 [H, W] or [H, W, 3|4]."""
    if values.ndim == 2:
        return Photo(np.repeat(values[:, :, None], 3, axis=2), grey=True, notes=notes)
    alpha = values[:, :, 3] if values.shape[2] == 4 else None
    return Photo(values[:, :, :3], alpha, notes=notes)


def _grey_photo(values: np.ndarray) -> Photo:
    """A Photo of uint16 [H, W]."""
    return Photo(np.repeat(reduce_16_bit(values)[:, :, None], 3, axis=2), grey=True, deep=values)


def read_rgb(source: Source) -> Photo:
    """Read the photograph at a path or of an opened file; see :func:`photo_from_pil`.

    Raises:
        ValueError: it cannot be read whole.
    """
    with opened(source) as image:
        return photo_from_pil(image, name_of(source, "the file"))


def photo_from_pil(image: Image.Image, name: str | None = None) -> Photo:
    """Turn any PIL image upright and into 8-bit RGB; what gets lost is said in ``notes``.

    Args:
        image: the image; it need not be decoded yet.
        name: what it is called in errors; None: the file that it was opened from.

    Raises:
        ValueError: a broken file, or a mode without a meaning as a photograph, such as 32-bit float.
    """
    name = name_of(image, "the image") if name is None else name
    notes = decode(image, name)
    if image.mode == "F":
        raise ValueError(
            f"{name}: a photograph must have 8 or 16 bits per channel; this one is 32-bit float; convert it first"
        )
    metadata, dropped = read_metadata(image)
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        profile = ", its colour profile dropped" if metadata.icc_profile else ""
        notes.append(f"{image.mode} converted to RGB{profile}")
        metadata = replace(metadata, icc_profile=None)
    if image.mode == "1":
        notes.append("1-bit: the result is 8-bit grey")
    with guarded(name):
        image = upright(image, notes)
        pixels = _pixels(image)
    if pixels.alpha is not None and pixels.deep is None and image.mode.startswith("I"):
        notes.append(_REDUCED)
    return Photo(*pixels, metadata, (*notes, *dropped))


class _Pixels(NamedTuple):
    """The fields of :class:`Photo` that come of the pixels."""

    rgb: np.ndarray
    alpha: np.ndarray | None
    grey: bool
    deep: np.ndarray | None


def _pixels(image: Image.Image) -> _Pixels:
    if image.mode.startswith("I"):
        return _deep_pixels(np.asarray(image), image.info.get("transparency"))
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    return _Pixels(np.asarray(image if image.mode == "RGB" else image.convert("RGB")), alpha, grey, None)


def _deep_pixels(values: np.ndarray, transparent: object) -> _Pixels:
    grey = np.repeat(reduce_16_bit(values)[:, :, None], 3, axis=2)
    if isinstance(transparent, int):  # no format that Pillow writes has 16 bits and an alpha
        return _Pixels(grey, np.where(values == transparent, 0, 255).astype(np.uint8), True, None)
    return _Pixels(grey, None, True, values.astype(np.uint16))
