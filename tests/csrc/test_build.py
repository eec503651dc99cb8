"""setup.py build_ext: with and without a compiler, with and without nvcc, and what ptxas says of the kernels."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "csrc"))
import ptxas_report  # noqa: E402 -- a script beside the sources, not a module of the package

# Registers and bytes of spills per thread that no instance may exceed; float64 is left out, it is never hot.
HOT = {
    "bias_act_kernel": 80,
    "reduce_rows_kernel": 64,
    "reduce_planes_kernel": 64,
    "epilogue_kernel": 48,
    "epilogue_rgb_kernel": 80,
    "narrow_conv_kernel": 168,  # of 170 that three blocks leave each thread of a multiprocessor
    "fir_nhwc_kernel": 144,
    "fir_nchw_kernel": 48,
}


def copy_of_sources(folder: Path) -> Path:
    shutil.copytree(ROOT / "csrc", folder / "csrc")
    (folder / "mmif").mkdir()
    for name in ("setup.py", "pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, folder)
    return folder


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    """What the extension is built from, apart from the repository."""
    return copy_of_sources(tmp_path)


def build_ext(tree: Path, *options: str, **environment: str) -> subprocess.CompletedProcess[str]:
    env = {k: v for k, v in os.environ.items() if k not in ("CUDA_HOME", "TORCH_CUDA_ARCH_LIST", "MMIF_CUDA", "CXX")}
    command = [sys.executable, "setup.py", "-q", "build_ext", *options]
    return subprocess.run(command, cwd=tree, env={**env, **environment}, capture_output=True, text=True, check=False)


def only_compilers(folder: Path, *names: str) -> str:
    """A PATH on which the compilers of ``names``, and what they call, are all there is."""
    folder.mkdir()
    for name in (*names, "as", "ld"):
        (folder / name).symlink_to(shutil.which(name) or name)
    return str(folder)


def test_without_nvcc_one_line_says_so_and_the_library_loads(tree: Path):
    done = build_ext(tree, PATH=only_compilers(tree / "bin", "g++"))
    assert done.returncode == 0, done.stderr
    assert "build_ext: CUDA left out, nvcc is not on PATH and CUDA_HOME is not set" in done.stdout.splitlines()
    code = (
        "import torch\n"
        "from mmif import ops\n"
        "from mmif.ops import dispatch\n"
        "x = torch.randn(2, 8, 9, 9)\n"
        "f = ops.setup_filter([1, 3, 3, 1])\n"
        "a, b = (ops.upfirdn2d(x, f, up=2, padding=2, backend=name) for name in ('cpu', 'reference'))\n"
        "torch.testing.assert_close(a, b)\n"
        "print(dispatch.why_not('cuda'))"
    )
    library = tree / "mmif" / "_C.abi3.so"
    loaded = subprocess.run(
        [sys.executable, "-c", code],
        cwd=ROOT,
        env={**os.environ, "MMIF_EXTENSION": str(library)},
        capture_output=True,
        text=True,
        check=False,
    )
    assert loaded.returncode == 0, loaded.stderr
    assert loaded.stdout.startswith("the extension was built without CUDA; build it with: python setup.py build_ext")


def test_without_a_compiler_one_line_says_so(tree: Path):
    done = build_ext(tree, PATH=str(tree))
    assert done.returncode == 0, done.stderr
    line = "build_ext: nothing was compiled, no C++ compiler was found (install g++ or set CXX); the ops run in PyTorch"
    assert done.stdout.splitlines() == [line]


@pytest.mark.parametrize(
    ("environment", "message"),
    [
        ({"MMIF_CUDA": "yes"}, "build_ext: MMIF_CUDA must be auto, 0 or 1, got 'yes'"),
        (
            {"MMIF_CUDA": "1", "CUDA_HOME": "/nowhere"},
            "build_ext: MMIF_CUDA=1 needs the CUDA toolkit, but no nvcc in CUDA_HOME=/nowhere",
        ),
        ({"MMIF_CUDA": "1", "PATH": "/nowhere"}, "build_ext: MMIF_CUDA=1, but no C++ compiler was found"),
        ({"MMIF_CUDA": "0", "MAX_JOBS": "0"}, "build_ext: MAX_JOBS must be a number from 1 on, got '0'"),
        (
            {"MMIF_CUDA": "0", "CXX": "/nowhere/g++"},
            "build_ext: the compiler '/nowhere/g++' cannot be run (No such file or directory); see CXX",
        ),
    ],
)
def test_what_cannot_be_met_is_an_error_of_one_line(tree: Path, environment, message):
    done = build_ext(tree, **environment)
    assert done.returncode != 0
    assert done.stderr.strip().splitlines()[-1].startswith(message)


def test_a_compiler_may_be_a_command_of_several_words(tree: Path):
    for source in (tree / "csrc").glob("*.cpp"):
        source.write_text("static int nothing;\n")  # what is compiled does not matter here, and this takes no time
    done = build_ext(tree, MMIF_CUDA="0", CXX="env g++")
    assert done.returncode == 0, done.stderr
    assert (tree / "mmif" / "_C.abi3.so").exists()


def test_a_compile_error_is_fatal_and_keeps_the_old_library(tree: Path):
    library = tree / "mmif" / "_C.abi3.so"
    library.write_text("old")
    (tree / "csrc" / "build_info.cpp").write_text("this is not C++\n")
    done = build_ext(tree, MMIF_CUDA="0")
    assert done.returncode != 0
    assert "build_ext: this command failed:" in done.stderr
    assert "build_info.cpp:1:1: error" in done.stderr
    assert library.read_text() == "old"


@pytest.mark.sources
def test_a_wrong_list_of_architectures_is_an_error_of_one_line(tree: Path):
    done = build_ext(tree, MMIF_CUDA="1", TORCH_CUDA_ARCH_LIST="Hopper")
    assert done.returncode != 0
    assert "build_ext: TORCH_CUDA_ARCH_LIST must look like '8.0;9.0a+PTX', got 'Hopper'" in done.stderr


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> list[ptxas_report.Kernel]:
    """Every instance of every kernel on every architecture; the objects of the repository's own build are reused."""
    objects = ROOT / "build" / "ext"
    done = build_ext(copy_of_sources(tmp_path_factory.mktemp("kernels")), f"--build-temp={objects}", MMIF_CUDA="1")
    assert done.returncode == 0, done.stdout + done.stderr
    found = ptxas_report.parse((objects / "ptxas.log").read_text())
    print(ptxas_report.table(found))
    return found


