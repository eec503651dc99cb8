"""Fill the hole in examples/photo.jpg from Python: ``python examples/inpaint.py [CHECKPOINT] [OUT]``."""

from __future__ import annotations

import sys
from pathlib import Path

from mmif import Inpainter

HERE = Path(__file__).parent


def main(model: str = "scenes-128", out: str = "runs/filled.png") -> None:
    """Fill the hole with bundled weights, or those of a checkpoint folder, and say what was done."""
    pipe = Inpainter.from_pretrained(model)
    print(pipe.describe())
    result = pipe(HERE / "photo.jpg", HERE / "mask.png", seed=0)  # white = hole
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    result.save(out)
    print(f"result {out}, {result.timings['total']:.2f} s")


if __name__ == "__main__":
    main(*sys.argv[1:])
