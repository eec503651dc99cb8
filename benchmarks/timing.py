"""The only timer of this repository, and the record of where a number was measured.

A contender is a function without arguments. It is called once alone (that first call may compile; it is reported
apart), then warmed up by time, then sampled until there are ``samples`` samples or the time budget is spent. Several
contenders are sampled in turn, so that a machine that slows down slows all of them. The L2 cache is flushed only by a
``before`` that does so.
"""

from __future__ import annotations

import datetime
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch

from mmif import files, host

RESULTS = Path(__file__).parent / "results"
MIN_SAMPLES = 3  # even when the budget is spent
_DISTRIBUTIONS = ("torch", "triton", "onnxruntime", "tensorrt", "tensorrt-rtx-cu13", "numpy", "pillow")


@dataclass(frozen=True, slots=True)
class Timing:
    """Times of one contender in milliseconds: median, 20 % and 80 % quantiles, first call; and how many samples."""

    median_ms: float
    p20_ms: float
    p80_ms: float
    first_ms: float
    samples: int


def measure(call: Callable[[], object], **options: Any) -> Timing:
    """Time one contender; options are those of :func:`compare`."""
    return compare({"": call}, **options)[""]


def compare(
    contenders: Mapping[str, Callable[[], object]],
    *,
    device: str = "cpu",
    warmup_s: float = 1.0,
    samples: int = 30,
    budget_s: float = 60.0,
    before: Callable[[], object] | None = None,
) -> dict[str, Timing]:
    """Time several contenders, one sample of each in turn.

    Args:
        contenders: name -> function.
        device: where the work happens; a CUDA device is timed with its own events.
        warmup_s: seconds of calls before the first sample, for each contender.
        samples: wanted number of samples of each.
        budget_s: seconds after which sampling ends, once there are ``MIN_SAMPLES`` samples of each.
        before: called before each sample and not timed; on CUDA it is queued, so that it can empty the L2 cache, or
            keep the device busy until all kernels of the sample are queued behind it.
    """
    clock = _cuda_ms if torch.device(device).type == "cuda" else _cpu_ms
    first = {name: clock(call) for name, call in contenders.items()}
    for call in contenders.values():
        spent = 0.0
        while spent < warmup_s * 1e3:
            spent += clock(call)
    times: dict[str, list[float]] = {name: [] for name in contenders}
    start = time.perf_counter()
    for taken in range(samples):
        if taken >= MIN_SAMPLES and time.perf_counter() - start > budget_s:
            break
        for name, call in contenders.items():
            if before:
                before()
            times[name].append(clock(call))
    return {name: _summary(times[name], first[name]) for name in contenders}


def peak_rss(script: str, *args: str) -> int:
    """Peak resident memory in bytes of a fresh interpreter that runs the Python source ``script`` (Linux)."""
    # Not getrusage: its maximum is inherited from the process that started this one.
    tail = "\nprint(*(line.split()[1] for line in open('/proc/self/status') if line.startswith('VmHWM:')))"
    done = subprocess.run([sys.executable, "-c", script + tail, *args], stdout=subprocess.PIPE, text=True, check=True)
    return int(done.stdout.split()[-1]) * 1024


def environment(device: str = "cpu") -> dict[str, Any]:
    """What a number depends on: device, driver, versions, threads, load, commit (null: not known)."""
    return host.provenance(_DISTRIBUTIONS) | {
        "device": _device_name(device),
        "cores": len(os.sched_getaffinity(0)),
        "load": os.getloadavg()[0],  # of the last minute: far above the threads means that others worked too
        "driver": host.output("nvidia-smi", "--query-gpu=driver_version", "--format=csv,noheader"),
        "cuda": torch.version.cuda,
    }


def save(theme: str, config: Mapping[str, Any], rows: Sequence[Mapping[str, Any]], device: str = "cpu") -> Path:
    """Write ``results/<theme>_<device>_<yyyymm>.json`` and return its path; a run of the same month is replaced."""
    record = {"theme": theme, "environment": environment(device), "config": dict(config), "rows": [*map(dict, rows)]}
    slug = re.sub(r"[^a-z0-9]+", "-", _device_name(device).lower()).strip("-")
    path = RESULTS / f"{theme}_{slug}_{datetime.date.today():%Y%m}.json"
    path.parent.mkdir(exist_ok=True)
    files.write_json(path, record)
    return path


def table(rows: Sequence[Mapping[str, Any]]) -> str:
    """Rows with the same keys as a Markdown table."""
    head = list(rows[0])
    lines = [head, ["---"] * len(head), *([_cell(row[key]) for key in head] for row in rows)]
    return "\n".join("| " + " | ".join(line) + " |" for line in lines)


def timing_row(timing: Timing) -> dict[str, float]:
    """The fields of a timing, rounded to what the clock can tell."""
    return {key: round(value, 3) for key, value in asdict(timing).items()}


def _cpu_ms(call: Callable[[], object]) -> float:
    start = time.perf_counter()
    call()
    return (time.perf_counter() - start) * 1e3


def _cuda_ms(call: Callable[[], object]) -> float:
    start, end = torch.cuda.Event(enable_timing=True), torch.cuda.Event(enable_timing=True)
    start.record()
    call()
    end.record()
    end.synchronize()
    return start.elapsed_time(end)


def _summary(times: list[float], first: float) -> Timing:
    quantiles = torch.tensor([0.2, 0.5, 0.8], dtype=torch.float64)
    p20, median, p80 = torch.tensor(times, dtype=torch.float64).quantile(quantiles).tolist()
    return Timing(median, p20, p80, first, len(times))


def _device_name(device: str) -> str:
    name = host.device_name(torch.device(device))
    return f"{host.processor()} {len(os.sched_getaffinity(0))} cores" if name == "cpu" else name


def _cell(value: Any) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)
