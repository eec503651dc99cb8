"""The timer, on which the benchmarks stand; the kernel benchmark on the CPU."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

SCRIPTS = Path(__file__).parents[2] / "benchmarks"


@pytest.fixture
def timing(tmp_path, monkeypatch):
    spec = importlib.util.spec_from_file_location("timing", SCRIPTS / "timing.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    monkeypatch.setitem(sys.modules, "timing", module)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "RESULTS", tmp_path / "results")
    return module


def clock_of(times):
    """A clock that reads the next of ``times`` instead of running anything, but calls what it times."""
    readings = iter(times)

    def clock(call):
        call()
        return next(readings)

    return clock


def test_median_and_quantiles_leave_the_first_call_out(timing, monkeypatch):
    monkeypatch.setattr(timing, "_cpu_ms", clock_of([1000.0, *map(float, range(11))]))
    found = timing.measure(lambda: None, warmup_s=0.0, samples=11)
    assert (found.median_ms, found.p20_ms, found.p80_ms, found.first_ms, found.samples) == (5, 2, 8, 1000, 11)


def test_contenders_take_turns(timing):
    calls = []
    timing.compare({name: lambda name=name: calls.append(name) for name in "ab"}, warmup_s=0.0, samples=3)
    assert "".join(calls) == "ab" + "ababab"


def test_a_spent_budget_ends_sampling(timing):
    assert timing.measure(lambda: None, warmup_s=0.0, samples=1000, budget_s=0.0).samples == timing.MIN_SAMPLES


def test_a_result_says_where_it_comes_from(timing):
    path = timing.save("theme", {"batch": 1}, [{"case": "a", "ms": 1.0}])
    assert re.fullmatch(r"theme_[a-z0-9-]+_\d{6}\.json", path.name)
    record = json.loads(path.read_text())
    assert record["rows"] == [{"case": "a", "ms": 1.0}]
    assert {"device", "driver", "versions", "commit", "threads"} <= record["environment"].keys()
    assert record["environment"]["commit"] == timing.host.commit()
    with pytest.raises(ValueError, match="JSON"):
        timing.save("theme", {}, [{"ms": float("nan")}])
    assert json.loads(path.read_text()) == record, "what was there stays, whole"


def test_table_is_markdown(timing):
    assert timing.table([{"case": "a", "ms": 1.23456}]) == "| case | ms |\n| --- | --- |\n| a | 1.235 |"


def test_peak_memory_counts_what_the_script_touches(timing):
    small, large = (timing.peak_rss(f"data = bytes(1) * {size}") for size in (1, 64 * 2**20))
    assert 60 * 2**20 < large - small < 80 * 2**20


def test_what_comes_before_a_sample_is_not_timed(timing):
    order = []
    found = timing.compare(
        {"call": lambda: order.append("call")},
        warmup_s=0.0,
        samples=3,
        before=lambda: order.append("before") or time.sleep(0.01),
    )
    assert order == ["call"] + ["before", "call"] * 3
    assert found["call"].median_ms < 5


@pytest.fixture
def kernels_cuda(timing, monkeypatch):
    """The kernel benchmark, whose modules find each other as they do when it runs as a script."""
    monkeypatch.syspath_prepend(str(SCRIPTS))
    before = set(sys.modules)
    yield importlib.import_module("kernels_cuda")
    for name in set(sys.modules) - before:
        if Path(getattr(sys.modules[name], "__file__", None) or "").is_relative_to(SCRIPTS):
            del sys.modules[name]


def quick_setup():
    return sys.modules["comparison"].Setup(device="cpu", compile=False, samples=3, seconds=0.1, warmup_s=0.0)


@pytest.mark.parametrize("goal", ["K1", "K2", "K3", "K4", "K5", "K6", "K7", "encoder"])
def test_contenders_of_the_kernel_benchmark_agree(kernels_cuda, goal, tmp_path):
    """The references stand in for the kernels: the tables, the comparators and the checks of parity are the same."""
    rows = kernels_cuda.run_goal(goal, quick_setup(), 60.0, quick=True)
    for row in rows:
        if row["contender"].startswith(("mmif graph", "NVlabs plugin")) or "compile" in row["contender"]:
            assert row["status"].startswith("not measured: ")
        else:
            assert row["status"] == "ok"
            assert min(row["median_ms"], row["samples"], row["times_ours"]) > 0
            assert row["gb_s"] is not None or row["images_s"] > 0
    assert not list(tmp_path.glob("results/*"))


def contest_of(calls):
    """A case whose truth is one, with these contenders."""
    contest = sys.modules["comparison"]
    made = contest.Contest(calls, lambda: torch.ones(3), inputs=(torch.ones(3),))
    return contest.Case("K0", "case", torch.float32, tuple(calls), lambda _: made)


def test_a_contender_that_is_wrong_or_fails_is_not_timed(kernels_cuda):
    def fail():
        raise ValueError("no such kernel")

    outputs = {"right": 1.0, "wrong": 1.01, "nan": float("nan")}
    calls = {f"mmif {name}": lambda value=value: torch.full((3,), value) for name, value in outputs.items()}
    calls |= {"mmif short": lambda: torch.ones(2), "mmif failing": fail}
    contest = sys.modules["comparison"]
    rows = contest.run_case(contest_of(calls), quick_setup(), contest.Rates(copy_gb_s=1.0, matrix_tflop_s=1.0))
    assert [row["status"] for row in rows] == [
        "ok",
        "INVALID: error 1.0e-02 > 1e-04",
        "INVALID: error inf > 1e-04",
        "INVALID: error inf > 1e-04",
        "failed: ValueError: no such kernel",
    ]
    assert [row["median_ms"] is None for row in rows] == [False, True, True, True, True]
    json.dumps(rows, allow_nan=False)  # a record is strict JSON


def test_a_case_that_cannot_be_made_fails_alone(kernels_cuda, monkeypatch):
    contest = sys.modules["comparison"]
    broken = contest.Case("K0", "broken", torch.float32, ("mmif",), lambda _: 1 / 0)
    working = contest_of({"mmif": lambda: torch.ones(3)})
    monkeypatch.setitem(kernels_cuda.GOALS, "K1", lambda _: iter([broken, working]))
    rows = kernels_cuda.run_goal("K1", quick_setup(), 60.0)
    assert [row["status"] for row in rows] == ["failed: ZeroDivisionError: division by zero", "ok"]
    (path,) = kernels_cuda.timing.RESULTS.glob("kernels-k1_*.json")
    record = json.loads(path.read_text())
    assert record["rows"] == rows
    assert {"l2", "copy_gb_s", "matrix_tflop_s", "times_ours"} <= record["config"].keys()


def test_a_spent_budget_leaves_rows_that_say_so(kernels_cuda, monkeypatch):
    monkeypatch.setitem(kernels_cuda.GOALS, "K1", lambda _: iter([contest_of({"mmif": lambda: torch.ones(3)})]))
    (row,) = kernels_cuda.run_goal("K1", quick_setup(), -1.0, quick=True)
    assert row["status"] == "not measured: the -1 s of the budget were spent"


def test_summary_is_the_geometric_mean_and_the_least(kernels_cuda):
    rows = [
        {"case": case, "contender": name, "times_ours": value}
        for case, values in {"a": (1.0, 2.0, 3.0), "b": (1.0, 8.0, 2.0), "c": (1.0, None, None)}.items()
        for name, value in zip(("mmif", "peer", "NVlabs-style x"), values, strict=True)
    ]
    found = sys.modules["comparison"].summary(rows)
    assert found["peer"] == {"geomean": 4.0, "least": 2.0, "cases": 2}
    assert found["best NVlabs-style"] == {"geomean": 2.449, "least": 2.0, "cases": 2}


def test_what_is_not_measured_is_on_record(kernels_cuda):
    record = json.loads((SCRIPTS / "results" / kernels_cuda.NOT_MEASURED).read_text())
    assert record == kernels_cuda.not_measured("no CUDA device"), "run benchmarks/kernels_cuda.py without a GPU"
    measured = {(row["goal"], row["case"]) for row in record["rows"]}
    assert {goal for goal, _ in measured} == set(kernels_cuda.GOALS)
    target = importlib.import_module("profile_target")
    assert set(target.NAMES) <= {case for _, case in measured}


PLUGIN = """
import torch
def _init(): return {built}
def setup_filter(taps, device): return torch.tensor(taps)
def upfirdn2d(x, f, up, down, padding, gain, impl): return x
bias_act = upfirdn2d
"""


@pytest.mark.parametrize(
    ("built", "expected"),
    [
        ("True", None),
        ("False", "the plugins torch_utils.ops.upfirdn2d, torch_utils.ops.bias_act did not build"),
        ("1 / 0", "the plugins of checkout do not build: division by zero"),
    ],
)
def test_a_foreign_checkout_is_used_only_if_its_plugins_build(kernels_cuda, tmp_path, built, expected):
    ops = tmp_path / "checkout" / "torch_utils" / "ops"
    ops.mkdir(parents=True)
    for name in ("upfirdn2d", "bias_act"):
        (ops / f"{name}.py").write_text(PLUGIN.format(built=built))
    nvlabs = sys.modules["nvlabs"]
    try:
        found = nvlabs.load(tmp_path / "checkout")
    finally:
        for name in [name for name in sys.modules if name.startswith("torch_utils")]:
            del sys.modules[name]
    assert isinstance(found, nvlabs.Ops) if expected is None else found == expected
    assert nvlabs.load(tmp_path) == f"{tmp_path} holds no torch_utils/ops"


def test_the_script_runs(kernels_cuda):
    """As a command, on the CPU, one goal; goals that do not exist are refused."""
    command = [sys.executable, kernels_cuda.__file__, "--device", "cpu", "--quick", "--no-compile", "--only", "K1"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert re.search(r"^\| mmif \| ok \| [\d.]+ \|", done.stdout, re.MULTILINE)
    with pytest.raises(argparse.ArgumentTypeError, match=r"goals must be among K1, .*, encoder, got K1,K9"):
        kernels_cuda._goals("K1,K9")
