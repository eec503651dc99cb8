"""Seconds per image of the bundled model on this CPU, after loading; the bundled photograph with its hole.

Usage: python benchmarks/inpaint_cpu.py [--weights scenes-128] [--samples 30]
"""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from PIL import Image
from timing import measure, peak_rss, save, table, timing_row

from mmif import Inpainter

EXAMPLES = Path(__file__).parents[1] / "examples"
ONCE = """
import sys
from PIL import Image
from mmif import Inpainter
weights, photo, mask = sys.argv[1:]
Inpainter.from_pretrained(weights, device="cpu")(Image.open(photo), Image.open(mask), seed=0)
"""


def main() -> None:
    """Measure, print the table, save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="scenes-128", help="bundled preset or checkpoint folder")
    parser.add_argument("--samples", type=int, default=30)
    args = parser.parse_args()
    photo, mask = EXAMPLES / "photo.jpg", EXAMPLES / "mask.png"
    start = time.perf_counter()
    pipe = Inpainter.from_pretrained(args.weights, device="cpu")
    load_s = time.perf_counter() - start
    image, hole = Image.open(photo).copy(), Image.open(mask).copy()
    timing = measure(lambda: pipe(image, hole, seed=0), samples=args.samples, budget_s=120)
    row = {
        "weights": args.weights,
        "image": "x".join(map(str, image.size)),
        "load_s": round(load_s, 3),
        **timing_row(timing),
        "peak_rss_mb": peak_rss(ONCE, args.weights, str(photo), str(mask)) // 2**20,
    }
    print(table([row]))
    print(save("inpaint-cpu", {"batch": 1, "target": "median < 1 s on 2 cores"}, [row]))


if __name__ == "__main__":
    main()
