"""Squares round the holes: how the model sees them, and how the fill goes back.

A photograph of any size and shape is filled through squares of the model's side. Everything here works on the squares,
never on a second copy of the photograph.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from PIL import Image


@dataclass(frozen=True, slots=True)
class Box:
    """Rectangle of pixels, far edges excluded; it may reach beyond the photograph."""

    x0: int
    y0: int
    x1: int
    y1: int

    @property
    def width(self) -> int:
        return self.x1 - self.x0

    @property
    def height(self) -> int:
        return self.y1 - self.y0

    def move(self, x: int, y: int) -> Box:
        return Box(self.x0 + x, self.y0 + y, self.x1 + x, self.y1 + y)

    def clip(self, width: int, height: int) -> Box:
        """The part inside a picture of this size."""
        return Box(max(self.x0, 0), max(self.y0, 0), min(self.x1, width), min(self.y1, height))

    def of(self, plane: np.ndarray) -> np.ndarray:
        """View of [H, W, ...] inside the box, which must not reach beyond."""
        return plane[self.y0 : self.y1, self.x0 : self.x1]


@dataclass(frozen=True, slots=True)
class Crop:
    """One square to fill.

    Attributes:
        square: what the model sees, width == height; may reach beyond the photograph.
        target: box of the holes that this square fills; no two crops of a photograph share a hole pixel.
    """

    square: Box
    target: Box


def scale_image(rgb: np.ndarray, square: Box, side: int) -> np.ndarray:
    """What ``square`` shows of uint8 [H, W, 3]: uint8 [side, side, 3], averaged down or interpolated up."""
    return _scaled(rgb, square, side, _filter(square.width, side))


def scale_hole(hole: np.ndarray, square: Box, side: int) -> np.ndarray:
    """What ``square`` shows of bool [H, W]: True wherever a hole pixel has a share, be it ever so small.

    With the filter of :func:`scale_image`: nothing of a hole's content reaches a pixel called known.
    """
    return _scaled(hole, square, side, _filter(square.width, side)) > 0


def scale_edges(edges: np.ndarray, square: Box, side: int) -> np.ndarray:
    """What ``square`` shows of bool [H, W]: bool [side, side]; a line one pixel wide survives a reduction."""
    return _scaled(edges, square, side, _filter(square.width, side)) > 0.5 * min(1.0, side / square.width)


def scale_labels(labels: np.ndarray, square: Box, side: int) -> np.ndarray:
    """What ``square`` shows of uint8 [H, W]: uint8 [side, side], nearest neighbour."""
    return _scaled(labels, square, side, Image.Resampling.NEAREST)


def _scaled(plane: np.ndarray, square: Box, side: int, resample: Image.Resampling) -> np.ndarray:
    """What ``square`` shows of [H, W, ...]; uint8 stays so, bool becomes shares in [0, 1]. Borders mirror.

    Axes along which the square stays inside are scaled before anything is mirrored: round a long strip that takes
    memory in proportion to the square's side, not to its area.
    """
    height, width = plane.shape[:2]
    inside = square.clip(width, height)
    rows, columns = (inside.y0 - square.y0, square.y1 - inside.y1), (inside.x0 - square.x0, square.x1 - inside.x1)
    part = inside.of(plane)
    if part.dtype == bool:
        part = part.astype(np.float32)  # 8 bits would round small shares to nothing
    part = _resize(part, (inside.width if any(columns) else side, inside.height if any(rows) else side), resample)
    part = np.pad(part, (rows, columns) + ((0, 0),) * (plane.ndim - 2), mode="symmetric")
    return _resize(part, (side, side), resample)


def _resize(plane: np.ndarray, size: tuple[int, int], resample: Image.Resampling) -> np.ndarray:
    """[H, W, ...] to (width, height)."""
    return np.asarray(Image.fromarray(plane).resize(size, resample))


def _filter(source: int, target: int) -> Image.Resampling:
    # Neither has negative lobes: what a scaled pixel holds comes from the pixels with a positive share alone.
    return Image.Resampling.BOX if target < source else Image.Resampling.BILINEAR


def paste(rgb: np.ndarray, fill: np.ndarray, hole: np.ndarray, crop: Crop) -> None:
    """Write ``fill`` into the hole pixels of ``crop.target``, in place; no other pixel is touched.

    Args:
        rgb: uint8 [H, W, 3].
        fill: uint8 [S, S, 3], what the model made of ``crop.square``.
        hole: bool [H, W].
        crop: from :func:`mmif.inpaint.plan.plan_crops`.
    """
    scaled = _resize_part(Image.fromarray(fill), crop.square, crop.target, Image.Resampling.BICUBIC)
    inside = crop.target.of(hole)
    crop.target.of(rgb)[inside] = scaled[inside]


def paste_map(canvas: np.ndarray, values: np.ndarray, crop: Crop, box: Box | None = None) -> None:
    """Write uint8 [S, S] labels or edges of ``crop`` into ``canvas`` [H, W], in place: in ``box``, or all it saw."""
    inside = crop.square.clip(canvas.shape[1], canvas.shape[0])
    scaled = _resize_part(Image.fromarray(values), crop.square, inside, Image.Resampling.NEAREST)
    box = box or inside
    box.of(canvas)[...] = box.move(-inside.x0, -inside.y0).of(scaled)


def _resize_part(image: Image.Image, square: Box, part: Box, resample: Image.Resampling) -> np.ndarray:
    """The pixels of ``part`` if ``image`` were scaled to ``square``; only that part is made."""
    scale = image.width / square.width
    x0, y0 = scale * (part.x0 - square.x0), scale * (part.y0 - square.y0)
    source = x0, y0, x0 + scale * part.width, y0 + scale * part.height
    return np.asarray(image.resize((part.width, part.height), resample, box=source))
