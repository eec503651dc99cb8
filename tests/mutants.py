"""Mutation testing of the modules that guard: files, configurations, checkpoints, pictures, masks.

    python tests/mutants.py --count 80 --seed 0        or   make mutants

A mutant is a module with one small fault: another comparison, ``or`` for ``and``, a number off by one, a return without
its value, a call left out. The tests of the module must fail on it; one that they pass survives and is printed. A
seeded sample is drawn, the same number from each module as far as it goes, and tried in copies of the tree. (Tools
from outside try every mutant, thousands, with an interpreter and PyTorch started for each.)
"""

from __future__ import annotations

import argparse
import ast
import itertools
import multiprocessing
import os
import random
import shutil
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

ROOT = Path(__file__).parents[1]
PRELOADED = ["torch", "numpy", "PIL.Image", "safetensors.torch", "hypothesis", "pytest", "jsonargparse"]
COPIED = ["mmif", "kernels", "tests", "examples", "docs", "benchmarks", "csrc", "pyproject.toml", "setup.py"]
IMAGES = ["tests/images", "tests/test_guards.py"]
TESTS = {  # what must notice a fault of a module
    "mmif/files.py": ["tests/test_files.py", "tests/test_guards.py"],
    "mmif/config.py": ["tests/test_config.py", "tests/test_guards.py"],
    "mmif/checkpoint.py": ["tests/test_checkpoint.py", "tests/test_guards.py"],
    "mmif/data/masks.py": ["tests/data/test_masks.py", "tests/test_guards.py"],
    **{
        f"mmif/images/{name}.py": IMAGES
        for name in ("bare", "compose", "decode", "holes", "labels", "masks", "metadata")
    },
    **{f"mmif/images/{name}.py": IMAGES for name in ("folder", "photo", "sheet", "source", "tensors", "write")},
}
# Faults that change nothing anyone could see, and why: (module, line before, line after).
EQUIVALENT: dict[tuple[str, str, str], str] = {
    ("mmif/checkpoint.py", "50000000", "50000001"): "a slack of a round number; nobody needs its last unit",
}
COMPARISONS: dict[type[ast.cmpop], type[ast.cmpop]] = {
    ast.Lt: ast.LtE,
    ast.LtE: ast.Lt,
    ast.Gt: ast.GtE,
    ast.GtE: ast.Gt,
    ast.Eq: ast.NotEq,
    ast.NotEq: ast.Eq,
    ast.In: ast.NotIn,
    ast.NotIn: ast.In,
    ast.Is: ast.IsNot,
    ast.IsNot: ast.Is,
}
ARITHMETIC: dict[type[ast.operator], type[ast.operator]] = {
    ast.Add: ast.Sub,
    ast.Sub: ast.Add,
    ast.Mult: ast.FloorDiv,
    ast.FloorDiv: ast.Mult,
    ast.Div: ast.Mult,
    ast.BitOr: ast.BitAnd,
    ast.BitAnd: ast.BitOr,
}


class Mutant(NamedTuple):
    """A module with one fault."""

    module: str
    line: int
    before: str
    after: str
    source: str  # of the whole module


def places(source: str) -> list[tuple[int, int]]:
    """Where a fault can be put: number of the node, and which of its faults."""
    nodes = enumerate(_code(ast.parse(source)))
    return [(number, variant) for number, node in nodes for variant in range(len(_variants(node)))]


def mutant(module: str, source: str, place: tuple[int, int]) -> Mutant:
    """The module with the fault at one of its :func:`places`."""
    tree = ast.parse(source)
    node = next(itertools.islice(_code(tree), place[0], None))
    line, before = getattr(node, "lineno", 0), _short(ast.unparse(node))
    _variants(node)[place[1]]()
    return Mutant(module, line, before, _short(ast.unparse(node)), ast.unparse(ast.fix_missing_locations(tree)))


def _short(text: str) -> str:
    return " ".join(text.split())[:120]


def _code(node: ast.AST) -> Iterator[ast.AST]:
    """Nodes that run; not annotations, docstrings and what only type checkers read."""
    yield node
    for name, value in ast.iter_fields(node):
        if name in ("annotation", "returns", "type_params", "decorator_list"):
            continue
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING":
            continue
        for child in value if isinstance(value, list) else [value]:
            text = isinstance(child, ast.Expr) and isinstance(child.value, ast.Constant)
            if isinstance(child, ast.AST) and not text and not isinstance(child, ast.JoinedStr):
                yield from _code(child)


def _variants(node: ast.AST) -> list[Callable[[], None]]:
    """Functions that put a fault into ``node``, in place."""

    def put(**fields: object) -> Callable[[], None]:
        return lambda: vars(node).update(fields)

    match node:
        case ast.Compare(ops=[operator]) if type(operator) in COMPARISONS:
            return [put(ops=[COMPARISONS[type(operator)]()])]
        case ast.BoolOp():
            return [put(op=ast.Or() if isinstance(node.op, ast.And) else ast.And())]
        case ast.BinOp() if type(node.op) in ARITHMETIC:
            return [put(op=ARITHMETIC[type(node.op)]())]
        case ast.If() | ast.IfExp() | ast.While():
            return [put(test=ast.UnaryOp(ast.Not(), node.test))]
        case ast.Constant(value=bool()):
            return [put(value=not node.value)]
        case ast.Constant(value=int() | float() as number):
            return [put(value=number + 1)]
        case ast.Return(value=ast.expr()) if not isinstance(node.value, ast.Constant):
            return [put(value=ast.Constant(None))]
        case ast.Expr(value=ast.Call()):
            return [put(value=ast.Constant(None))]
        case ast.keyword(value=ast.Name(id=name)) if name.isupper():
            return [put(value=ast.Constant(None))]
        case _:
            return []


