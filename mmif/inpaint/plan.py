"""Where the squares go: near the model's own scale wherever the hole is thin, wide enough wherever it is thick.

The hole is cut into parts, each of which one square fills. What decides is its local thickness: the surroundings of a
scratch lie beside it, however long it is, those of a large compact hole are as far away as it is large.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from mmif.inpaint.squares import Box, Crop
from mmif.inpaint.thickness import Cells

_CELLS = 16  # cells to the model's side; cuts lie between them
_WHOLE = 2  # a photograph of so many sides shows its scene at a glance: its squares are not cut up
_THIN = 2  # surroundings of a long hole, as those of a compact one that is so many times as long as this one is thick
_COMPACT = 5  # extent, in thicknesses, up to which a hole is filled at one go
_LIMB = 1 / 3  # thickness, as a share of the thickest, down to which a part of a hole belongs to that place
_STRETCH = 1.5  # parts share a square that is at most so many times the larger of theirs


class _Part(NamedTuple):
    """A part of the hole: its cells, and the smallest box round its pixels."""

    cells: Box
    box: Box


def plan_crops(hole: np.ndarray, side: int, margin: float = 0.5) -> list[Crop]:
    """Choose the squares that fill ``hole``.

    A compact hole, or holes near each other, get one square with the margin round them. What is longer than it is
    thick (a scratch, a text, dust) is cut into parts that the model sees at its own scale. Their number is not limited.

    Args:
        hole: bool [H, W], True = hole.
        side: side of the model in pixels; no square is smaller where the photograph allows it.
        margin: known surroundings on each side of a compact hole, as a share of its longer extent.

    Returns:
        Crops, top to bottom; their targets are disjoint. Empty for an empty hole.
    """
    if not hole.any():
        return []
    planner = _Planner(hole, side, margin)
    rows, columns = planner.cells.some.shape
    parts, done = [planner.part(Box(0, 0, columns, rows))], []
    while parts:
        part = parts.pop()
        pieces = planner.cut(part)
        parts += [planner.part(piece) for piece in pieces]
        done += [] if pieces else [part]
    done.sort(key=lambda part: (part.box.y0, part.box.x0))
    height, width = hole.shape
    return [Crop(_square(part.box, planner.square_side(part), width, height), part.box) for part in done]


class _Planner:
    """Cuts a hole in two, again and again, until a square fits each part."""

    def __init__(self, hole: np.ndarray, side: int, margin: float) -> None:
        self.hole, self.side, self.margin = hole, side, margin
        self.cells = Cells.of(hole, max(1, side // _CELLS))
        self.whole = max(hole.shape) <= _WHOLE * side

    def part(self, cells: Box) -> _Part:
        """The part of the hole inside ``cells``, which must hold some of it."""
        cells = _tighten(self.cells.some, cells)
        size = self.cells.size
        box = Box(cells.x0 * size, cells.y0 * size, cells.x1 * size, cells.y1 * size)
        return _Part(cells, _tighten(self.hole, box.clip(self.hole.shape[1], self.hole.shape[0]), size))

    def square_side(self, part: _Part) -> int:
        height, width = self.hole.shape
        extent = _extent(part.box)
        wanted = self.side if self._native(part) else max(self.side, round(extent * (1.0 + 2.0 * self.margin)))
        # Surroundings end at the photograph's shorter side: only a hole that is longer makes the square reach beyond.
        return max(extent, min(wanted, width, height))

    def cut(self, part: _Part) -> list[Box]:
        """Cells of the two halves of a part that wants more than one square; empty if one is right."""
        if self._native(part):
            return []
        square, halves = self.square_side(part), _at_gap(self.cells.some, part.cells)
        if halves and square > _STRETCH * max(self.square_side(self.part(half)) for half in halves):
            return halves
        if self.whole:
            return []
        core = self._core(part)
        if square > _STRETCH * self.square_side(self.part(core)):
            return halves or _beside(part.cells, core)
        if _extent(part.box) <= _COMPACT * self._thickness(part):
            return []
        return halves or self._between(part)

    def _thickness(self, part: _Part) -> float:
        return float(part.cells.of(self.cells.thickness).max())

    def _native(self, part: _Part) -> bool:
        """Does the model's own side hold the part, with the surroundings that a hole of this thickness wants?"""
        extent = _extent(part.box)
        return extent + 2.0 * self.margin * min(extent, self._reach(part)) <= self.side

    def _reach(self, part: _Part) -> float:
        """What a long part takes its surroundings from, as a compact one from its extent."""
        return max(_THIN * self._thickness(part), self.side / (2.0 + 4.0 * self.margin))

    def _core(self, part: _Part) -> Box:
        """Cells round the thickest place of the part and what hangs together with it, at least ``_LIMB`` as thick."""
        cells, thickness = part.cells, part.cells.of(self.cells.thickness)
        y, x = divmod(int(thickness.argmax()), cells.width)
        thick = thickness >= _LIMB * thickness.max()
        core = Box(0, 0, cells.width, cells.height)
        while halves := _at_gap(thick, core := _tighten(thick, core)):
            core = next(half for half in halves if half.x0 <= x < half.x1 and half.y0 <= y < half.y1)
        # Round corners are thinner than what they are the corners of.
        edge = 1 + int(min(thickness.max(), _extent(part.box)) / 8) // self.cells.size
        core = Box(core.x0 - edge, core.y0 - edge, core.x1 + edge, core.y1 + edge)
        return core.clip(cells.width, cells.height).move(cells.x0, cells.y0)

    def _between(self, part: _Part) -> list[Box]:
        """Halves of a long part, cut where the least of the hole goes across and no more squares come of it."""
        limit = max(self.side - 2.0 * self.margin * self._reach(part), _COMPACT / 2 * self._thickness(part))
        cells, box, size = part.cells, part.box, self.cells.size
        lengthwise = box.width >= box.height
        across = cells.of(self.cells.right).sum(axis=0) if lengthwise else cells.of(self.cells.down).sum(axis=1)
        first, begin = (cells.x0, box.x0) if lengthwise else (cells.y0, box.y0)
        extent = _extent(box)
        number = math.ceil(extent / limit)
        middle = extent * (number // 2) / number
        cuts = np.arange(1, len(across))
        off = np.abs((first + cuts) * size - begin - middle)
        free = off <= max((number * limit - extent) * 0.5, off.min())
        best = min(cuts[free], key=lambda cut: (across[cut], off[cut - 1]))
        return _halves(cells, x=first + int(best)) if lengthwise else _halves(cells, y=first + int(best))


def _extent(box: Box) -> int:
    return max(box.width, box.height)


def _tighten(mask: np.ndarray, box: Box, border: int | None = None) -> Box:
    """Smallest box round what ``mask`` holds inside ``box``; all its sides are less than ``border`` away, if given."""
    part = box.of(mask)
    top, left = _first(part, border), _first(part.T, border)
    bottom, right = _first(part[::-1], border), _first(part.T[::-1], border)
    return Box(box.x0 + left, box.y0 + top, box.x1 - right, box.y1 - bottom)


def _first(mask: np.ndarray, border: int | None) -> int:
    """Index of the first row that is not empty."""
    return int(mask[:border].any(axis=1).argmax())


def _at_gap(mask: np.ndarray, box: Box) -> list[Box]:
    """Halves of ``box`` on both sides of its widest empty stretch of rows or columns; none without one."""
    part = box.of(mask)
    (height, y), (width, x) = _gap(part), _gap(part.T)
    if not max(height, width):
        return []
    return _halves(box, y=box.y0 + y) if height >= width else _halves(box, x=box.x0 + x)


def _gap(mask: np.ndarray) -> tuple[int, int]:
    """Length and middle of the longest run of empty rows, of the one nearest the middle where several are as long."""
    places = np.flatnonzero(mask.any(axis=1))
    lengths, middles = np.diff(places) - 1, (places[1:] + places[:-1] + 1) // 2
    if not len(lengths):
        return 0, 0
    off = np.abs(2 * middles - len(mask))
    best = np.lexsort((off, -lengths))[0]
    return int(lengths[best]), int(middles[best])


def _halves(box: Box, *, x: int | None = None, y: int | None = None) -> list[Box]:
    """The box cut at a column or a row."""
    if x is not None:
        return [Box(box.x0, box.y0, x, box.y1), Box(x, box.y0, box.x1, box.y1)]
    assert y is not None
    return [Box(box.x0, box.y0, box.x1, y), Box(box.x0, y, box.x1, box.y1)]


def _beside(box: Box, core: Box) -> list[Box]:
    """Halves of ``box``, cut at the side of ``core`` that leaves most of it on the other hand."""
    rests = {
        core.x0 - box.x0: {"x": core.x0},
        box.x1 - core.x1: {"x": core.x1},
        core.y0 - box.y0: {"y": core.y0},
        box.y1 - core.y1: {"y": core.y1},
    }
    return _halves(box, **rests[max(rests)])


def _square(box: Box, side: int, width: int, height: int) -> Box:
    """Square of ``side`` centred on ``box``, moved inside the photograph as far as it fits."""
    x0 = _start(box.x0, box.x1, side, width)
    y0 = _start(box.y0, box.y1, side, height)
    return Box(x0, y0, x0 + side, y0 + side)


def _start(low: int, high: int, side: int, length: int) -> int:
    if side >= length:
        return (length - side) // 2  # reaches beyond on both ends
    return min(max((low + high - side) // 2, 0), length - side)
