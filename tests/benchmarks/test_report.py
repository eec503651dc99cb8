"""The numbers of the README are those of benchmarks/results/, and nobody copies them."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[2]


@pytest.fixture(scope="module")
def report() -> ModuleType:
    spec = importlib.util.spec_from_file_location("report", ROOT / "benchmarks" / "report.py")
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_readme_says_what_was_measured(report: ModuleType):
    text = (ROOT / "README.md").read_text()
    assert report.rewritten(text) == text, "run: python benchmarks/report.py"


def test_a_new_measurement_replaces_the_old_number(report: ModuleType, tmp_path: Path, monkeypatch):
    for path in report.RESULTS.glob("*.json"):
        (tmp_path / path.name).write_text(path.read_text())
    name, record = report.newest("inpaint-cpu")
    record["rows"][0]["median_ms"] = 12.3
    (tmp_path / name.replace("_2026", "_2099")).write_text(json.dumps(record))
    monkeypatch.setattr(report, "RESULTS", tmp_path)
    assert "| 12 ms |" in report.speed()


def test_the_best_of_each_ratio_is_bold(report: ModuleType):
    assert report._bold({"a": 1.001, "b": 2.0, "c": 1.5}, max, 2) == {"a": "1.00", "b": "**2.00**", "c": "1.50"}


def test_a_document_without_a_place_for_a_table_is_refused(report: ModuleType):
    with pytest.raises(ValueError, match="must have one place for quality"):
        report.rewritten("# Nothing")
