"""Photographs as they come in, from a file or from memory, and what must be kept of their files."""

from __future__ import annotations

import os
from dataclasses import dataclass

import numpy as np
from PIL import ExifTags, Image, ImageOps
from torch import Tensor

from mmif.images.decode import decode, opened
from mmif.images.source import ImageLike, array_of, channels_last, check_unit_range

_ORIENTATION = ExifTags.Base.Orientation
# In TIFF the description of the pixels sits among the EXIF tags; only these speak of the photograph.
_TIFF_KEPT = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825})


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph as the model needs it, and what its file must keep.

    Attributes:
        rgb: uint8 [H, W, 3], upright.
        alpha: uint8 [H, W], or None if it is opaque.
        grey: the file holds one channel; the result will, too.
        icc_profile: colour profile of the pixels.
        exif: EXIF block whose orientation says upright.
        notes: what was changed on the way in, one line each.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


def to_photo(source: ImageLike) -> Photo:
    """Take a photograph from a path, PIL image, array or tensor.

    Arrays are [H, W], [H, W, 1|3|4]; tensors [C, H, W] or [1, C, H, W]. Values: uint8, uint16, or float in [0, 1].

    Raises:
        ValueError: unreadable file, wrong shape, or values outside the range.
        TypeError: any other type or dtype.
    """
    if isinstance(source, (str, os.PathLike)):
        return read_rgb(source)
    if isinstance(source, Image.Image):
        return photo_from_pil(source)
    values = array_of(source, "image")
    if isinstance(source, Tensor):
        values = channels_last(values)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))) or not values.size:
        raise ValueError(
            "an image must be [H, W] or [H, W, 1|3|4] (array), [C, H, W] or [1, C, H, W] (tensor); "
            f"got shape {tuple(source.shape)}"
        )
    if values.dtype == np.uint16:
        return _photo(reduce_16_bit(values), ("16-bit reduced to 8-bit",))
    if values.dtype.kind == "f":
        check_unit_range(values, "image")
        values = (values.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    if values.dtype != np.uint8:
        raise TypeError(f"an image must be uint8, uint16, or float in [0, 1]; got {values.dtype}; convert it first")
    return _photo(values)


def _photo(values: np.ndarray, notes: tuple[str, ...] = ()) -> Photo:
    """A Photo of uint8 [H, W] or [H, W, 3|4]."""
    if values.ndim == 2:
        return Photo(np.repeat(values[:, :, None], 3, axis=2), grey=True, notes=notes)
    alpha = values[:, :, 3] if values.shape[2] == 4 else None
    return Photo(values[:, :, :3], alpha, notes=notes)


def read_rgb(path: str | os.PathLike[str]) -> Photo:
    """Read the photograph at ``path``; see :func:`photo_from_pil`. ValueError if it cannot be read whole."""
    with opened(path) as image:
        return photo_from_pil(image)


def photo_from_pil(image: Image.Image) -> Photo:
    """Turn any PIL image upright and into 8-bit RGB; what gets lost is said in ``notes``.

    Raises:
        ValueError: a mode without a meaning as a photograph, such as 32-bit float.
    """
    notes = decode(image)
    exif = image.getexif()
    if exif.get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright as its EXIF says")
    icc_profile = image.info.get("icc_profile")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{image.mode} converted to RGB" + (", its colour profile dropped" if icc_profile else ""))
        icc_profile = None
    rgb, alpha, grey = _pixels(image)
    return Photo(rgb, alpha, grey, icc_profile, _exif_bytes(exif, image.format), tuple(notes))


def _pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """(uint8 [H, W, 3], alpha or None, whether the image is grey)."""
    if image.mode.startswith("I"):
        image = Image.fromarray(reduce_16_bit(np.asarray(image)))
    elif image.mode == "F":
        raise ValueError("a photograph must have 8 or 16 bits per channel; this one is 32-bit float; convert it first")
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), alpha, grey


def reduce_16_bit(values: np.ndarray) -> np.ndarray:
    """uint16 or int32 [H, W, ...] in 0..65535 -> uint8, rounded."""
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"16-bit values must lie in 0..65535, got {values.min()}..{values.max()}; convert it first")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _exif_bytes(exif: Image.Exif, file_format: str | None) -> bytes | None:
    kept = Image.Exif()
    kept.load(exif.tobytes())
    for tag in list(kept):
        if tag == _ORIENTATION or (file_format == "TIFF" and tag not in _TIFF_KEPT):
            del kept[tag]
    return kept.tobytes() if len(kept) else None
