"""The kernels as they are compiled for each architecture, without a GPU, and that the report finds what is wrong."""

from __future__ import annotations

import importlib
import itertools
import json
import os
import re
import subprocess
import sys
from pathlib import Path
from types import ModuleType

import pytest

pytestmark = pytest.mark.triton

HERE = Path(__file__).parent


def run(*arguments: str) -> subprocess.CompletedProcess[str]:
    """Python in a process in which Triton compiles."""
    environment = {name: value for name, value in os.environ.items() if name != "TRITON_INTERPRET"}
    return subprocess.run([sys.executable, *arguments], env=environment, capture_output=True, text=True, check=False)


def test_every_kernel_compiles_to_what_it_should(tmp_path):
    """Hot ones use tensor cores and do not spill, none needs more shared memory than there is.

    One configuration for each kernel and types of its arguments; ``python -m mmif.kernels.report`` takes them all, for
    every architecture, in minutes.
    """
    done = run("-m", "mmif.kernels.report", "--first", "--arch", "90", "--json", str(tmp_path / "report.json"))
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "report.json").read_text())["rows"]
    assert {row["arch"] for row in rows} == {90}
    assert all(row["registers"] for row in rows)
    assert [row for row in rows if row["faults"]] == []
    for row in rows:
        if row["hot"]:
            assert row["mma"] > 0, row
            assert row["stack"] == row["local_loads"] == row["local_stores"] == 0, row


def module(name: str) -> ModuleType:
    return importlib.import_module(f"mmif.kernels.{name}")


def test_the_report_knows_every_kernel():
    """Every one that is launched, in each dtype; where matrices are multiplied, some specimens are hot."""
    from mmif.kernels import report

    files = [path for path in report.PACKAGE.rglob("*.py") if path.stem != "__init__"]
    sources = {".".join(path.relative_to(report.PACKAGE).with_suffix("").parts): path.read_text() for path in files}
    specimens = {name: list(module(name).specimens(90)) for name in report.modules()}
    types: dict[str, set[str]] = {}
    for specimen in itertools.chain.from_iterable(specimens.values()):
        found = report.leaves(tuple(specimen.signature.values()))
        types.setdefault(specimen.fn.__name__, set()).update(leaf for _, leaf in found if isinstance(leaf, str))
    launched = set()
    for stem, source in sources.items():
        for name in re.findall(r"\b(\w+)\[", source):
            if hasattr(vars(module(stem)).get(name), "arg_names"):  # a kernel, interpreted or not
                assert types[name] >= {"*fp16", "*bf16", "*fp32"}, f"{stem}.{name}: {types[name]}"
                launched.add(name)
        if "tl.dot(" in source and stem in specimens:
            assert any(specimen.hot for specimen in specimens[stem]), stem
    assert launched == types.keys()


def test_the_first_of_each_are_all_kernels_in_all_dtypes():
    from mmif.kernels import report

    names = list(report.modules())
    assert names
    for name in names:
        everything = list(module(name).specimens(90))
        some = report.first_of_each(everything)
        assert {(s.fn, str(s.signature)) for s in some} == {(s.fn, str(s.signature)) for s in everything}
        assert len(some) < len(everything)


def test_the_report_finds_each_fault():
    done = run(str(HERE / "flawed.py"))
    assert done.returncode == 0, done.stderr
    faults = json.loads(done.stdout)
    assert faults.pop("right") == faults.pop("right but not hot") == []
    for name, words in (
        ("no tensor cores", "has no tensor-core instruction"),
        ("spills", r"spills: \d+ bytes of stack, \d+ loads, \d+ stores"),
        ("too much shared memory", r"shared memory must be <= 166912 bytes, got \d+"),
        ("does not compile", "does not compile: CompilationError: .*incompatible dimensions"),
    ):
        (fault,) = faults.pop(name)
        assert re.fullmatch(f"{words}.*", fault)
    assert not faults


def test_faults_are_an_exit_code(monkeypatch, capsys):
    from mmif.kernels import report

    good = report.Row("kernel", "config", 80, hot=True, registers=32, mma=1, shared=163 * 1024)
    bad = report.Row("kernel", "config", 80, hot=True, registers=32)
    monkeypatch.setattr(report, "_chosen", lambda op: [])
    for found, code, words in (
        ([good], 0, "1 compiled with Triton 3.*, 0 with faults"),
        ([good, bad], 1, "2 compiled with Triton 3.*, 1 with faults"),
    ):
        monkeypatch.setattr(report, "rows", lambda specimens, found=found: found)
        assert report.main(["--arch", "80"]) == code
        assert re.fullmatch(words, capsys.readouterr().out.splitlines()[-1])


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (["--arch", "75"], r"--arch must be some of 80, .*120, separated by commas; got '75'"),
        (["--arch", "80,"], r"--arch must be some of .*; got '80,'"),
        (["--arch", "sm_80"], r"--arch must be some of .*; got 'sm_80'"),
        (["--op", "tuning"], r"--op must be one of .*adaptive_norm.*; got 'tuning'"),
        (["--json", "no/file"], r"--json must name a file in a folder that exists; got 'no/file'"),
    ],
)
def test_a_mistake_is_one_line(monkeypatch, capsys, arguments, words):
    from mmif.kernels import report

    monkeypatch.delenv("TRITON_INTERPRET", raising=False)
    monkeypatch.setattr(report, "rows", lambda specimens: pytest.fail("it must be seen before anything compiles"))
    assert report.main(arguments) == 2
    assert re.fullmatch(rf"python -m mmif.kernels.report: error: {words}\n", capsys.readouterr().err)


def test_the_interpreter_compiles_nothing(monkeypatch, capsys):
    from mmif.kernels import report

    monkeypatch.setenv("TRITON_INTERPRET", "1")
    assert report.main([]) == 2
    assert "error: TRITON_INTERPRET must not be set, the interpreter compiles nothing; run" in capsys.readouterr().err
