"""What a picture may come as, a path, a PIL image, an array or a tensor, and how its values are taken out."""

from __future__ import annotations

import os
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmif.images.decode import decode, opened

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor


def plane_of(source: ImageLike, what: str, from_image: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """[H, W] of any source; ``from_image`` says how to look at a picture."""
    if isinstance(source, (str, os.PathLike)):
        with opened(source) as image:
            decode(image)
            return from_image(image)
    if isinstance(source, Image.Image):
        decode(source)
        return from_image(source)
    values = array_of(source, what)
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype == np.uint8:
        return from_image(Image.fromarray(values))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a {what} must be [H, W], with single dimensions at most; got shape {tuple(source.shape)}")
    return values


def array_of(source: object, what: str) -> np.ndarray:
    """The values of an array or a tensor on any device; TypeError for anything else."""
    if isinstance(source, Tensor):
        if source.is_meta:
            raise ValueError(f"{what} must be a tensor with values; got one on the meta device; pass the values")
        source = source.detach().cpu()
        return (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    if isinstance(source, np.ndarray):
        return source
    raise TypeError(f"{what} must be a path, a PIL image, an array or a tensor; got {type(source).__name__}")


def channels_last(values: np.ndarray) -> np.ndarray:
    """[C, H, W] or [1, C, H, W] -> [H, W, C]; anything else unchanged, for the caller to refuse."""
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        return np.moveaxis(values, 0, 2)
    return values


def check_unit_range(values: np.ndarray, what: str) -> None:
    """Raise ValueError unless floats lie in [0, 1], give or take a rounding."""
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1.001):  # also false for NaN
        raise ValueError(f"float values of the {what} must lie in [0, 1], got {low:.4g}..{high:.4g}; scale it first")


def check_size(values: np.ndarray, size: tuple[int, int], what: str) -> None:
    """Raise ValueError unless [H, W] is ``size``, (width, height)."""
    came = values.shape[1], values.shape[0]
    if came != tuple(size):
        raise ValueError(
            f"the {what} must have the size of the photograph, {size[0]} x {size[1]}; it has {came[0]} x {came[1]}; "
            "make it from the photograph as it is shown upright"
        )
