"""A contact sheet of a packed set: photographs, their labels in colours, their edges."""

from __future__ import annotations

import numpy as np
from PIL import Image

from mmif.data.dataset import PackedDataset
from mmif.image import label_image


def contact_sheet(dataset: PackedDataset, columns: int = 8, rows: int = 3) -> Image.Image:
    """Return the first ``columns * rows`` photographs, each above its label map and its edges.

    Raises:
        ValueError: ``columns`` or ``rows`` is less than one.
    """
    if columns < 1 or rows < 1:
        raise ValueError(f"a contact sheet needs --columns >= 1 and --rows >= 1, got {columns} and {rows}")
    size = dataset.size
    count = min(columns * rows, len(dataset))
    sheet = Image.new("RGB", (min(columns, count) * size, -(-count // columns) * 3 * size))
    for i in range(count):
        item = dataset[i]
        tiles = (
            Image.fromarray(item["image"].permute(1, 2, 0).numpy()),
            label_image(item["seg"].numpy()),
            Image.fromarray(item["edge"][0].numpy() * np.uint8(255)),
        )
        for j, tile in enumerate(tiles):
            sheet.paste(tile.convert("RGB"), (i % columns * size, (i // columns * 3 + j) * size))
    return sheet
