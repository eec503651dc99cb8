"""Label maps of a segmentation: uint8, 255 = unknown."""

from __future__ import annotations

import colorsys

import numpy as np
from PIL import Image

from mmif.images.source import ImageLike, check_size, plane_of

UNKNOWN = 255  # label of pixels without a label


def to_labels(source: ImageLike, size: tuple[int, int], num_classes: int, notes: list[str] | None = None) -> np.ndarray:
    """Take a segmentation: uint8 [H, W], labels 0..num_classes-1 or 255 = unknown; upright, as it says in ``notes``.

    Raises:
        ValueError: another size, a label out of range, colours instead of labels, unreadable file.
    """
    labels = plane_of(source, "segmentation", _indices, [] if notes is None else notes)
    check_size(labels, size, "segmentation")
    if labels.dtype.kind not in "iu":
        raise TypeError(f"a segmentation must hold whole numbers, got {labels.dtype}; pass label numbers")
    wrong = labels[((labels >= num_classes) | (labels < 0)) & (labels != UNKNOWN)]
    if wrong.size:
        raise ValueError(
            f"labels of a segmentation must be 0..{num_classes - 1}, or {UNKNOWN} for unknown; got {wrong[0]}; "
            "use the labels of this model"
        )
    return labels.astype(np.uint8)


def _indices(image: Image.Image, name: str) -> np.ndarray:
    if image.mode not in ("P", "L") and not image.mode.startswith("I"):
        raise ValueError(
            f"{name}: a segmentation must be a palette or grey image of label numbers; got mode {image.mode}; "
            "save label numbers, not colours"
        )
    return np.asarray(image)


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
