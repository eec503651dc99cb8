"""Time, multiply-adds and peak memory of each part of a preset in one forward pass on this CPU, float32, batch 1.

Parts and their multiply-adds are those of ``mmif-info``. Times come from hooks round the modules, over whole forward
passes. Memory is what PyTorch's allocator handed out between a part's start and its end, at the highest point;
libraries' own scratch memory shows in the process's peak only.

Usage: python benchmarks/model_cpu.py [--preset celebahq-256] [--samples 30] [--budget 120]
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from timing import measure, peak_rss, save, table, timing_row
from torch import nn
from torch.profiler import ProfilerActivity, profile, record_function

from mmif import MMInvertFill, from_preset
from mmif.model import count

TOTAL = "total"
ONCE = """
import sys
import torch
from mmif import MMInvertFill, from_preset
config = from_preset(sys.argv[1])
model = MMInvertFill(config).eval()
side = config.resolution
with torch.inference_mode():
    model(torch.zeros(1, 3, side, side), torch.ones(1, 1, side, side))
"""


def watched_modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every part with the module that is called for it; the members of a list stand for the list."""
    found: list[tuple[str, nn.Module]] = [(TOTAL, model)]
    for part in count.PARTS:
        module = model.get_submodule(part)
        found += [(part, member) for member in (module if isinstance(module, nn.ModuleList) else [module])]
    return found


@contextmanager
def hooks(model: nn.Module, before: Callable[[str], Any], after: Callable[[str], Any]) -> Iterator[None]:
    """Call ``before(part)`` and ``after(part)`` round each forward of a watched module."""
    handles = []
    for part, module in watched_modules(model):
        handles.append(module.register_forward_pre_hook(lambda *_, part=part: before(part)))
        handles.append(module.register_forward_hook(lambda *_, part=part: after(part)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def part_milliseconds(model: nn.Module, call: Callable[[], object], samples: int, budget_s: float) -> dict[str, float]:
    """Median time of each part in a forward pass, its calls added up."""
    passes: list[dict[str, float]] = []
    started: dict[str, float] = {}

    def before(part: str) -> None:
        if part == TOTAL:
            passes.append(defaultdict(float))
        started[part] = time.perf_counter()

    def after(part: str) -> None:
        passes[-1][part] += (time.perf_counter() - started[part]) * 1e3

    with hooks(model, before, after):
        taken = measure(call, samples=samples, budget_s=budget_s).samples
    return {part: statistics.median(one[part] for one in passes[-taken:]) for part in passes[-1]}


def part_peak_bytes(model: nn.Module, call: Callable[[], object]) -> dict[str, int]:
    """Highest number of bytes allocated inside each part on top of what was allocated when it started."""
    spans: dict[str, record_function] = {}

    def before(part: str) -> None:
        spans[part] = record_function(f"part:{part}")
        spans[part].__enter__()

    def after(part: str) -> None:
        spans.pop(part).__exit__(None, None, None)

    with hooks(model, before, after), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    allocated = [(e["ts"], e["args"]["Total Allocated"]) for e in events if e["name"] == "[memory]"]
    peaks: dict[str, int] = defaultdict(int)
    for event in events:
        if event["name"].startswith("part:") and "dur" in event:
            part, start, end = event["name"].removeprefix("part:"), event["ts"], event["ts"] + event["dur"]
            held = max(((ts, total) for ts, total in allocated if ts < start), default=(0, 0))[1]
            inside = max((total for ts, total in allocated if start <= ts <= end), default=held)
            peaks[part] = max(peaks[part], inside - held)
    return peaks


def main() -> None:
    """Measure, print the table, save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="celebahq-256")
    parser.add_argument("--samples", type=int, default=30)
    parser.add_argument("--budget", type=float, default=120.0, help="seconds after which sampling ends")
    args = parser.parse_args()
    config = from_preset(args.preset)
    torch.manual_seed(0)
    model = MMInvertFill(config).eval()
    side = config.resolution
    image = torch.rand(1, 3, side, side) * 2 - 1
    hole = torch.zeros(1, 1, side, side)
    hole[..., side // 4 : side // 4 * 3, side // 4 : side // 4 * 3] = 1

    def call() -> object:
        return model(image, hole)

    with torch.inference_mode():
        whole = measure(call, samples=args.samples, budget_s=args.budget)
        times = part_milliseconds(model, call, args.samples, args.budget)
        peaks = part_peak_bytes(model, call)
    rows = [
        {
            "part": part,
            "parameters": parameters,
            "gmacs": round(macs / 1e9, 3),
            "median_ms": round(times.get(part, 0.0), 2),
            "peak_mb": round(peaks.get(part, 0) / 2**20, 1),
        }
        for part, parameters, macs in count.measure(config)
    ]
    run = {
        "preset": args.preset,
        "batch": 1,
        "dtype": "float32",
        "runtime": "eager",
        "whole": timing_row(whole),
        "peak_rss_mb": peak_rss(ONCE, args.preset) // 2**20,
    }
    print(table(rows))
    print(json.dumps(run))
    print(save(f"model-cpu-{args.preset}", run, rows))


if __name__ == "__main__":
    main()
