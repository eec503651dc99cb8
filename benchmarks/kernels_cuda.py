"""K1 to K7: how fast the CUDA and Triton kernels are against what else computes the same; how to read: README.md here.

Each goal runs in a process of its own and saves after every case: neither an error nor a lost device costs the others.

Usage: python benchmarks/kernels_cuda.py [--only K1,K2] [--budget 480] [--nvlabs DIR] [--warm] [--no-compile]
       python benchmarks/kernels_cuda.py --device cpu --quick      (small tensors, nothing saved: does it run?)
"""

from __future__ import annotations

import argparse
import importlib
import json
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import timing
import torch
from cases.attention import attention_cases
from cases.bottleneck import bottleneck_cases
from cases.encoder import encoder_cases
from cases.generator import latency_cases, throughput_cases
from cases.layers import layer_cases
from cases.stylegan_ops import epilogue_cases, filter_cases
from comparison import Case, Rates, Row, Setup, measure_rates, run_case, summary

from mmif import files, host
from mmif.ops import dispatch

GOALS: dict[str, Callable[[bool], Iterator[Case]]] = {
    "K1": epilogue_cases,
    "K2": filter_cases,
    "K3": layer_cases,
    "K4": latency_cases,
    "K5": throughput_cases,
    "K6": attention_cases,
    "K7": bottleneck_cases,
    "encoder": encoder_cases,
}
NOT_MEASURED = "kernels-cuda_not-measured.json"
GRACE_S = 60.0  # past its budget a goal may finish the case that it is at
SHOWN = (
    *("contender", "status", "median_ms", "p20_ms", "p80_ms"),
    *("gb_s", "copy_percent", "tflop_s", "matrix_percent", "images_s", "times_ours", "error"),
)


def run_goal(goal: str, setup: Setup, budget_s: float, quick: bool = False) -> list[Row]:
    """Run the cases of a goal, print them, and unless ``quick`` save after each."""
    end = time.monotonic() + budget_s
    torch.manual_seed(0)
    rates = measure_rates(setup, *((2**30, 8192) if setup.device == "cuda" else (2**20, 64)))
    rows: list[Row] = []
    for case in GOALS[goal](quick):
        if time.monotonic() > end:
            found = case.unmeasured(f"the {budget_s:.0f} s of the budget were spent")
        else:
            found = run_case(case, setup, rates)
        rows += found
        print(f"\n{goal} {case.name}\n{timing.table([{key: row[key] for key in SHOWN} for row in found])}", flush=True)
        if not quick:
            config = _config(setup, rates, rows)
            print(timing.save(f"kernels-{goal.lower()}{'' if setup.cold else '-warm'}", config, rows, setup.device))
    print(f"\n{goal}, times our time: {json.dumps(summary(rows))}", flush=True)
    return rows


def not_measured(reason: str) -> dict[str, Any]:
    """The record of what there is to measure, a row for each case, where none of it can be."""
    every = [case for cases in GOALS.values() for case in cases(False)]
    status = f"not measured: {reason}"
    rows = [
        {"goal": case.goal, "case": case.name, "contenders": ", ".join(case.contenders), "status": status}
        for case in every
    ]
    return {"theme": "kernels-cuda", "environment": None, "config": {}, "rows": rows}


def main() -> None:
    """Run the goals that were asked for."""
    args = _parse()
    missing = dispatch.why_not("cuda")
    if args.device == "cuda" and not torch.cuda.is_available():
        path = timing.RESULTS / NOT_MEASURED
        files.write_json(path, not_measured("no CUDA device"))
        print(f"no CUDA device is visible to torch: nothing was measured, and {path} says so")
    elif args.device == "cuda" and missing:
        raise SystemExit(f"kernels_cuda: no CUDA kernels to measure, {missing}")
    elif len(args.only) == 1 or args.quick:
        samples = {"samples": 3, "seconds": 0.5, "warmup_s": 0.0} if args.quick else {}
        setup = Setup(args.device, not args.warm, not args.no_compile, args.nvlabs, **samples)
        for goal in args.only:
            run_goal(goal, setup, args.budget, args.quick)
    else:
        _run_apart(args.only, args.budget)


def _run_apart(goals: list[str], budget_s: float) -> None:
    """Each goal in its own process, with its share of the time that is left."""
    end = time.monotonic() + budget_s
    for i, goal in enumerate(goals):
        share = (end - time.monotonic()) / (len(goals) - i)
        command = [sys.executable, __file__, *sys.argv[1:], "--only", goal, "--budget", f"{share:.0f}"]
        try:
            code = subprocess.run(command, timeout=share + GRACE_S, check=False).returncode
        except subprocess.TimeoutExpired:
            code = -1
        if code:
            print(f"{goal} ended early (exit code {code}): its file holds the cases before that", flush=True)


def _config(setup: Setup, rates: Rates, rows: list[Row]) -> dict[str, Any]:
    return {
        "l2": "cold" if setup.cold else "warm",
        **{name: round(rate, 1) for name, rate in rates._asdict().items()},
        "clocks": _clocks(),
        "times_ours": summary(rows),
        "tuned": _tuned(setup),
    }


def _tuned(setup: Setup) -> dict[str, str]:
    """What was chosen for the Triton kernels; nothing is tuned on a CPU."""
    if setup.device == "cpu":
        return {}
    return importlib.import_module("mmif.kernels.tuning").chosen(torch.device(setup.device, 0))


def _clocks() -> str | None:
    """Clocks, temperature and power when the last case ended; nobody here sets them."""
    query = "--query-gpu=clocks.sm,clocks.mem,temperature.gpu,power.draw"
    return host.output("nvidia-smi", query, "--format=csv,noheader")


def _parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--only", type=_goals, default=list(GOALS), help="goals, such as K1,K2")
    parser.add_argument("--budget", type=float, default=480.0, help="seconds after which no case is begun")
    parser.add_argument("--nvlabs", type=Path, help="a checkout of stylegan3 or stylegan2-ada-pytorch")
    parser.add_argument("--warm", action="store_true", help="do not flush the L2 cache before each sample of K1 to K3")
    parser.add_argument("--no-compile", action="store_true", help="leave torch.compile out: it takes minutes")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--quick", action="store_true", help="small tensors, few samples; nothing is saved")
    return parser.parse_args()


def _goals(text: str) -> list[str]:
    names = text.split(",")
    if not set(names) <= set(GOALS):
        raise argparse.ArgumentTypeError(f"goals must be among {', '.join(GOALS)}, got {text}")
    return names


if __name__ == "__main__":
    main()
