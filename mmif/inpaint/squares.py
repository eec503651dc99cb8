"""Squares round the holes: where to look, how the model sees it, and how the fill goes back.

A photograph of any size and shape is filled through squares of the model's side. Everything here works on the squares,
never on a second copy of the photograph.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from PIL import Image

MAX_CROPS = 16  # scattered holes beyond that share squares
_GRID = 64  # holes are grouped on a grid of at most this many cells a side


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

    def join(self, other: Box) -> Box:
        """The smallest box that holds both."""
        return Box(min(self.x0, other.x0), min(self.y0, other.y0), max(self.x1, other.x1), max(self.y1, other.y1))

    def overlaps(self, other: Box) -> bool:
        return self.x0 < other.x1 and other.x0 < self.x1 and self.y0 < other.y1 and other.y0 < self.y1

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


def plan_crops(hole: np.ndarray, side: int, margin: float = 0.5) -> list[Crop]:
    """Choose the squares that fill ``hole``.

    Holes near each other share a square; holes so far apart that a common square would show each much smaller get one
    each, at most ``MAX_CROPS``.

    Args:
        hole: bool [H, W], True = hole.
        side: side of the model in pixels; no square is smaller where the photograph allows it.
        margin: known surroundings on each side of the hole, as a share of the hole's longer extent.

    Returns:
        Crops, top to bottom; empty for an empty hole.
    """
    height, width = hole.shape

    def square_side(box: Box) -> int:
        extent = max(box.width, box.height)
        wanted = max(side, round(extent * (1.0 + 2.0 * margin)))
        # Surroundings end at the photograph's shorter side: only a hole that is longer makes the square reach beyond.
        return max(extent, min(wanted, width, height))

    groups = _components(hole)
    for stretch in (1.5, 2.0, 3.0, float("inf")):
        groups = _merge(groups, square_side, stretch)
        if len(groups) <= MAX_CROPS:
            break
    groups.sort(key=lambda box: (box.y0, box.x0))
    return [Crop(_square(box, square_side(box), width, height), box) for box in groups]


def _components(hole: np.ndarray) -> list[Box]:
    """Tight boxes of the connected parts of a hole, connected on a coarse grid laid over all of them."""
    height, width = hole.shape
    if not hole.any():
        return []
    whole = _tighten(hole, Box(0, 0, width, height))
    cell = -(-max(whole.width, whole.height) // _GRID)
    rows, columns = np.arange(0, whole.height, cell), np.arange(0, whole.width, cell)
    grid = np.logical_or.reduceat(np.logical_or.reduceat(whole.of(hole), rows, axis=0), columns, axis=1)
    boxes = []
    while grid.any():
        cells = _flood(grid, *(int(i) for i in np.argwhere(grid)[0]))
        ys, xs = [y for y, _ in cells], [x for _, x in cells]
        coarse = Box(min(xs) * cell, min(ys) * cell, (max(xs) + 1) * cell, (max(ys) + 1) * cell)
        boxes.append(_tighten(hole, coarse.move(whole.x0, whole.y0).clip(width, height)))
    return boxes


def _flood(grid: np.ndarray, y: int, x: int) -> list[tuple[int, int]]:
    """Take the 8-connected cells round (y, x) out of ``grid``."""
    grid[y, x] = False
    found = [(y, x)]
    for cy, cx in found:  # grows while it is walked
        y0, x0 = max(cy - 1, 0), max(cx - 1, 0)
        for dy, dx in np.argwhere(grid[y0 : cy + 2, x0 : cx + 2]):
            neighbour = y0 + int(dy), x0 + int(dx)
            grid[neighbour] = False
            found.append(neighbour)
    return found


def _tighten(hole: np.ndarray, box: Box) -> Box:
    """Smallest box round the hole pixels inside ``box``."""
    part = box.of(hole)
    ys, xs = np.flatnonzero(part.any(axis=1)), np.flatnonzero(part.any(axis=0))
    return Box(box.x0 + int(xs[0]), box.y0 + int(ys[0]), box.x0 + int(xs[-1]) + 1, box.y0 + int(ys[-1]) + 1)


def _merge(boxes: list[Box], square_side: Callable[[Box], int], stretch: float) -> list[Box]:
    """Join boxes while they overlap or their common square is at most ``stretch`` times the larger of the two."""
    while True:
        merged: list[Box] = []
        for box in boxes:
            for i, other in enumerate(merged):
                joint = box.join(other)
                if box.overlaps(other) or square_side(joint) <= stretch * max(square_side(box), square_side(other)):
                    merged[i] = joint
                    break
            else:
                merged.append(box)
        if len(merged) == len(boxes):
            return merged
        boxes = merged


def _square(box: Box, side: int, width: int, height: int) -> Box:
    """Square of ``side`` centred on ``box``, moved inside the photograph as far as it fits."""
    x0 = _start(box.x0, box.x1, side, width)
    y0 = _start(box.y0, box.y1, side, height)
    return Box(x0, y0, x0 + side, y0 + side)


def _start(low: int, high: int, side: int, length: int) -> int:
    if side >= length:
        return (length - side) // 2  # reaches beyond on both ends
    return min(max((low + high - side) // 2, 0), length - side)


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
        crop: from :func:`plan_crops`.
    """
    scaled = _resize_part(Image.fromarray(fill), crop.square, crop.target, Image.Resampling.BICUBIC)
    inside = crop.target.of(hole)
    crop.target.of(rgb)[inside] = scaled[inside]


def paste_map(canvas: np.ndarray, values: np.ndarray, crop: Crop) -> None:
    """Write uint8 [S, S] labels or edges over the whole square of ``crop`` into ``canvas`` [H, W], in place."""
    inside = crop.square.clip(canvas.shape[1], canvas.shape[0])
    inside.of(canvas)[...] = _resize_part(Image.fromarray(values), crop.square, inside, Image.Resampling.NEAREST)


def _resize_part(image: Image.Image, square: Box, part: Box, resample: Image.Resampling) -> np.ndarray:
    """The pixels of ``part`` if ``image`` were scaled to ``square``; only that part is made."""
    scale = image.width / square.width
    x0, y0 = scale * (part.x0 - square.x0), scale * (part.y0 - square.y0)
    source = x0, y0, x0 + scale * part.width, y0 + scale * part.height
    return np.asarray(image.resize((part.width, part.height), resample, box=source))
