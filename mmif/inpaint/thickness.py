"""How thick a hole is at each of its places, on a grid of cells: what a plan of squares needs to know of it."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

_STRAY = 1 / 16  # share of known pixels in a cell that is a hole all the same: a stray pixel shows nothing


@dataclass(frozen=True, slots=True)
class Cells:
    """A hole [H, W] seen on a grid of square cells; R x C of them, those at the far borders may be cut off.

    Attributes:
        size: side of a cell in pixels.
        some: bool [R, C], the cell holds a hole pixel.
        thickness: float32 [R, C], side in pixels of the largest square of hole that covers the cell, to within two
            cells; at least one cell, infinite without a known pixel. What lies beyond the photograph is not known, so
            that a hole at the border is as thick as if the photograph were mirrored there.
        down: uint32 [R, C], hole pixels of the cell's uppermost row that have a hole pixel above them.
        right: uint32 [R, C], hole pixels of the cell's leftmost column that have a hole pixel to their left.
    """

    size: int
    some: np.ndarray
    thickness: np.ndarray
    down: np.ndarray
    right: np.ndarray

    @classmethod
    def of(cls, hole: np.ndarray, size: int) -> Cells:
        """Look at bool [H, W]; takes a few passes over it, and memory for the cells."""
        count = _sums(hole, size)
        height, width = (np.minimum(size, length - np.arange(0, length, size)) for length in hole.shape)
        return cls(
            size,
            count > 0,
            _local_thickness(count >= (1.0 - _STRAY) * height[:, None] * width, size),
            _crossings(hole, size),
            _crossings(hole.T, size).T,
        )


def _sums(hole: np.ndarray, size: int) -> np.ndarray:
    """Hole pixels in each cell, uint32 [R, C]."""
    rows = np.zeros((-(-hole.shape[0] // size), hole.shape[1]), np.uint16)
    for offset in range(size):
        part = hole[offset::size]
        rows[: len(part)] += part
    return np.add.reduceat(rows, np.arange(0, hole.shape[1], size), axis=1, dtype=np.uint32)


def _crossings(hole: np.ndarray, size: int) -> np.ndarray:
    """Pairs of hole pixels on both sides of each cell's upper border, uint32 [R, C]."""
    below = hole[size::size]
    pairs = below & hole[size - 1 :: size][: len(below)]
    counts = np.add.reduceat(pairs, np.arange(0, hole.shape[1], size), axis=1, dtype=np.uint32)
    return np.concatenate([np.zeros_like(counts, shape=(1, counts.shape[1])), counts])


def _local_thickness(solid: np.ndarray, size: int, radii: range = range(9)) -> np.ndarray:
    """Side of the largest square of ``solid`` cells over each cell: openings by squares of growing radius."""
    if solid.all():
        return np.full(solid.shape, np.inf, np.float32)
    # Whatever is not wider than the smallest square is the business of the finer cells, if there are any.
    thickness = np.full(solid.shape, 0 if radii.start else size, np.float32)
    known, grown = ~solid, 0
    for radius in radii:
        known, grown = _grow(known, radius - grown), radius
        if known.all():
            return thickness
        # What is left holds the centres of the squares that fit.
        thickness[_grow(~known, radius)] = size * (2 * radius + 2)
    # Larger squares are looked for in cells of twice the size.
    rows, columns = (np.arange(0, length, 2) for length in solid.shape)
    coarse = np.logical_and.reduceat(np.logical_and.reduceat(solid, rows, axis=0), columns, axis=1)
    larger = _local_thickness(coarse, 2 * size, range(4, 9)).repeat(2, axis=0).repeat(2, axis=1)
    return np.maximum(thickness, larger[: len(solid), : solid.shape[1]])


def _grow(mask: np.ndarray, radius: int) -> np.ndarray:
    """Dilate a bool mask by a square of this radius; nothing comes in from outside."""
    mask = mask.copy()
    for view in (mask, mask.T):
        reach = 0
        while reach < radius:
            step = min(reach + 1, radius - reach)  # twice as far from step to step
            before = view.copy(order="K")
            view[step:] |= before[:-step]
            view[:-step] |= before[step:]
            reach += step
    return mask
