"""Errors planted in the Triton kernels must be found by the tests that interpret them."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planted import PLANTED

pytestmark = pytest.mark.triton

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels"


@pytest.fixture
def copy(tmp_path) -> Path:
    """The package mmif.kernels in a folder of its own."""
    return shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))


def run_tests(tests: set[str], kernels: Path) -> subprocess.CompletedProcess[str]:
    """Interpret them also where there is a GPU: every error then shows in the same way."""
    command = [sys.executable, "-m", "pytest", "-q", "-x", "-p", "no:cacheprovider", "--kernels", str(kernels)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": ""}
    selected = [str(HERE / test) for test in sorted(tests)]
    return subprocess.run(
        [*command, *selected], cwd=HERE.parents[1], env=environment, capture_output=True, text=True, check=False
    )


def test_the_copy_is_what_runs_and_passes(copy):
    """Else the tests below would find whatever they look for."""
    with (copy / "__init__.py").open("a") as file:
        file.write('\nprint("the copy runs")\n')
    done = run_tests({error.test for error in PLANTED}, copy)
    assert done.returncode == 0, done.stdout + done.stderr
    assert "the copy runs" in done.stdout


@pytest.mark.parametrize("error", PLANTED, ids=lambda error: f"{error.source}: {error.old}")
def test_a_planted_error_is_found(error, copy):
    path = copy / error.source
    text = path.read_text()
    assert text.count(error.old) == 1, f"{error.source} must hold {error.old!r} once: adapt tests/planted.py"
    path.write_text(text.replace(error.old, error.new))
    done = run_tests({error.test}, copy)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    assert re.search(r"^E +(AssertionError|assert )", done.stdout, re.MULTILINE), done.stdout
