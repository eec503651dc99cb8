"""The comparison strip: photograph, hole, predicted segmentation and edges, result, side by side."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmif.job import Result

_HEIGHT = 256  # a strip is for looking: no panel is higher
_GAP = 4
_HOLE = (255, 255, 255)


def comparison_strip(result: Result) -> Image.Image:
    """Draw the panels of one result as an RGB image; a branch that the model lacks has none."""
    photo = Image.fromarray(result.photo.rgb)
    scale = min(1.0, _HEIGHT / photo.height)
    size = max(1, round(photo.width * scale)), max(1, round(photo.height * scale))
    small = photo.resize(size, Image.Resampling.BOX)
    hole = np.asarray(Image.fromarray(result.hole).convert("L").resize(size, Image.Resampling.BOX)) > 127
    marked = np.asarray(small).copy()
    marked[hole] = _HOLE
    panels = [small, Image.fromarray(marked)]
    for prediction in (result.segmentation, result.edges):
        if prediction is not None:
            panels.append(prediction.convert("RGB").resize(size, Image.Resampling.BOX))
    panels.append(result.image.convert("RGB").resize(size, Image.Resampling.BOX))
    strip = Image.new("RGB", (len(panels) * (size[0] + _GAP) - _GAP, size[1]), "white")
    for i, panel in enumerate(panels):
        strip.paste(panel, (i * (size[0] + _GAP), 0))
    return strip
