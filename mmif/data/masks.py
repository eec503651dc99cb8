"""Holes: free-form strokes and boxes whose area is built to size, not drawn until it fits.

Shapes are added until the wanted area is passed; the last one is then cut off along a straight line, so that the area
is met to the pixel at any ratio. White = True = hole.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmif.data.request import KINDS

_TRAINING_RATIOS = (0.05, 0.9)
_MAX_SHAPES = 400  # random shapes take ever longer to reach the last free pixels; then the frame itself is the shape

Hole = NDArray[np.bool_]  # [height, width]


def random_hole(size: int, rng: np.random.Generator) -> Hole:
    """Draw a hole for training: half of them strokes, half boxes, the area uniform in 5..90 % of the square.

    Args:
        size: side of the square in pixels.
        rng: the only source of randomness.

    Returns:
        bool [size, size], True = hole.
    """
    return hole_at_ratio(size, *_TRAINING_RATIOS, rng)


def hole_at_ratio(
    size: int | tuple[int, int], lo: float, hi: float, rng: np.random.Generator, kind: str = "mixed"
) -> Hole:
    """Draw a hole that covers between ``lo`` and ``hi`` of the picture, the area uniform in that band.

    Args:
        size: side of a square, or (width, height), in pixels.
        lo: least share of the picture, in [0, 1].
        hi: largest share, ``lo <= hi <= 1``.
        rng: the only source of randomness.
        kind: strokes, boxes, or mixed, which takes either with equal chance.

    Returns:
        bool [height, width], True = hole; at least one pixel.

    Raises:
        ValueError: unknown kind, a band outside 0..1, or one that no whole number of pixels meets.
    """
    if kind not in KINDS:
        raise ValueError(f"kind must be one of {', '.join(KINDS)}, got {kind!r}")
    width, height = (size, size) if isinstance(size, int) else size
    if min(width, height) < 1 or not 0 <= lo <= hi <= 1:
        raise ValueError(f"a hole needs a size >= 1 and a ratio 0 <= lo <= hi <= 1, got {size} and {lo}..{hi}")
    pixels = width * height
    least, most = max(1, math.ceil(lo * pixels - 1e-6)), math.floor(hi * pixels + 1e-6)
    if least > most:
        raise ValueError(f"no whole number of the {pixels} pixels lies in the ratio {lo}..{hi}: widen it")
    area = int(rng.integers(least, most + 1))
    if kind == "mixed":
        kind = KINDS[rng.integers(2)]
    frame = _Frame(width, height)
    return _fill(frame, area, (_strokes if kind == "strokes" else _boxes)(frame, area / pixels, rng), rng)


class _Frame(NamedTuple):
    """The picture that a hole is drawn in."""

    width: int
    height: int

    @property
    def side(self) -> float:
        """Side of the square of the same area: what the sizes of shapes are given in."""
        return math.sqrt(self.width * self.height)


Shape = tuple[Callable[[ImageDraw.ImageDraw], None], float]  # draws itself; direction of growth in radians


def _fill(frame: _Frame, area: int, shapes: Iterator[Shape], rng: np.random.Generator) -> Hole:
    canvas = Image.new("L", frame)
    draw = ImageDraw.Draw(canvas)
    hole = np.zeros((frame.height, frame.width), bool)
    for paint, direction in islice(shapes, _MAX_SHAPES):
        paint(draw)
        grown = np.asarray(canvas) > 0
        if np.count_nonzero(grown) >= area:
            return _trim(hole, grown, area, direction)
        hole = grown
    return _trim(hole, np.ones_like(hole), area, rng.uniform(0, 2 * math.pi))


def _trim(hole: Hole, grown: Hole, area: int, direction: float) -> Hole:
    """Keep so much of what ``grown`` adds to ``hole``, along ``direction``, that ``area`` pixels are set."""
    y, x = np.nonzero(grown & ~hole)
    missing = area - np.count_nonzero(hole)
    along = x * math.cos(direction) + y * math.sin(direction)
    first = np.argsort(along, kind="stable")[:missing]  # stable: equal distances must not depend on the machine
    hole[y[first], x[first]] = True
    return hole


def _boxes(frame: _Frame, share: float, rng: np.random.Generator) -> Iterator[Shape]:
    """Boxes of about a third to a half of the picture's width and height, more for large areas; may leave the frame."""
    scale, size = 0.6 + 0.9 * share, np.array(frame)
    while True:
        box = rng.uniform(size / 3, size / 2) * scale
        start = rng.uniform(-box / 3, size - 2 / 3 * box)
        # Pillow paints both corners
        corners = [int(v) for v in (*start, *(start + np.maximum(box - 1, 0)))]
        yield lambda draw, box=corners: draw.rectangle(box, fill=255), math.pi / 2 * int(rng.integers(4))


def _strokes(frame: _Frame, share: float, rng: np.random.Generator) -> Iterator[Shape]:
    """Segments of wandering brush strokes: width 10..24 at a side of 256, up to three times that for large areas."""
    last = np.array(frame) - 1
    while True:
        width = rng.uniform(10, 24) * frame.side / 256 * (1 + 2 * share)
        x, y = rng.uniform(0, frame)
        heading = rng.uniform(0, 2 * math.pi)
        for _ in range(rng.integers(4, 26)):
            heading += rng.normal(0, 0.8)
            length = rng.uniform(0.1, 0.4) * frame.side
            # a stroke bounces off the frame
            end_x, end_y = np.clip([x + length * math.cos(heading), y + length * math.sin(heading)], 0, last)
            yield _segment(x, y, end_x, end_y, width), math.atan2(end_y - y, end_x - x)
            if (end_x, end_y) != (x + length * math.cos(heading), y + length * math.sin(heading)):
                heading += math.pi / 2
            x, y = end_x, end_y


def _segment(x0: float, y0: float, x1: float, y1: float, width: float) -> Callable[[ImageDraw.ImageDraw], None]:
    radius = width / 2

    def paint(draw: ImageDraw.ImageDraw) -> None:
        draw.line((x0, y0, x1, y1), fill=255, width=max(1, round(width)))
        for x, y in ((x0, y0), (x1, y1)):
            draw.ellipse((x - radius, y - radius, x + radius, y + radius), fill=255)

    return paint
