"""A filled photograph as the picture that its file would hold: its depth, greyness, alpha and metadata are kept."""

from __future__ import annotations

from dataclasses import asdict

import numpy as np
from PIL import Image

from mmif.images.photo import Photo


def compose(photo: Photo, rgb: np.ndarray, hole: np.ndarray) -> Image.Image:
    """Make the result of a photograph.

    Known pixels keep every bit. The fill of a photograph that is grey wherever it is known is grey, and where the hole
    was transparent the fill is opaque.

    Args:
        photo: the photograph as it was read.
        rgb: uint8 [H, W, 3], the photograph with the fill in its hole.
        hole: bool [H, W].

    Returns:
        An image of mode L, LA, RGB, RGBA or I;16; :func:`mmif.images.write.write_image` writes it with its metadata.
    """
    if hole.any() and (photo.grey or _is_grey(photo, hole)):
        rgb = _with_grey_fill(rgb, hole)
    if photo.deep is not None:
        deep = photo.deep.copy()
        deep[hole] = rgb[hole, 0].astype(np.uint16) * 257
        image = Image.fromarray(deep)
    else:
        image = Image.fromarray(np.ascontiguousarray(rgb[..., 0]) if photo.grey else rgb)
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(np.where(hole & (photo.alpha == 0), np.uint8(255), photo.alpha)))
    image.info.update((key, value) for key, value in asdict(photo.metadata).items() if value)
    return image


def compose_note(photo: Photo, hole: np.ndarray) -> str | None:
    """A word about a hole that was transparent, or None."""
    if photo.alpha is None or not (hole & (photo.alpha == 0)).any():
        return None
    return "the hole is transparent (alpha 0) in places: the fill is opaque there"


def _is_grey(photo: Photo, hole: np.ndarray) -> bool:
    """Whether all that is known of the photograph has R = G = B; nothing known says nothing."""
    hidden = photo.hidden
    known = ~hole if hidden is None else ~(hole | hidden)
    red, green, blue = np.moveaxis(photo.rgb, 2, 0)
    return bool(known.any()) and not (((red != green) | (green != blue)) & known).any()


def _with_grey_fill(rgb: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """A copy of uint8 [H, W, 3] whose hole has R = G = B, the luma of what was there."""
    rgb = rgb.copy()
    rgb[hole] = np.asarray(Image.fromarray(rgb[hole][None]).convert("L"))[0, :, None]
    return rgb
