"""What is shipped, and what is installed to work on it."""

from __future__ import annotations

import importlib
import os
import re
import shutil
import subprocess
import sys
import tarfile
import tomllib
import zipfile
from pathlib import Path

import pytest

from mmif.__main__ import VERBS

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
VERSION = PROJECT["project"]["version"]
FOLDERS = (".ci", ".github", "benchmarks", "csrc", "docs", "examples", "export", "kernels", "mmif", "tests")


def run(*command: str, cwd: Path) -> str:
    env = {**os.environ, "MMIF_CUDA": "0"}  # tests/csrc/test_build.py is about CUDA
    done = subprocess.run([sys.executable, *command], cwd=cwd, env=env, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.fixture(scope="session")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what is built from, so that no build writes into the repository."""
    copy = tmp_path_factory.mktemp("checkout")
    ignored = shutil.ignore_patterns("__pycache__", "*.so")
    for name in FOLDERS:
        if (ROOT / name).is_dir():
            shutil.copytree(ROOT / name, copy / name, symlinks=True, ignore=ignored)
    for path in ROOT.iterdir():
        if path.is_file():
            shutil.copy(path, copy)
    return copy


@pytest.fixture(scope="session")
def wheel(checkout: Path) -> Path:
    run("-m", "pip", "wheel", "-q", "--no-deps", "--no-build-isolation", "-w", "dist", ".", cwd=checkout)
    (path,) = (checkout / "dist").glob("*.whl")
    return path


def test_the_wheel_holds_the_package_and_nothing_else(wheel: Path):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
    assert {name.split("/")[0] for name in names} == {"mmif", f"mminvertfill-{VERSION}.dist-info"}
    shipped = {*(ROOT / "mmif").rglob("*.py"), ROOT / "mmif" / "py.typed", *(ROOT / "mmif" / "weights").glob("*/*")}
    assert {path.relative_to(ROOT).as_posix() for path in shipped} <= names
    assert {f"mmif/{path.relative_to(ROOT).as_posix()}" for path in (ROOT / "kernels").rglob("*.py")} <= names
    assert "mmif/_C.abi3.so" in names


def test_one_wheel_serves_every_python_from_the_oldest_on(wheel: Path):
    assert "-cp311-abi3-linux" in wheel.name


def test_the_version_has_one_source(wheel: Path):
    assert wheel.name.startswith(f"mminvertfill-{VERSION}-")
    literal = re.compile(rf"version\w*\W+{re.escape(VERSION)}\b", re.IGNORECASE)
    assert [path for path in (ROOT / "mmif").rglob("*.py") if literal.search(path.read_text())] == []


def test_the_sdist_holds_what_is_built_checked_and_tested(checkout: Path):
    run("setup.py", "-q", "sdist", "--dist-dir", "sdist", cwd=checkout)
    (path,) = (checkout / "sdist").glob("*.tar.gz")
    with tarfile.open(path) as archive:
        names = {name.partition("/")[2] for name in archive.getnames()}
    sources = [path for folder in FOLDERS for path in (checkout / folder).rglob("*") if path.is_file()]
    sources += [checkout / name for name in ("LICENSE", "Makefile", "README.md", "constraints.txt", "setup.py")]
    built = {".so", ".pyc"}
    assert {path.relative_to(checkout).as_posix() for path in sources if path.suffix not in built} <= names


def test_every_command_has_its_main_and_its_verb():
    scripts = PROJECT["project"]["scripts"]
    assert scripts == {f"mmif-{verb}": f"mmif.commands.{verb}:main" for verb in VERBS}
    for verb in VERBS:
        assert callable(importlib.import_module(f"mmif.commands.{verb}").main)


def test_a_cpu_torch_is_never_replaced():
    """Nothing that `make` installs depends on torchvision, whose CUDA build would bring a CUDA torch."""
    pins = (ROOT / "constraints.txt").read_text()
    assert "torch==2.13.0\n" in pins
    assert not re.search(r"torchvision|torchaudio|nvidia|timm|torch-fidelity", pins, re.IGNORECASE)


def test_make_installs_nothing_that_is_not_pinned():
    extras = PROJECT["project"]["optional-dependencies"]
    wanted = PROJECT["project"]["dependencies"] + extras["dev"] + PROJECT["build-system"]["requires"]
    wanted += [requirement for group in PROJECT["dependency-groups"].values() for requirement in group]
    for requirement in extras["dev"]:
        if name(requirement) == PROJECT["project"]["name"]:
            wanted += [inner for extra in re.findall(r"\w+", requirement.partition("[")[2]) for inner in extras[extra]]
    pinned = {name(line) for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line}
    assert {name(requirement) for requirement in wanted} - {PROJECT["project"]["name"]} <= pinned


def name(requirement: str) -> str:
    return re.split(r"[^\w.-]", requirement)[0].lower().replace("_", "-")


# Distributions whose import package, or what the code reads of them, has another name.
USED_AS = {"opencv-python-headless": "cv2", "pypatchmatch": "patchmatch", "scikit-learn": "sklearn"}


@pytest.mark.parametrize("extra", sorted(PROJECT["project"]["optional-dependencies"].keys() - {"dev"}))
def test_an_extra_lists_what_the_code_uses_and_nothing_else(extra: str):
    sources = "".join(path.read_text() for path in (ROOT / "mmif").rglob("*.py"))
    for requirement in map(name, PROJECT["project"]["optional-dependencies"][extra]):
        used = USED_AS.get(requirement, requirement.replace("-", "_"))
        imported = rf"(import|from) (torch\.utils\.)?{used}\b|(import_module|_need)\(\"{used}\b"
        read = rf"\"{used}/"  # weights that a distribution carries
        assert re.search(f"{imported}|{read}", sources), f"nothing uses {requirement} (docs/adr/0013)"
