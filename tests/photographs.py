"""Small collections of photographs on disk, for whichever room needs them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

Photograph = Callable[..., Path]


@pytest.fixture
def photograph() -> Photograph:
    """Return a function that writes a smooth random picture; each call with another seed is another photograph."""

    def write(path: Path, seed: int = 0, size: tuple[int, int] = (40, 32)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        coarse = np.random.default_rng(seed).integers(0, 256, (4, 4, 3), np.uint8)
        Image.fromarray(coarse).resize(size, Image.Resampling.BICUBIC).save(path)
        return path

    return write


@pytest.fixture
def folder(tmp_path: Path, photograph: Photograph) -> Path:
    """Forty photographs in layout ``folder``, enough for each split to get some."""
    for i in range(40):
        photograph(tmp_path / "photos" / f"photo{i}.jpg", i)
    return tmp_path / "photos"
