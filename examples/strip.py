"""Draw the picture of the README from this folder: ``python examples/strip.py [CHECKPOINT] [OUT]``."""

from __future__ import annotations

import sys
from pathlib import Path

from mmif import Inpainter
from mmif.images.sheet import sheet
from mmif.inpaint.strip import comparison_strip

HERE = Path(__file__).parent
SCENES = ("launch", "quay", "forest")
PAIRS = [("photo.jpg", "mask.png"), *((f"scenes/{n}.jpg", f"scenes/{n}_mask.png") for n in SCENES)]


def main(model: str = "scenes-128", out: str = "runs/strip.png") -> None:
    """Fill every example and stack the comparison strips, all to one width."""
    pipe = Inpainter.from_pretrained(model)
    strips = [comparison_strip(pipe(HERE / photo, HERE / mask, seed=0)) for photo, mask in PAIRS]
    width = min(strip.width for strip in strips)
    strips = [strip.resize((width, round(strip.height * width / strip.width))) for strip in strips]
    Path(out).parent.mkdir(parents=True, exist_ok=True)
    sheet([[strip] for strip in strips]).save(out)


if __name__ == "__main__":
    main(*sys.argv[1:])
