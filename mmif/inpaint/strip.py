"""The comparison strip: photograph, hole, predicted segmentation and edges, result, side by side."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmif.images.sheet import as_rgb, sheet
from mmif.inpaint.result import Result

_HEIGHT = 256  # a strip is for looking: no panel is higher
_HOLE = (255, 255, 255)


def comparison_strip(result: Result) -> Image.Image:
    """Draw the panels of one result as an RGB image; a branch that the model lacks has none."""
    photo = Image.fromarray(result.photo.rgb)
    scale = min(1.0, _HEIGHT / photo.height)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))

    def small(image: Image.Image) -> Image.Image:
        return as_rgb(image).resize(size, Image.Resampling.BOX)

    hole = np.asarray(Image.fromarray(result.hole).convert("L").resize(size, Image.Resampling.BOX)) > 127
    marked = np.asarray(small(photo)).copy()
    marked[hole] = _HOLE
    predicted = [small(image) for image in (result.segmentation, result.edges) if image is not None]
    return sheet([[small(photo), marked, *predicted, small(result.image)]])
