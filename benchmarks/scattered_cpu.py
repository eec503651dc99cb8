"""Thin and scattered holes: how well the bundled model fills them, and what planning squares for large ones takes.

Usage: python benchmarks/scattered_cpu.py [--weights scenes-128]

Quality is PSNR inside the hole, for the plan as it is and for two fixed ones with the same model: one square round
everything, and tiles of twice the model's side. Time and memory are those of the plan alone; of one
large photograph the time of the whole run stands beside them.
"""

from __future__ import annotations

import argparse
import time
import tracemalloc
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from unittest import mock

import numpy as np
from PIL import Image, ImageDraw
from timing import measure, save, table

from mmif import Inpainter
from mmif.inpaint.plan import plan_crops
from mmif.inpaint.squares import Box, Crop

EXAMPLES = Path(__file__).parents[1] / "examples"
RNG = np.random.default_rng(1)
Plan = Callable[..., list[Crop]]


def main() -> None:
    """Measure, print the tables, save them."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--weights", default="scenes-128", help="bundled preset or checkpoint folder")
    args = parser.parse_args()
    pipe = Inpainter.from_pretrained(args.weights, device="cpu")
    quality = [_measured_quality(pipe, *case) for case in quality_cases()]
    print(table(quality))
    plans = [_measured_plan(name, hole, pipe.side) for name, hole in plan_cases().items()]
    print(table(plans))
    whole = _measured_whole(pipe)
    print(table([whole]))
    config = {"weights": args.weights, "side": pipe.side, "plans": plans, "whole": whole}
    print(save("scattered-cpu", config, quality))


def quality_cases() -> Iterator[tuple[str, Image.Image, np.ndarray]]:
    """Name, photograph, hole."""
    photo = Image.open(EXAMPLES / "photo.jpg").convert("RGB")
    large, wide = (photo.resize(size, Image.Resampling.LANCZOS) for size in ((3200, 2400), (1600, 900)))
    launch = Image.open(EXAMPLES / "scenes" / "launch.jpg").convert("RGB")
    order = RNG.permutation(40)
    for count in (8, 16, 17, 40):
        places = [(200 + 400 * (k % 8), 200 + 450 * (k // 8)) for k in order[:count]]
        yield f"photo at 3200 x 2400, {count} spots of 9 px", large, _dots(large, places)
    for name, image in (("photo at 1600 x 900", wide), ("launch, 640 x 427", launch)):
        width, height = image.size
        wire = [(0, height // 3), (width // 3, height // 2), (2 * width // 3, height // 2), (width - 1, height // 3)]
        text = (width // 25, 2 * height // 5), "SAMPLE  SAMPLE"
        yield f"{name}, wire of 3 px", image, _drawn(image, "line", wire, width=3)
        yield f"{name}, text", image, _drawn(image, "text", *text, font_size=width // 9)
        yield f"{name}, 40 spots of 9 px", image, _dots(image, RNG.integers(20, (width - 20, height - 20), (40, 2)))


def _dots(image: Image.Image, places: Any) -> np.ndarray:
    mask = Image.new("L", image.size)
    for x, y in places:
        ImageDraw.Draw(mask).ellipse((int(x) - 4, int(y) - 4, int(x) + 4, int(y) + 4), fill=255)
    return np.asarray(mask) > 0


def _drawn(image: Image.Image, shape: str, *where: Any, **options: Any) -> np.ndarray:
    mask = Image.new("L", image.size)
    getattr(ImageDraw.Draw(mask), shape)(*where, fill=255, **options)
    return np.asarray(mask) > 0


def _measured_quality(pipe: Inpainter, name: str, image: Image.Image, hole: np.ndarray) -> dict[str, Any]:
    truth = np.asarray(image).astype(float)
    damaged = np.where(hole[..., None], np.uint8(0), np.asarray(image))
    row: dict[str, Any] = {"case": name, "squares": len(plan_crops(hole, pipe.side))}
    plans: dict[str, Plan] = {"psnr": plan_crops, "psnr_one_square": one_square, "psnr_tiles": tiles}
    for key, plan in plans.items():
        start = time.perf_counter()
        with mock.patch("mmif.inpaint.result.plan_crops", plan):
            filled = np.asarray(pipe(damaged, hole, seed=0).image)
        row[key] = round(float(10 * np.log10(255**2 / ((filled - truth)[hole] ** 2).mean())), 2)
        row.setdefault("seconds", round(time.perf_counter() - start, 2))
    return row


def one_square(hole: np.ndarray, side: int, margin: float) -> list[Crop]:
    """As a plan by the extent of all holes would have it."""
    height, width = hole.shape
    return [Crop(_square(max(height, width), width // 2, height // 2), Box(0, 0, width, height))]


def tiles(hole: np.ndarray, side: int, margin: float) -> list[Crop]:
    """A chequerboard of tiles of twice the model's side, moved inside the photograph."""
    height, width = hole.shape
    step, crops = 2 * side, []
    for y0 in range(0, height, step):
        for x0 in range(0, width, step):
            target = Box(x0, y0, x0 + step, y0 + step).clip(width, height)
            if target.of(hole).any():
                square = _square(step, min(x0, width - step) + side, min(y0, height - step) + side)
                crops.append(Crop(square, target))
    return crops


