"""What a picture may come as, a file, a PIL image, an array or a tensor, and how its values are taken out."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import IO, TypeGuard

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmif.images.decode import Source, decode, guarded, name_of, opened
from mmif.images.metadata import upright

# A file is named by its path, or is open for reading bytes.
ImageLike = str | os.PathLike[str] | IO[bytes] | Image.Image | np.ndarray | Tensor


def is_file(source: object) -> TypeGuard[Source]:
    """Whether ``source`` is a path or an open file."""
    return isinstance(source, (str, os.PathLike)) or (hasattr(source, "read") and hasattr(source, "seek"))


def plane_of(
    source: ImageLike, what: str, from_image: Callable[[Image.Image, str], np.ndarray], notes: list[str]
) -> np.ndarray:
    """[H, W, ...] of any source, upright; ``from_image`` says how to look at a picture, of which it gets the name, too.

    Arrays and tensors are [H, W] with any number of single dimensions, or a picture of 3 or 4 channels: [H, W, C] or
    [C, H, W], of which an array is taken as the former where it could be both, and a tensor as the latter.
    """
    if is_file(source):
        with opened(source) as image:
            return _look(image, name_of(source, "the file"), what, from_image, notes)
    if isinstance(source, Image.Image):
        return _look(source, name_of(source, f"the {what}"), what, from_image, notes)
    values = array_of(source, what)
    came = tuple(values.shape)
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 3 and values.size:
        axes = [axis for axis in (0, 2) if values.shape[axis] in (3, 4)]
        if axes:
            axis = axes[0] if isinstance(source, Tensor) else axes[-1]
            picture = np.ascontiguousarray(_levels(np.moveaxis(values, axis, 2), what))
            return from_image(Image.fromarray(picture), f"the {what}")
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a {what} must be [H, W], or a picture of 3 or 4 channels; got shape {came}")
    return values


def _look(
    image: Image.Image, name: str, what: str, from_image: Callable[[Image.Image, str], np.ndarray], notes: list[str]
) -> np.ndarray:
    """Values of a picture once it is decoded and upright."""
    notes += [f"the {what}: {note}" for note in decode(image, name)]
    with guarded(name):
        image = upright(image, notes, f"the {what} was ")
    return from_image(image, name)


def _levels(values: np.ndarray, what: str) -> np.ndarray:
    """uint8 of a mask with channels, which may be bool or any whole numbers up to 255 as well."""
    if values.dtype == bool:
        return values * np.uint8(255)
    if values.dtype.kind in "iu" and values.min() >= 0 and values.max() <= 255:
        return values.astype(np.uint8)
    return to_8_bit(values, what)


def array_of(source: object, what: str) -> np.ndarray:
    """The values of an array or a tensor on any device; TypeError for anything else."""
    if isinstance(source, Tensor):
        if source.is_meta:
            raise ValueError(f"{what} must be a tensor with values; got one on the meta device; pass the values")
        source = source.detach().cpu()
        return (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    if isinstance(source, np.ndarray):
        return source
    raise TypeError(f"{what} must be a file, a PIL image, an array or a tensor; got {type(source).__name__}")


def channels_last(values: np.ndarray) -> np.ndarray:
    """[C, H, W] or [1, C, H, W] -> [H, W, C]; anything else unchanged, for the caller to refuse."""
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        return np.moveaxis(values, 0, 2)
    return values


def to_8_bit(values: np.ndarray, what: str) -> np.ndarray:
    """uint8 of the same shape: of uint16 the upper bits, of float in [0, 1] the nearest level.

    Raises:
        ValueError: floats outside the range.
        TypeError: any other dtype.
    """
    if values.dtype == np.uint8:
        return values
    if values.dtype == np.uint16:
        return reduce_16_bit(values)
    if values.dtype.kind == "f":
        check_unit_range(values, what)
        return (values.clip(0.0, 1.0) * 255.0 + 0.5).astype(np.uint8)
    raise TypeError(f"the {what} must be uint8, uint16, or float in [0, 1]; got {values.dtype}; convert it first")


def reduce_16_bit(values: np.ndarray) -> np.ndarray:
    """uint16 or int32 [H, W, ...] in 0..65535 -> uint8, rounded."""
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"16-bit values must lie in 0..65535, got {values.min()}..{values.max()}; convert it first")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def check_unit_range(values: np.ndarray, what: str) -> None:
    """Raise ValueError unless floats lie in [0, 1], give or take a rounding."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1.001):  # also false for NaN
        raise ValueError(f"float values of the {what} must lie in [0, 1], got {low:.4g}..{high:.4g}; scale it first")


def check_size(values: np.ndarray, size: tuple[int, int], what: str) -> None:
    """Raise ValueError unless [H, W, ...] is ``size``, (width, height)."""
    came = values.shape[1], values.shape[0]
    if came != tuple(size):
        turned = came == (size[1], size[0])
        remedy = (
            "make it from the photograph as it is shown upright" if turned else f"scale it to {size[0]} x {size[1]}"
        )
        raise ValueError(
            f"the {what} must have the size of the photograph, {size[0]} x {size[1]}; it has {came[0]} x {came[1]}; "
            f"{remedy}"
        )
