"""Sample pictures written while training."""

from __future__ import annotations

from pathlib import Path

import torch.nn.functional as F
from PIL import Image
from torch import Tensor


def save_grid(path: Path, images: Tensor, columns: int) -> None:
    """Write ``images`` [N, 3, H, W] in [-1, 1] as a PNG with ``columns`` per row; what is left of the last is white."""
    images = F.pad(images.float(), (0, 0, 0, 0, 0, 0, 0, -len(images) % columns), value=1.0)
    n, c, h, w = images.shape
    grid = images.reshape(n // columns, columns, c, h, w).permute(0, 3, 1, 4, 2)
    pixels = ((grid.reshape(n // columns * h, columns * w, c) + 1) * 127.5).round().clamp(0, 255).byte().cpu().numpy()
    Image.fromarray(pixels).save(path)
