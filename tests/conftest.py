"""The five levels of test: which of them can run here, what ran, and why the rest did not."""

from __future__ import annotations

import importlib.util
import os
import random
import shutil
import signal
import sys
from collections import Counter
from collections.abc import Callable, Generator, Iterator
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pytest
import torch

pytest_plugins = ["photographs"]  # fixtures that several rooms share

if not torch.cuda.is_available():
    # Triton and mmif.ops.dispatch read it when they are imported, which must not have happened; subprocesses do, too.
    os.environ["TRITON_INTERPRET"] = "1"


def _needs_module(name: str) -> str | None:
    return None if importlib.util.find_spec(name) else f"{name} is not installed"


@dataclass
class Level:
    """One level; ``why_not`` returns what it lacks on this machine, or None."""

    name: str  # also its marker, except for cpu, which has none
    title: str
    why_not: Callable[[], str | None]
    counts: Counter[str] = field(default_factory=Counter)

    def note(self) -> str:
        """What the table says beside the counts."""
        if not self.counts:
            return "no test of this level was selected"
        ran = self.counts["passed"] or self.counts["failed"]
        return self.why_not() or ("ran" if ran else "each test was skipped: see pytest -rs")


LEVELS = {
    level.name: level
    for level in (
        Level("cpu", "CPU", lambda: None),
        Level("triton", "Triton interpreter", lambda: _needs_module("triton")),
        Level("sources", "sources compile", lambda: None if shutil.which("nvcc") else "no nvcc on PATH"),
        Level("onnx", "onnx/rtx", lambda: _needs_module("onnxscript") or _needs_module("onnxruntime")),
        Level("cuda", "cuda", lambda: None if torch.cuda.is_available() else "no CUDA device"),
    )
}


def _level(item: pytest.Item) -> Level:
    return next((LEVELS[mark.name] for mark in item.iter_markers() if mark.name in LEVELS), LEVELS["cpu"])


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption(
        "--require", action="append", default=[], choices=list(LEVELS), help="fail if a test of this level does not run"
    )
    parser.addoption("--extension", type=Path, help="run the ops with this library in place of mmif/_C*.so")
    parser.addoption("--kernels", type=Path, help="take the package mmif.kernels from this folder")


def _use_extension(path: Path) -> None:
    os.environ["MMIF_EXTENSION"] = str(path.resolve())  # read when the ops are imported
    import mmif.ops  # noqa: F401 -- loads it

    if str(path.resolve()) not in torch.ops.loaded_libraries:
        raise pytest.UsageError(f"--extension must name a library that loads; {path} does not")


def _use_kernels(path: Path) -> None:
    spec = importlib.util.spec_from_file_location(
        "mmif.kernels", path.resolve() / "__init__.py", submodule_search_locations=[str(path.resolve())]
    )
    if spec is None or spec.loader is None or not (path / "__init__.py").exists():
        raise pytest.UsageError(f"--kernels must name a folder with an __init__.py; got {path}")
    sys.modules["mmif.kernels"] = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(sys.modules["mmif.kernels"])


def pytest_configure(config: pytest.Config) -> None:
    if config.option.kernels:
        _use_kernels(config.option.kernels)
    if config.option.extension:
        _use_extension(config.option.extension)
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background starts with Ctrl-C ignored
    torch.set_num_threads(1)  # the tests' tensors are too small for more, and threads that wait for each other are slow
    torch.backends.cuda.matmul.allow_tf32 = False  # numbers are compared with float32, not with TF32
    torch.backends.cudnn.allow_tf32 = False
    # Tests run in folders of their own: what was relative to the checkout must still be found by their subprocesses.
    if "PYTHONPATH" in os.environ:
        os.environ["PYTHONPATH"] = os.pathsep.join(map(os.path.abspath, os.environ["PYTHONPATH"].split(os.pathsep)))


def pytest_runtest_setup(item: pytest.Item) -> None:
    reason = _level(item).why_not()
    if reason:
        pytest.skip(reason)


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(item: pytest.Item) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    level = _level(item)
    if report.skipped and not hasattr(report, "wasxfail") and level.name in item.config.getoption("--require"):
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else report.longrepr
        report.outcome, report.longrepr = "failed", f"--require {level.name}: {reason}"
    report.level = level.name  # travels with the report from the process that ran the test to the one that counts
    return report


def pytest_runtest_logreport(report: pytest.TestReport) -> None:
    if report.when == "call" or report.outcome != "passed":
        LEVELS[report.level].counts[report.outcome] += 1


def pytest_sessionfinish(session: pytest.Session) -> None:
    if hasattr(session.config, "workerinput"):
        return  # of several processes only the first sees every report
    if any(not LEVELS[name].counts for name in session.config.getoption("--require")):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED  # a level without a test did not run either


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    terminalreporter.section("levels")
    terminalreporter.write_line(f"{'level':<20}{'passed':>8}{'failed':>8}{'skipped':>8}  note")
    for level in LEVELS.values():
        counts = "".join(f"{level.counts[outcome]:>8}" for outcome in ("passed", "failed", "skipped"))
        terminalreporter.write_line(f"{level.title:<20}{counts}  {level.note()}")


@pytest.fixture(autouse=True, scope="session")
def _own_store(tmp_path_factory: pytest.TempPathFactory) -> None:
    """What tests measure of kernels is no part of the user's cache, nor the other way round."""
    os.environ["MMIF_CACHE_DIR"] = str(tmp_path_factory.mktemp("tuned"))


@pytest.fixture(autouse=True)
def _same_start(tmp_path, monkeypatch) -> None:
    """Give each test the same random numbers and a folder of its own as working directory."""
    random.seed(0)
    np.random.seed(0)  # noqa: NPY002 -- libraries under test draw from the global generator
    torch.manual_seed(0)
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def registered(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The public functions call the registered ops, as on a device that has compiled bodies for all of them."""
    from mmif.ops import _extension, dispatch

    ops = {"acb_fusion", "acb_fusion_code", "adaptive_norm", "gated_mask_attention", "gated_residual"}
    ops |= {body.op for body in _extension.announced if body.backend == "cuda"}
    monkeypatch.setattr(dispatch, "_bodies", {(op, "cuda"): dispatch.Body(lambda *_, **__: None) for op in ops})
    monkeypatch.setattr(dispatch, "why_not", lambda _: None)
    with dispatch.use("cuda"):
        yield