@pytest.mark.sources
def test_every_source_compiles_for_every_architecture(kernels):
    archs = {"sm_80", "sm_86", "sm_89", "sm_90a", "sm_100", "sm_120"}
    names = {kernel.name for kernel in kernels}
    assert set(HOT) <= names
    for name in names:
        assert {kernel.arch for kernel in kernels if kernel.name == name} == archs, name


@pytest.mark.sources
def test_no_hot_kernel_spills_or_takes_more_registers_than_it_may(kernels):
    hot = [kernel for kernel in kernels if kernel.name in HOT and not kernel.double]
    assert len(hot) > len(HOT)
    assert [kernel for kernel in hot if kernel.spills or kernel.registers > HOT[kernel.name]] == []


def test_the_report_is_read_as_ptxas_writes_it():
    log = (
        "ptxas info    : 0 bytes gmem\n"
        "ptxas info    : Compiling entry function '_ZN4mmif44_GLOBAL__N__b50a7a51_11_bias_act_cu_efc014cf15"
        "sum_rows_kernelIdEEvPKNS_5AccOfIT_E4typeEPS3_il' for 'sm_90a'\n"
        "ptxas info    : Function properties for _ZN4mmif\n"
        "    8 bytes stack frame, 28 bytes spill stores, 24 bytes spill loads\n"
        "ptxas info    : Used 40 registers, used 1 barriers, 8 bytes cumulative stack size, 4096 bytes smem\n"
    )
    (kernel,) = ptxas_report.parse(log)
    assert (kernel.name, kernel.arch, kernel.double) == ("sum_rows_kernel", "sm_90a", True)
    assert (kernel.registers, kernel.stack, kernel.spills, kernel.shared) == (40, 8, 52, 4096)
    assert "sum_rows_kernel" in ptxas_report.table([kernel])
    with pytest.raises(ValueError, match="the log must have entry, stack and registers"):
        ptxas_report.parse(log.replace("Used 40", "Uses 40"))
