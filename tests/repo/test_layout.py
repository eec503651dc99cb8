"""The rooms of docs/design.md: nothing lies in the hall, each has its tests, no imports go round in a circle."""

from __future__ import annotations

import tomllib
from graphlib import CycleError, TopologicalSorter
from pathlib import Path

import pytest
from imports import MODULES, ROOT, RULES, imported, name_parts

GROUND_FLOOR = {"__init__", "__main__", "checkpoint", "config", "files", "host", "options"}
ROOMS = set(RULES) - GROUND_FLOOR
# What is tested and is no room of the package.
OTHER_TESTS = {"benchmarks", "csrc", "cuda", "repo"}
ACROSS_ROOMS = {"guards"}


def test_only_what_every_room_needs_lies_outside_the_rooms():
    assert {path.stem for path in (ROOT / "mmif").glob("*.py")} == GROUND_FLOOR


def folders_with_tests() -> set[str]:
    return {path.name for path in (ROOT / "tests").iterdir() if any(path.glob("test_*.py"))}


def test_every_room_has_tests_of_the_same_name():
    assert folders_with_tests() == ROOMS | OTHER_TESTS


def test_a_test_outside_the_rooms_is_of_files_outside_the_rooms_or_of_several_rooms():
    files = {path.stem.removeprefix("test_") for path in (ROOT / "tests").glob("test_*.py")}
    assert files <= GROUND_FLOOR | ACROSS_ROOMS


def test_every_room_is_shipped():
    listed = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["setuptools"]["packages"]
    assert sorted(listed) == sorted(".".join(name_parts(path)[:-1]) for path in MODULES if path.stem == "__init__")


def graph() -> dict[str, set[str]]:
    """Each module with those it names in an import, also inside functions.

    That importing ``mmif.ops.upfirdn2d`` runs ``mmif/ops/__init__.py`` first is Python's doing and not counted: a
    package may gather its modules, which reach each other by name.
    """
    names = {path: ".".join(name_parts(path)).removesuffix(".__init__") for path in MODULES}
    modules = set(names.values())
    return {
        name: {
            module if module in modules else module.rpartition(".")[0] for module in imported(path, package_of(path))
        }
        & modules - {name}
        for path, name in names.items()
    }


def package_of(path: Path) -> str:
    return ".".join(name_parts(path)[:-1])


def circle(edges: dict[str, set[str]]) -> list[str]:
    """Modules that import each other, the first one again at the end; empty if there are none."""
    try:
        TopologicalSorter(edges).prepare()
    except CycleError as error:
        return error.args[1]
    return []


def test_no_imports_go_round_in_a_circle():
    assert circle(graph()) == []


@pytest.mark.parametrize(
    ("module", "other"),
    [
        ("mmif.model.synthesis", "mmif.model.generator"),  # two circles that there were
        ("mmif.ops._extension", "mmif.ops.bias_act"),
        ("mmif.files", "mmif.commands.train"),
    ],
)
def test_the_checker_finds_a_circle(module: str, other: str):
    edges = graph()
    edges[module] = edges[module] | {other}
    assert module in circle(edges)
