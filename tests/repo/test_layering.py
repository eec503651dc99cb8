"""What may import what: the table of docs/design.md, held against every import statement in the repository."""

from __future__ import annotations

import ast
import subprocess
import sys
from collections.abc import Iterable
from pathlib import Path

import pytest
from imports import MODULES, ROOT, RULES, imported, name_parts, python_files

BASE = {"torch", "numpy", "PIL", "safetensors", "jsonargparse", "tqdm", "mmif", *sys.stdlib_module_names}


def module_and_package(path: Path) -> tuple[str, str]:
    """The module's name below mmif, a package's without ``__init__``, and the package that it lies in."""
    parts = name_parts(path)
    return ".".join(parts[1:-1] if parts[-1] == "__init__" and len(parts) > 2 else parts[1:]), ".".join(parts[:-1])


def below(name: str, parents: Iterable[str]) -> bool:
    return any(name == parent or name.startswith(f"{parent}.") for parent in parents)


def violations(module: str, names: set[str]) -> list[str]:
    """What the module of mmif imports in ``names`` against its room's rule; no rule is a violation as well."""
    room = module.split(".")[0]
    if room not in RULES:
        return [f"mmif.{module} has no row in docs/design.md"]
    ours, never, outside = RULES[room]
    return sorted(
        name
        for name in names
        if not below(name, outside)
        and name.split(".")[0] not in sys.stdlib_module_names
        and (not below(name.removeprefix("mmif."), {*ours, room}) or below(name.removeprefix("mmif."), never))
    )


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_module_imports_only_what_its_layer_may(path: Path):
    module, package = module_and_package(path)
    assert violations(module, imported(path, package)) == []


@pytest.mark.parametrize("path", python_files("mmif"), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_optional_packages_are_imported_inside_functions(path: Path):
    body = ast.parse(path.read_text()).body
    at_import = {alias.name for node in body if isinstance(node, ast.Import) for alias in node.names}
    at_import |= {node.module or "" for node in body if isinstance(node, ast.ImportFrom) and not node.level}
    assert {name.split(".")[0] for name in at_import} <= BASE


def imports_of(room: str) -> set[str]:
    """Whatever the room's modules import."""
    modules = [(path, *module_and_package(path)) for path in MODULES]
    return set().union(*(imported(path, package) for path, module, package in modules if module.split(".")[0] == room))


def unused(room: str, names: set[str]) -> list[str]:
    """What the room's row grants beyond ``names``, all that it imports."""
    ours, _, outside = RULES[room]
    used = {name for name in outside if any(below(module, [name]) for module in names)}
    used |= {name for name in ours if any(below(module, [f"mmif.{name}"]) for module in names)}
    return sorted((ours | outside) - used)


@pytest.mark.parametrize("room", RULES)
def test_a_row_grants_only_what_is_used(room: str):
    assert unused(room, imports_of(room)) == []


def test_the_checker_finds_a_right_that_nobody_uses():
    assert unused("compat", {"torch", "mmif.opsidian"}) == ["ops"]


def test_a_row_names_only_what_stands_above_it():
    above: set[str] = set()
    for room, rule in RULES.items():
        assert rule.ours <= above, f"{room} may import what is not below it"
        above.add(room)


def test_every_room_has_a_row_and_every_row_a_room():
    names = {path.stem for path in (ROOT / "mmif").iterdir() if path.suffix == ".py" or (path / "__init__.py").exists()}
    assert set(RULES) == names | {"kernels"}


@pytest.mark.parametrize(
    ("module", "source"),
    [
        ("model.encoder", "from mmif.ops import dispatch"),
        ("model.encoder", "def f():\n    import PIL.Image"),
        ("ops.bias_act", "from ..model import MMInvertFill"),
        ("kernels.acb.mix", "from mmif.ops import acb_fusion"),
        ("checkpoint", "from mmif.inpaint import Inpainter"),
        ("train.gan", "import mmif.commands.eval"),
        ("nowhere", ""),
    ],
)
def test_the_checker_finds_a_wrong_import(tmp_path: Path, module: str, source: str):
    path = tmp_path / "module.py"
    path.write_text(source)
    package = ".".join(["mmif", *module.split(".")[:-1]])
    assert violations(module, imported(path, package)) != []


@pytest.mark.parametrize("folder", ["mmif", "kernels", "export", "benchmarks", "examples", "tests"])
def test_nobody_imports_the_mapped_folders_by_their_bare_names(folder: str):
    forbidden = ["kernels", "export", *(["tests", "conftest"] if folder != "tests" else [])]
    package = f"mmif.{folder}" if folder in ("kernels", "export") else folder
    found = {path.name: [n for n in imported(path, package) if below(n, forbidden)] for path in python_files(folder)}
    assert not any(found.values()), found


def run_python(code: str) -> str:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert not done.stderr
    return done.stdout


def test_import_mmif_is_silent_and_loads_nothing_else():
    before_and_after = "import sys; before = set(sys.modules); import mmif; print(*sorted(set(sys.modules) - before))"
    names = {name.split(".")[0] for name in run_python(before_and_after).split()}
    assert "mmif" in names
    assert names <= {"mmif", *sys.stdlib_module_names}


def test_the_model_needs_torch_alone():
    run_python(
        "import sys\n"
        "for name in ('PIL', 'safetensors', 'jsonargparse', 'tqdm', 'scipy', 'skimage', 'cv2'):\n"
        "    sys.modules[name] = None\n"  # importing it raises ImportError
        "import mmif\n"
        "assert mmif.ModelConfig and mmif.PRESETS and mmif.from_preset and mmif.MMInvertFill\n"
        "import torch\n"
        "assert not torch.cuda.is_initialized()\n"
    )