def sample(count: int, seed: int, modules: Sequence[str]) -> list[Mutant]:
    """Mutants of all modules, in turn, in random order within each; equivalent ones left out."""
    sources = {module: (ROOT / module).read_text() for module in modules}
    piles = {module: places(source) for module, source in sources.items()}
    for module, pile in piles.items():
        random.Random(f"{seed} {module}").shuffle(pile)
    turns = itertools.zip_longest(*([(module, place) for place in pile] for module, pile in piles.items()))
    every = (mutant(module, sources[module], place) for module, place in filter(None, itertools.chain(*turns)))
    return list(
        itertools.islice((one for one in every if (one.module, one.before, one.after) not in EQUIVALENT), count)
    )


def copied(folder: Path) -> Path:
    """A copy of what the tests need; weights and other large files are linked."""
    for name in COPIED:
        source = ROOT / name
        if source.is_dir():
            ignored = shutil.ignore_patterns("__pycache__", "weights", "results")
            shutil.copytree(source, folder / name, symlinks=True, ignore=ignored)
        else:
            shutil.copy(source, folder / name)
    (folder / "mmif" / "weights").symlink_to(ROOT / "mmif" / "weights")
    return folder


def noticed(folder: Path, tests: Sequence[str], limit: float) -> bool:
    """Do the tests, run in ``folder``, fail or not come to an end?"""
    context = multiprocessing.get_context("forkserver")
    process = context.Process(target=_run, args=(str(folder), [test for test in tests if (ROOT / test).exists()]))
    process.start()
    process.join(limit)
    if process.is_alive():
        process.kill()
        process.join()
    return process.exitcode != 0


def _run(folder: str, tests: list[str]) -> None:
    import pytest

    os.chdir(folder)
    sys.path[:] = [folder, *(path for path in sys.path if path and Path(path) not in (ROOT, ROOT / "tests"))]
    os.environ["PYTHONPATH"] = folder
    sys.dont_write_bytecode = True
    for stream in (1, 2):
        os.dup2(os.open(os.devnull, os.O_WRONLY), stream)
    options = ["-x", "-q", "-p", "no:cacheprovider", "-p", "no:xdist"]
    os._exit(int(pytest.main([*options, *tests])))


def judge(fault: Mutant, folder: Path, tests: Sequence[str], limit: float) -> bool:
    """Is the mutant noticed? The module is as it was afterwards."""
    path = folder / fault.module
    right = path.read_text()
    path.write_text(fault.source)
    try:
        return noticed(folder, tests, limit)
    finally:
        path.write_text(right)


def main(words: list[str] | None = None) -> None:
    """Try a sample, print what survives and the share that does not; exit 1 below ``--least``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("modules", nargs="*", default=list(TESTS), help="default: all that guard")
    parser.add_argument("--count", type=int, default=80)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--processes", type=int, default=2)
    parser.add_argument("--least", type=float, default=0.9, help="share that must be noticed")
    args = parser.parse_args(words)
    multiprocessing.get_context("forkserver").set_forkserver_preload(PRELOADED)
    drawn = sample(args.count, args.seed, args.modules)
    with tempfile.TemporaryDirectory() as name:
        folders = [copied(Path(name) / str(k)) for k in range(args.processes)]
        for folder, module in itertools.product(folders, args.modules):  # as a mutant is written, but for the fault
            (folder / module).write_text(ast.unparse(ast.parse((ROOT / module).read_text())))
        limits = {}
        for tests in {tuple(TESTS[module]) for module in args.modules}:
            start = time.monotonic()
            if noticed(folders[0], tests, 600):
                sys.exit(f"mutants: {' '.join(tests)} must pass before anything is changed, and does not")
            limits[tests] = 30 + 5 * (time.monotonic() - start)
        free = list(folders)

        def attempt(fault: Mutant) -> bool:
            folder, tests = free.pop(), tuple(TESTS[fault.module])
            try:
                return judge(fault, folder, tests, limits[tests])
            finally:
                free.append(folder)

        with ThreadPoolExecutor(args.processes) as pool:
            results = pool.map(attempt, drawn)
            killed = 0
            for fault, found in zip(drawn, results, strict=True):
                killed += found
                if not found:
                    print(f"survives: {fault.module}:{fault.line}: {fault.before}  ->  {fault.after}", flush=True)
    share = killed / max(1, len(drawn))
    print(f"{killed} of {len(drawn)} mutants noticed ({share:.0%}), seed {args.seed}")
    sys.exit(0 if share >= args.least else 1)


if __name__ == "__main__":
    main()
