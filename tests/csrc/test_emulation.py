"""The CUDA kernels without a GPU: same sources, same bindings, same tests, on the CPU; planted bugs must be found.

tests/csrc/emulation/README.md says how.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from emulation import build
from emulation.bugs import BUGS
from ops.cases import OPS

ROOT = Path(__file__).resolve().parents[2]
ORDERS = ("forward", "reverse", "random")  # of blocks, warps and lanes

RIGHT = ("indices", "exchange", "branches", "stranger", "uninitialised", "limits", "conversions")
WRONG = {
    "barrier_without_all": "32 threads wait at __syncthreads, but 32 have returned",
    "shuffle_without_all": "waits at __shfl_down_sync with mask ffffffff for lane 7, which has returned",
    "shuffle_and_barrier": "waits at __syncwarp with mask ffffffff for lane 9, which waits at __syncthreads",
    "different_operations": "for lane 1, which waits at another operation or with another mask",
    "mask_without_caller": r"lane \d+ calls __syncwarp with mask 00000001, which lacks it",
    "partial_warp": "lane 0 of warp 1 waits at __syncwarp with mask ffffffff for lane 16, which is not in the block",
}
# Instances of kernels that no small tensor reaches, and why.
OUT_OF_REACH = {r"upfirdn2d_general_kernel<.*, long int>": "serves outputs of more than 2^31 numbers"}


def run(command: list[str], order: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {**os.environ, "EMU_ORDER": order, **environment}
    return subprocess.run(command, cwd=ROOT, env=env, capture_output=True, text=True, check=False)


def run_tests(files: list[str], select: str, library: Path, order: str) -> subprocess.CompletedProcess[str]:
    """Run those tests of ``files`` in tests/ops that ``pytest -k select`` takes, on the kernels in ``library``.

    The file ``kernels`` in the working directory then holds a line for each kernel: ``ran <name>`` or ``not <name>``.
    """
    options = ["-q", "-x", "-p", "no:cacheprovider", "--capture=sys"]  # what a process says that aborts must come out
    command = [sys.executable, "-m", "pytest", *options, "--extension", str(library), "-k", select]
    environment = build.environment(library) | {"EMU_KERNELS": str(Path("kernels").absolute())}
    return run([*command, *(f"tests/ops/{file}" for file in files)], order, **environment)


def device_ops() -> list[str]:
    """The ops whose bodies launch kernels."""
    names = {name for path in build.bindings() for name in re.findall(r'm\.impl\("(\w+)"', path.read_text())}
    assert names, "the bindings register no op"
    assert names <= set(OPS), f"tests/ops/cases.py must have samples of {names - set(OPS)}"
    return sorted(names)


@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("switch", ["default", "ucontext"])
def test_emulation_itself(switch, order):
    defines = ("-DMMIF_EMULATE_UCONTEXT",) if switch == "ucontext" else ()
    program = build.program(build.HERE / "selftest.cpp", defines=defines)
    for case in RIGHT:
        done = run([str(program), case], order)
        assert done.returncode == 0, done.stdout + done.stderr
    for case, message in WRONG.items():
        done = run([str(program), case], order)
        assert done.returncode != 0, case
        assert re.search(rf"emulation: \S+_kernel, block \(0, 0, 0\): .*{message}", done.stderr), done.stderr


@pytest.mark.parametrize("order", ["forward", "reverse"])
def test_kernels_equal_their_references(order):
    select = f"({' or '.join(device_ops())}) and reference"
    done = run_tests(["test_registration.py"], select, build.library(), order)
    assert done.returncode == 0, done.stdout + done.stderr


def test_kernels_pass_all_tests_of_their_ops_in_random_order():
    ops = device_ops()
    stems = [path.stem for path in (ROOT / "tests" / "ops").glob("test_*.py")]
    own = [stem for stem in stems if any(op.startswith(stem.removeprefix("test_")) for op in ops)]
    assert own, "no file of tests/ops is named after an op with kernels"
    own += ["test_checks", "test_empty"]
    files = ["test_registration.py", *(f"{stem}.py" for stem in own)]
    done = run_tests(files, " or ".join([*ops, *own]), build.library(), "random")
    assert done.returncode == 0, done.stdout + done.stderr
    kernels = [line.split(" ", 1) for line in Path("kernels").read_text().splitlines()]
    ran = {name for state, name in kernels if state == "ran"}
    idle = {name for state, name in kernels if state == "not"} - ran  # two files may hold the same instance
    assert ran, "no kernel made itself known"
    idle = {name for name in idle if not any(re.search(pattern, name) for pattern in OUT_OF_REACH)}
    assert not idle, "tests/ops/cases.py must have samples that run these kernels:\n" + "\n".join(sorted(idle))


def test_kernels_stay_inside_their_memory():
    select = f"({' or '.join(device_ops())}) and reference and not expanded and (float16 or float64)"
    done = run_tests(["test_registration.py"], select, build.library(sanitize=True), "forward")
    assert done.returncode == 0, done.stdout + done.stderr


@pytest.mark.parametrize("name", BUGS)
def test_planted_bug_is_found(name, tmp_path):
    bug, csrc = BUGS[name], tmp_path / "csrc"
    shutil.copytree(build.CSRC, csrc)
    text = (csrc / bug.source).read_text()
    assert text.count(bug.old) == 1, f"{bug.source} must hold {bug.old!r} once: adapt tests/csrc/emulation/bugs.py"
    (csrc / bug.source).write_text(text.replace(bug.old, bug.new))
    done = run_tests(["test_registration.py"], bug.select, build.library(csrc, sanitize=bug.sanitize), "forward")
    assert done.returncode != 0, done.stdout
    assert re.search(bug.shows, done.stdout + done.stderr), done.stdout + done.stderr
