"""What imports what: the table of docs/design.md, and the import statements of the sources."""

from __future__ import annotations

import ast
import re
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]


class Rule(NamedTuple):
    """What one room may import: of mmif, of mmif nevertheless not, and from outside."""

    ours: set[str]
    never: set[str]
    outside: set[str]


def read_rules(text: str) -> dict[str, Rule]:
    """The table below "What may import what", by room, from the bottom up."""
    rows = re.findall(r"^\| `(\w+)` \| ([^|]*) \| ([^|]*) \|$", text.split("## What may import what")[1], re.MULTILINE)
    return {room: Rule(*_names(ours), set(re.findall(r"\w+", outside))) for room, ours, outside in rows}


def _names(cell: str) -> tuple[set[str], set[str]]:
    words = [word.strip() for word in re.sub(r"\(.*?\)|-|each on first use", "", cell).split(",")]
    never = {word.removeprefix("not ") for word in words if word.startswith("not ")}
    return {word for word in words if word and not word.startswith("not ")}, never


RULES = read_rules((ROOT / "docs" / "design.md").read_text())


def is_module(package: str, name: str) -> bool:
    folder = ROOT.joinpath(*package.split("."))
    return package.split(".")[0] == "mmif" and ((folder / f"{name}.py").exists() or (folder / name).is_dir())


def imported(path: Path, package: str) -> set[str]:
    """Absolute names of all modules that the file imports, at any depth; ``package`` is the one it lies in."""
    names: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            names |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom):
            parts = package.split(".")
            base = ".".join(parts[: len(parts) + 1 - node.level]) if node.level else ""
            module = ".".join(filter(None, [base, node.module]))
            # `from mmif import files` imports a module, and so does `from mmif.ops import dispatch`.
            inner = {f"{module}.{a.name}" for a in node.names if a.name != "__version__" and is_module(module, a.name)}
            names |= inner or ({module} - {"mmif"})
    return names


def python_files(folder: str) -> list[Path]:
    return sorted((ROOT / folder).rglob("*.py"))


def name_parts(path: Path) -> tuple[str, ...]:
    """The name under which a file is imported: the mapped folders are packages of mmif (ADR 0001)."""
    parts = path.relative_to(ROOT).with_suffix("").parts
    return parts if parts[0] == "mmif" else ("mmif", *parts)


MODULES = [path for folder in ("mmif", "kernels", "export") for path in python_files(folder)]
