"""One picture made of many: every strip, contact sheet and sample grid is drawn here."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from PIL import Image, ImageDraw

from mmif.images.source import reduce_16_bit

Picture = Image.Image | np.ndarray  # an array is uint8 [H, W], [H, W, 3] or bool [H, W]

_TITLE_HEIGHT, _LABEL_WIDTH = 16, 52  # pixels kept free for words


def sheet(
    rows: Sequence[Sequence[Picture]], *, titles: Sequence[str] = (), labels: Sequence[str] = (), gap: int = 4
) -> Image.Image:
    """Lay pictures out in rows and columns on white.

    A column is as wide as its widest picture, a row as high as its highest; rows may differ in length.

    Args:
        rows: the pictures, at least one.
        titles: words above the columns.
        labels: words left of the rows.
        gap: pixels between neighbours.

    Returns:
        An RGB image.

    Raises:
        ValueError: there is no picture.
    """
    pictures = [[as_rgb(p) for p in row] for row in rows]
    columns = max(map(len, pictures), default=0)
    if not columns:
        raise ValueError("a sheet needs at least one picture, got none")
    widths = [max((row[x].width for row in pictures if x < len(row)), default=0) for x in range(columns)]
    heights = [max((picture.height for picture in row), default=0) for row in pictures]
    left, top = _LABEL_WIDTH * bool(labels), _TITLE_HEIGHT * bool(titles)
    xs, ys = _starts(widths, left, gap), _starts(heights, top, gap)
    result = Image.new("RGB", (xs[-1] + widths[-1], ys[-1] + heights[-1]), "white")
    draw = ImageDraw.Draw(result)
    for x, title in zip(xs, titles, strict=False):
        draw.text((x, 2), title, fill="black")
    for y, label in zip(ys, labels, strict=False):
        draw.text((2, y), label, fill="black")
    for y, row in zip(ys, pictures, strict=True):
        for x, picture in zip(xs, row, strict=False):
            result.paste(picture, (x, y))
    return result


def in_rows(pictures: Sequence[Picture], columns: int) -> list[list[Picture]]:
    """Break a list of pictures into rows of ``columns``; the last one may be shorter."""
    return [list(pictures[i : i + columns]) for i in range(0, len(pictures), columns)]


def as_rgb(picture: Picture) -> Image.Image:
    """An RGB image of any picture, one of 16 bits among them, which Pillow would show white."""
    image = picture if isinstance(picture, Image.Image) else Image.fromarray(picture)
    if image.mode.startswith("I"):
        image = Image.fromarray(reduce_16_bit(np.asarray(image)))
    return image.convert("RGB")


def _starts(sizes: Sequence[int], first: int, gap: int) -> list[int]:
    starts = [first]
    for size in sizes[:-1]:
        starts.append(starts[-1] + size + gap)
    return starts
