"""Errors planted in the Triton kernels must be found by the tests that interpret them."""

from __future__ import annotations

import itertools
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from planted import PLANTED, Error

pytestmark = pytest.mark.triton

HERE = Path(__file__).parent
KERNELS = HERE.parents[1] / "kernels"


@pytest.fixture
def copy(tmp_path) -> Path:
    """The package mmif.kernels in a folder of its own."""
    return shutil.copytree(KERNELS, tmp_path / "kernels", ignore=shutil.ignore_patterns("__pycache__"))


def run_tests(tests: set[str], kernels: Path) -> subprocess.CompletedProcess[str]:
    """Interpret them also where there is a GPU: every error then shows in the same way."""
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--kernels", str(kernels)]
    environment = {**os.environ, "TRITON_INTERPRET": "1", "CUDA_VISIBLE_DEVICES": "", "COLUMNS": "400"}  # whole lines
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


def rounds() -> list[list[Error]]:
    """The errors, at most one of each family of kernels in a round: a test runs the kernels of its own family alone."""
    families: dict[str, list[Error]] = {}
    for error in PLANTED:
        families.setdefault(error.source.split("/")[0], []).append(error)
    return [[error for error in several if error] for several in itertools.zip_longest(*families.values())]


@pytest.mark.parametrize("errors", rounds(), ids=lambda errors: f"{len(errors)} errors")
def test_planted_errors_are_found(errors, copy):
    for error in errors:
        path = copy / error.source
        text = path.read_text()
        assert text.count(error.old) == 1, f"{error.source} must hold {error.old!r} once: adapt tests/planted.py"
        path.write_text(text.replace(error.old, error.new))
    done = run_tests({error.test for error in errors}, copy)
    assert done.returncode == pytest.ExitCode.TESTS_FAILED, done.stdout + done.stderr
    for error in errors:
        found = rf"^FAILED \S*{re.escape(error.test)} - (AssertionError|assert )"
        assert re.search(found, done.stdout, re.MULTILINE), f"{error} was not found:\n{done.stdout}"


def test_every_error_has_a_round():
    assert sorted(itertools.chain(*rounds())) == sorted(PLANTED)
