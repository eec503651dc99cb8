"""Time, multiply-adds and peak memory of each module of a preset in one forward pass on this CPU, float32.

Times come from hooks round each module, over whole forward passes. Memory is what PyTorch's allocator handed out
between a module's start and its end, at the highest point; libraries' own scratch memory shows in the process's peak.

Usage: python benchmarks/model_cpu.py [--preset celebahq-256] [--depth 2] [--samples 30] [--budget 120]
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
from torch.utils.flop_counter import FlopCounterMode

from mmif import MMInvertFill, from_preset

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
WHOLE = "(whole model)"


def modules(model: nn.Module, depth: int) -> dict[str, nn.Module]:
    """The model and its modules down to ``depth``; a list of modules is no level of its own."""
    found: dict[str, nn.Module] = {WHOLE: model}
    for name, module in model.named_modules():
        parents = [model.get_submodule(name.rsplit(".", up)[0]) for up in range(1, name.count(".") + 1)]
        level = 1 + sum(not isinstance(parent, nn.ModuleList) for parent in parents)
        if name and level <= depth and not isinstance(module, nn.ModuleList):
            found[name] = module
    return found


@contextmanager
def hooks(watched: dict[str, nn.Module], before: Callable[[str], Any], after: Callable[[str], Any]) -> Iterator[None]:
    """Call ``before(name)`` and ``after(name)`` round each module's forward."""
    handles = []
    for name, module in watched.items():
        handles.append(module.register_forward_pre_hook(lambda *_, name=name: before(name)))
        handles.append(module.register_forward_hook(lambda *_, name=name: after(name)))
    try:
        yield
    finally:
        for handle in handles:
            handle.remove()


def milliseconds(
    watched: dict[str, nn.Module], call: Callable[[], object], samples: int, budget_s: float
) -> dict[str, float]:
    """Median time of each module per forward pass, all its calls added up."""
    spent: dict[str, list[float]] = defaultdict(list)
    started: dict[str, float] = {}
    now: dict[str, float] = defaultdict(float)

    def after(name: str) -> None:
        now[name] += time.perf_counter() - started[name]

    def one() -> None:
        now.clear()
        call()
        for name, seconds in now.items():
            spent[name].append(seconds * 1e3)

    with hooks(watched, lambda name: started.__setitem__(name, time.perf_counter()), after):
        timing = measure(one, samples=samples, budget_s=budget_s)
    return {name: statistics.median(values[-timing.samples :]) for name, values in spent.items()}


def multiply_adds(watched: dict[str, nn.Module], model: nn.Module, call: Callable[[], object]) -> dict[str, int]:
    """Multiply-adds of convolutions and matrix products (half of PyTorch's count of operations) in each module."""
    with FlopCounterMode(display=False) as counter:
        call()
    counts = {name: sum(ops.values()) // 2 for name, ops in counter.get_flop_counts().items()}
    root = type(model).__name__
    return {name: counts.get(root if name == WHOLE else f"{root}.{name}", 0) for name in watched}


def peak_bytes(watched: dict[str, nn.Module], call: Callable[[], object]) -> dict[str, int]:
    """Highest number of bytes allocated inside each module on top of what was allocated when it started."""
    open_spans: dict[str, record_function] = {}

    def before(name: str) -> None:
        open_spans[name] = record_function(f"module:{name}")
        open_spans[name].__enter__()

    def after(name: str) -> None:
        open_spans.pop(name).__exit__(None, None, None)

    with hooks(watched, before, after), profile(activities=[ProfilerActivity.CPU], profile_memory=True) as profiler:
        call()
    with tempfile.TemporaryDirectory() as folder:
        trace = Path(folder) / "trace.json"
        profiler.export_chrome_trace(str(trace))
        events = json.loads(trace.read_text())["traceEvents"]
    memory = sorted((e["ts"], e["args"]["Total Allocated"]) for e in events if e["name"] == "[memory]")
    peaks: dict[str, int] = defaultdict(int)
    for event in events:
        name = event["name"].removeprefix("module:")
        if name == event["name"] or event.get("ph") != "X":
            continue
        start, end = event["ts"], event["ts"] + event["dur"]
        held = max((ts, total) for ts, total in [(float("-inf"), 0), *memory] if ts < start)[1]
        inside = [total for ts, total in memory if start <= ts <= end]
        peaks[name] = max(peaks[name], max(inside, default=held) - held)
    return peaks


def main() -> None:
    """Measure, print the table, save it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--preset", default="celebahq-256")
    parser.add_argument("--depth", type=int, default=2, help="how far down modules get a row of their own")
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

    watched = modules(model, args.depth)
    with torch.inference_mode():
        whole = measure(call, samples=args.samples, budget_s=args.budget)
        times = milliseconds(watched, call, args.samples, args.budget)
        macs, peaks = multiply_adds(watched, model, call), peak_bytes(watched, call)
    rows = [
        {
            "module": name,
            "kind": type(module).__name__,
            "parameters_k": sum(p.numel() for p in module.parameters()) // 1000,
            "gmacs": round(macs[name] / 1e9, 3),
            "median_ms": round(times[name], 2),
            "peak_mb": round(peaks[name] / 2**20, 1),
        }
        for name, module in watched.items()
        if name in times  # a module that is not called in a forward pass has no row
    ]
    config_record = {
        "preset": args.preset,
        "batch": 1,
        "dtype": "float32",
        "runtime": "eager",
        "whole": timing_row(whole),
        "peak_rss_mb": peak_rss(ONCE, args.preset) // 2**20,
    }
    print(table(rows))
    print(json.dumps(config_record))
    print(save(f"model-cpu-{args.preset}", config_record, rows))


if __name__ == "__main__":
    main()
