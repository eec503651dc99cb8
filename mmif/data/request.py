"""What can be asked of ``mmif-data masks``. Loads neither NumPy nor Pillow, so that ``--help`` is quick."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from mmif.options import Range, check, spelled

KINDS = ("strokes", "boxes", "mixed")


@dataclass(frozen=True, slots=True)
class MaskOptions:
    """How many masks to draw, and which."""

    ratio: tuple[float, float]
    """Least and largest share of the picture, in [0, 1]."""
    count: Annotated[int, Range(1, 10**6)] = 1
    """Number of masks."""
    seed: Annotated[int, Range(0)] = 0
    """Mask i depends on it and on i alone."""

    def __post_init__(self) -> None:
        check(self, spelled)