def _square(side: int, x: int, y: int) -> Box:
    """Centred on (x, y)."""
    return Box(x - side // 2, y - side // 2, x - side // 2 + side, y - side // 2 + side)


def plan_cases() -> dict[str, Callable[[], np.ndarray]]:
    """Holes that are large, many, or both."""
    return {
        "24 megapixels, 200 spots of 41 px": lambda: _spots(4000, 6000, 200, 20),
        "24 megapixels, 5000 spots of 13 px": lambda: _spots(4000, 6000, 5000, 6),
        "24 megapixels, all hole": lambda: np.ones((4000, 6000), bool),
        "24 megapixels, 5 % noise (1.2 million pixels)": lambda: RNG.random((4000, 6000), np.float32) < 0.05,
        "12000 x 9000, 500 spots of 31 px": lambda: _spots(9000, 12000, 500, 15),
        "12000 x 9000, all hole": lambda: np.ones((9000, 12000), bool),
    }


def _spots(height: int, width: int, count: int, radius: int) -> np.ndarray:
    places = RNG.integers(radius, (height - radius, width - radius), (count, 2))
    y, x = np.mgrid[-radius : radius + 1, -radius : radius + 1]
    hole = np.zeros((height, width), bool)
    for top, left in places - radius:
        hole[top : top + 2 * radius + 1, left : left + 2 * radius + 1] |= x * x + y * y <= radius * radius
    return hole


def _measured_plan(name: str, make: Callable[[], np.ndarray], side: int) -> dict[str, Any]:
    hole = make()
    timing = measure(lambda: plan_crops(hole, side), warmup_s=0, samples=5)
    tracemalloc.start()
    crops = plan_crops(hole, side)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    return {
        "hole": name,
        "squares": len(crops),
        "widest": max(crop.square.width for crop in crops),
        "median_s": round(timing.median_ms / 1e3, 3),
        "peak_mb": peak // 2**20,  # beside the hole itself
    }


def _measured_whole(pipe: Inpainter) -> dict[str, Any]:
    """From the array of a large photograph to its result: planned, cut, filled, matched, pasted."""
    photo = Image.open(EXAMPLES / "photo.jpg").convert("RGB").resize((6000, 4000), Image.Resampling.LANCZOS)
    rgb, hole = np.asarray(photo), _spots(4000, 6000, 200, 20)
    timing = measure(lambda: pipe(rgb, hole, seed=0), warmup_s=0, samples=3)
    squares = len(plan_crops(hole, pipe.side))
    return {
        "case": "24 megapixels, 200 spots of 41 px",
        "squares": squares,
        "median_s": round(timing.median_ms / 1e3, 2),
        "p80_s": round(timing.p80_ms / 1e3, 2),
    }


if __name__ == "__main__":
    main()
