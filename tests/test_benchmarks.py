"""The timer: the benchmarks stand on it."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from pathlib import Path

import pytest

SCRIPTS = Path(__file__).parents[1] / "benchmarks"


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
    assert {"device", "driver", "versions", "commit", "dirty", "threads"} <= record["environment"].keys()


def test_table_is_markdown(timing):
    assert timing.table([{"case": "a", "ms": 1.23456}]) == "| case | ms |\n| --- | --- |\n| a | 1.235 |"


def test_peak_memory_counts_what_the_script_touches(timing):
    small, large = (timing.peak_rss(f"data = bytes(1) * {size}") for size in (1, 64 * 2**20))
    assert 60 * 2**20 < large - small < 80 * 2**20
