"""Holes that are made rather than read: grown by some pixels, or drawn as rectangles."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

MAX_GROWTH = 1000  # pixels; the work is in proportion to it


def grow(hole: np.ndarray, pixels: int) -> np.ndarray:
    """Add to a hole everything that is at most so many pixels from it: a round brush, run along its border.

    Args:
        hole: bool [H, W], True = hole.
        pixels: Euclidean distance between the centres of pixels, 0..``MAX_GROWTH``.

    Returns:
        bool [H, W], a new array.

    Raises:
        ValueError: ``pixels`` is negative or beyond the limit.
    """
    if not 0 <= pixels <= MAX_GROWTH:
        raise ValueError(f"a mask can be grown by 0..{MAX_GROWTH} pixels, got {pixels}")
    rows, columns = np.flatnonzero(hole.any(1)), np.flatnonzero(hole.any(0))
    grown = np.zeros_like(hole)
    if not rows.size:
        return grown
    top, left = max(rows[0] - pixels, 0), max(columns[0] - pixels, 0)
    part = np.s_[top : rows[-1] + pixels + 1, left : columns[-1] + pixels + 1]  # nothing grows beyond it
    across, grown_part = _distance_across(hole[part]), grown[part]
    height = len(across)
    for down in range(min(pixels, height - 1) + 1):
        near = across <= int((pixels**2 - down**2) ** 0.5)
        grown_part[down:] |= near[: height - down]
        grown_part[: height - down] |= near[down:]
    return grown


def _distance_across(hole: np.ndarray) -> np.ndarray:
    """Pixels to the nearest hole pixel of the same row, int32 [H, W]; beyond the width where there is none."""
    width = hole.shape[1]
    x = np.arange(width, dtype=np.int32)
    left = np.maximum.accumulate(np.where(hole, x, np.int32(-MAX_GROWTH - width)), axis=1)
    right = np.minimum.accumulate(np.where(hole, x, np.int32(MAX_GROWTH + 2 * width))[:, ::-1], axis=1)[:, ::-1]
    return np.minimum(x - left, right - x)


def boxes(size: tuple[int, int], rectangles: Iterable[Sequence[int]]) -> np.ndarray:
    """Draw rectangles as one hole.

    Args:
        size: (width, height) of the photograph.
        rectangles: (x, y, width, height) of each, in pixels of the photograph as it is shown upright.

    Returns:
        bool [H, W], True inside any of them.

    Raises:
        ValueError: a rectangle without four numbers or without pixels, or one that reaches beyond the photograph.
    """
    hole = np.zeros(size[::-1], bool)
    for rectangle in rectangles:
        came = ",".join(map(str, rectangle))
        if len(rectangle) != 4:
            raise ValueError(f"a box must be x,y,width,height; got {came}")
        x, y, width, height = rectangle
        if width < 1 or height < 1:
            raise ValueError(f"a box must be at least one pixel wide and high; got {came} (x,y,width,height)")
        if x < 0 or y < 0 or x + width > size[0] or y + height > size[1]:
            raise ValueError(
                f"a box must lie inside the photograph, {size[0]} x {size[1]}; {came} (x,y,width,height) reaches from "
                f"{x},{y} to {x + width},{y + height}"
            )
        hole[y : y + height, x : x + width] = True
    return hole
