"""A contact sheet of a packed set: photographs, their labels in colours, their edges."""

from __future__ import annotations

from PIL import Image

from mmif.data.dataset import PackedDataset
from mmif.images.labels import label_image
from mmif.images.sheet import Picture, in_rows, sheet


def contact_sheet(dataset: PackedDataset, columns: int = 8, rows: int = 3) -> Image.Image:
    """Return the first ``columns * rows`` photographs, each above its label map and its edges.

    Raises:
        ValueError: ``columns`` or ``rows`` is less than one.
    """
    if columns < 1 or rows < 1:
        raise ValueError(f"a contact sheet needs --columns >= 1 and --rows >= 1, got {columns} and {rows}")
    items = [dataset[i] for i in range(min(columns * rows, len(dataset)))]
    tiles: list[list[Picture]] = [
        [item["image"].permute(1, 2, 0).numpy() for item in items],
        [label_image(item["seg"].numpy()) for item in items],
        [item["edge"][0].numpy().astype(bool) for item in items],
    ]
    by_kind = [in_rows(kind, columns) for kind in tiles]
    return sheet([row for group in zip(*by_kind, strict=True) for row in group], gap=0)
