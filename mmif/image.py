"""The one place where images, masks and guidance cross between the outside and the model.

Outside: RGB uint8 HWC; masks and edge maps white = 1 = hole (edge); label maps uint8, 255 = unknown. Inside: float32
NCHW, images in [-1, 1]. From the outside a path, a PIL image, a NumPy array or a tensor is taken wherever an image,
mask or guidance map is.
"""

from __future__ import annotations

import colorsys
import os
from collections.abc import Callable

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from mmif.imagefile import MAX_PIXELS, Photo, decode, opened, photo_from_pil, read_rgb

__all__ = [
    "MAX_PIXELS",
    "UNKNOWN",
    "ImageLike",
    "Photo",
    "binary_to_model",
    "from_model",
    "hole_note",
    "label_image",
    "labels_to_model",
    "read_hole",
    "read_rgb",
    "to_binary",
    "to_labels",
    "to_model",
    "to_photo",
]

ImageLike = str | os.PathLike[str] | Image.Image | np.ndarray | Tensor
UNKNOWN = 255  # label of pixels without a label


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
    values = _array(source, "image")
    if isinstance(source, Tensor):
        values = _channels_last(values)
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if not (values.ndim == 2 or (values.ndim == 3 and values.shape[2] in (3, 4))) or not values.size:
        raise ValueError(
            "an image must be [H, W] or [H, W, 1|3|4] (array), [C, H, W] or [1, C, H, W] (tensor); "
            f"got shape {tuple(source.shape)}"
        )
    if values.dtype == np.uint16:
        reduced = ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)
        return _photo(reduced, ("16-bit reduced to 8-bit",))
    if values.dtype.kind == "f":
        _check_unit_range(values, "image")
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
    values = _plane(source, what, _brightness)
    _check_size(values, size, what)
    if values.dtype.kind == "f":
        _check_unit_range(values, what)
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


def to_labels(source: ImageLike, size: tuple[int, int], num_classes: int) -> np.ndarray:
    """Take a segmentation: uint8 [H, W], labels 0..num_classes-1 or 255 = unknown.

    Raises:
        ValueError: another size, a label out of range, colours instead of labels, unreadable file.
    """
    labels = _plane(source, "segmentation", _indices)
    _check_size(labels, size, "segmentation")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"a segmentation must hold whole numbers, got {labels.dtype}; pass label numbers")
    wrong = labels[((labels >= num_classes) | (labels < 0)) & (labels != UNKNOWN)]
    if wrong.size:
        raise ValueError(
            f"labels of a segmentation must be 0..{num_classes - 1}, or {UNKNOWN} for unknown; got {wrong[0]}; "
            "use the labels of this model"
        )
    return labels.astype(np.uint8)


def _indices(image: Image.Image) -> np.ndarray:
    if image.mode not in ("P", "L") and not image.mode.startswith("I"):
        raise ValueError(
            f"a segmentation must be a palette or grey image of label numbers; got mode {image.mode}; "
            "save label numbers, not colours"
        )
    return np.asarray(image)


def _plane(source: ImageLike, what: str, from_image: Callable[[Image.Image], np.ndarray]) -> np.ndarray:
    """[H, W] of any source; ``from_image`` says how to look at a picture."""
    if isinstance(source, (str, os.PathLike)):
        with opened(source) as image:
            decode(image)
            return from_image(image)
    if isinstance(source, Image.Image):
        decode(source)
        return from_image(source)
    values = _array(source, what)
    while values.ndim > 2 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3 and values.shape[2] == 1:
        values = values[:, :, 0]
    if values.ndim == 3 and values.shape[2] in (3, 4) and values.dtype == np.uint8:
        return from_image(Image.fromarray(values))
    if values.ndim != 2 or not values.size:
        raise ValueError(f"a {what} must be [H, W], with single dimensions at most; got shape {tuple(source.shape)}")
    return values


def _array(source: object, what: str) -> np.ndarray:
    if isinstance(source, Tensor):
        if source.is_meta:
            raise ValueError(f"{what} must be a tensor with values; got one on the meta device; pass the values")
        source = source.detach().cpu()
        return (source.float() if source.dtype == torch.bfloat16 else source).numpy()
    if isinstance(source, np.ndarray):
        return source
    raise TypeError(f"{what} must be a path, a PIL image, an array or a tensor; got {type(source).__name__}")


def _channels_last(values: np.ndarray) -> np.ndarray:
    """[C, H, W] or [1, C, H, W] -> [H, W, C]; anything else unchanged, for the caller to refuse."""
    if values.ndim == 4 and values.shape[0] == 1:
        values = values[0]
    if values.ndim == 3:
        return np.moveaxis(values, 0, 2)
    return values


def _check_unit_range(values: np.ndarray, what: str) -> None:
    low, high = float(values.min()), float(values.max())
    if not (low >= -1e-3 and high <= 1.001):  # also false for NaN
        raise ValueError(f"float values of the {what} must lie in [0, 1], got {low:.4g}..{high:.4g}; scale it first")


def _check_size(values: np.ndarray, size: tuple[int, int], what: str) -> None:
    came = values.shape[1], values.shape[0]
    if came != tuple(size):
        raise ValueError(
            f"the {what} must have the size of the photograph, {size[0]} x {size[1]}; it has {came[0]} x {came[1]}; "
            "make it from the photograph as it is shown upright"
        )


def to_model(rgb: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2).float().div_(127.5).sub_(1.0)


def from_model(image: Tensor) -> np.ndarray:
    """Float [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3], clamped and rounded."""
    levels = image.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def binary_to_model(planes: np.ndarray) -> Tensor:
    """Bool [N, H, W] -> float32 [N, 1, H, W], 0 or 1: holes and edges."""
    return torch.from_numpy(planes.astype(np.float32))[:, None]


def labels_to_model(labels: np.ndarray, num_classes: int) -> Tensor:
    """uint8 [N, H, W] -> one-hot float32 [N, num_classes, H, W]; unknown is all zero."""
    one_hot = labels[:, None] == np.arange(num_classes, dtype=np.uint8)[:, None, None]
    return torch.from_numpy(one_hot.astype(np.float32))


def label_image(labels: np.ndarray) -> Image.Image:
    """Palette image of labels uint8 [H, W]: its pixel values are the labels, 255 is shown black."""
    image = Image.fromarray(labels)
    image.putpalette(_PALETTE)  # turns L into P, values kept
    return image


def _palette() -> bytes:
    """256 colours whose neighbours differ; the last one is black."""
    steps = [(i * 0.618034 % 1.0, 0.45 + 0.4 * (i % 2), 0.95 - 0.25 * (i % 3 == 2)) for i in range(UNKNOWN)]
    return bytes(round(255 * c) for step in steps for c in colorsys.hsv_to_rgb(*step)) + bytes(3)


_PALETTE = _palette()
