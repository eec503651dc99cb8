"""What the compiler makes of every kernel, without a GPU: ``python -m mmif.kernels.report``.

Each configuration is compiled for each architecture with Triton's own tools, and one row tells what it would take of a
multiprocessor and how it computes and copies. The exit code is 1 if one does not compile, needs more shared memory than
a block can have, or is hot and spills or does without tensor cores.
"""

from __future__ import annotations

import argparse
import functools
import importlib
import json
import multiprocessing
import os
import re
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import triton
from triton import knobs
from triton.backends.compiler import GPUTarget
from triton.compiler import ASTSource

from .tuning import Specimen

SHARED_LIMITS = {80: 163, 86: 99, 87: 163, 89: 99, 90: 227, 100: 227, 103: 227, 120: 99}  # KiB of one block
ARCHITECTURES = (80, 90, 100)
PACKAGE = Path(__file__).parent
KINDS = {
    "mma": r"HG?MMA|IG?MMA|QG?MMA|OMMA|UTC\w*MMA",  # tensor cores
    "async_copies": r"LDGSTS|UTMALDG|UBLKCP",
    "local_loads": "LDL",
    "local_stores": "STL",
}
COLUMNS = ("arch", "seconds", "registers", "stack", "shared", *KINDS)
WIDTH = 14


@dataclass(frozen=True)
class Row:
    """One compiled kernel; memory in bytes, the rest are numbers of registers a thread and of instructions."""

    kernel: str
    config: str
    arch: int
    hot: bool
    seconds: float = 0.0  # to compile; next to nothing where Triton has it in its cache
    registers: int = 0
    stack: int = 0
    shared: int = 0
    mma: int = 0
    async_copies: int = 0
    local_loads: int = 0
    local_stores: int = 0
    error: str | None = None  # why it does not compile

    def faults(self) -> list[str]:
        """What must not be."""
        if self.error:
            return [f"does not compile: {self.error}"]
        limit = 1024 * SHARED_LIMITS[self.arch]
        spills = self.stack or self.local_loads or self.local_stores
        found = {
            f"shared memory must be <= {limit} bytes, got {self.shared}": self.shared > limit,
            f"spills: {self.stack} bytes of stack, {self.local_loads} loads, {self.local_stores} stores": (
                self.hot and spills
            ),
            "has no tensor-core instruction": self.hot and not self.mma,
        }
        return [fault for fault, there in found.items() if there]


def compiled(specimen: Specimen, arch: int) -> Row:
    """Compile for an architecture and look at the machine code."""
    row = functools.partial(Row, specimen.name, str(specimen.config), arch, specimen.hot)
    start = time.perf_counter()
    try:
        kernel = triton.compile(
            _source(specimen),
            target=GPUTarget("cuda", arch, 32),
            options=specimen.config.options,
        )
    except Exception as error:  # whatever a compiler may raise: the other rows still count
        return row(error=" ".join(f"{type(error).__name__}: {error}".split()))
    seconds = round(time.perf_counter() - start, 1)
    return row(seconds, shared=kernel.metadata.shared, **_resources(kernel.asm["cubin"]))


def _source(specimen: Specimen) -> ASTSource:
    names = specimen.fn.arg_names
    known = {**dict(specimen.config.blocks), **specimen.constexprs}
    arguments = {name: known[name] if name in known else specimen.signature[name] for name in names}
    constant: dict[tuple[int, ...], Any] = {
        (names.index(name),): value for name, value in known.items() if name in names
    }
    aligned: dict[tuple[int, ...], Any] = {}
    for name in arguments.keys() - known.keys():
        for path, leaf in leaves(arguments[name], (names.index(name),)):
            if not isinstance(leaf, str):
                constant[path] = leaf
            elif name in specimen.aligned:
                aligned[path] = [["tt.divisibility", 16]]
    signature = {name: "constexpr" if name in known else _typed(value) for name, value in arguments.items()}
    return ASTSource(fn=specimen.fn, signature=signature, constexprs=constant, attrs=aligned)


def leaves(value: Any, path: tuple[int, ...] = ()) -> Iterator[tuple[tuple[int, ...], Any]]:
    """What a tree of tuples holds, each with its path from the root."""
    if not isinstance(value, tuple):
        yield path, value
        return
    for i, each in enumerate(value):
        yield from leaves(each, (*path, i))


def _typed(value: Any) -> Any:
    """The types of an argument, in tuples as the argument; what is no type is known when the kernel is compiled."""
    if isinstance(value, tuple):
        return tuple(map(_typed, value))
    return value if isinstance(value, str) else "constexpr"


def _resources(cubin: bytes) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "kernel.cubin"
        path.write_bytes(cubin)
        usage = _tool("cuobjdump", "-res-usage", path)
        code = _tool("nvdisasm", "-c", path)
    found = re.search(r"REG:(\d+) STACK:(\d+)", usage)
    assert found, usage
    opcodes = Counter(re.findall(r"^\s*/\*[0-9a-f]+\*/\s+(?:@!?\w+\s+)?([A-Z][A-Z0-9_]*)", code, re.MULTILINE))
    counts = {name: sum(n for op, n in opcodes.items() if re.fullmatch(ops, op)) for name, ops in KINDS.items()}
    return {"registers": int(found[1]), "stack": int(found[2]), **counts}


def _tool(name: str, *arguments: str | Path) -> str:
    path = getattr(knobs.nvidia, name).path
    return subprocess.run([path, *arguments], capture_output=True, text=True, check=True).stdout


def modules() -> list[str]:
    """Names of the modules that hold kernels, such as ``acb.mix``."""
    files = [path for path in sorted(PACKAGE.rglob("*.py")) if "\ndef specimens(" in path.read_text()]
    return [".".join(path.relative_to(PACKAGE).with_suffix("").parts) for path in files]


def first_of_each(specimens: Iterable[Specimen]) -> list[Specimen]:
    """The first configuration for each kernel and types of its arguments."""
    found: dict[tuple[str, str], Specimen] = {}
    for specimen in specimens:
        found.setdefault((specimen.fn.__name__, str(specimen.signature)), specimen)
    return list(found.values())


def rows(specimens: Iterable[tuple[Specimen, int]]) -> Iterator[Row]:
    """Compile each specimen for its architecture, on all cores; what compiles to the same counts once."""
    once: dict[str, tuple[Specimen, int]] = {}
    for specimen, arch in specimens:
        parts = (specimen.fn.__name__, specimen.signature, specimen.constexprs, specimen.config, specimen.aligned)
        once.setdefault(f"{arch} {specimen.hot} {parts}", (specimen, arch))
    _work[:] = once.values()
    with multiprocessing.get_context("fork").Pool(len(os.sched_getaffinity(0))) as pool:
        yield from pool.imap(_compile, range(len(_work)))


_work: list[tuple[Specimen, int]] = []  # inherited by the processes of the pool: kernels cannot be pickled


def _compile(index: int) -> Row:
    return compiled(*_work[index])


def show(found: Iterable[Row]) -> list[Row]:
    """Print a line for each row as it comes, what is wrong below it."""
    print("".join(f"{name.replace('_', ' '):>{WIDTH}}" for name in COLUMNS), " kernel, configuration")
    shown = []
    for row in found:
        numbers = "".join(f"{getattr(row, name):>{WIDTH}}" for name in COLUMNS)
        print(f"{numbers}  {row.kernel}, {row.config}", *(f"  FAULT: {fault}" for fault in row.faults()), sep="\n")
        shown.append(row)
    return shown


def main(argv: Sequence[str] | None = None) -> int:
    """Print the table; return 0, 1 where a row has a fault, or 2 where the request makes no sense."""
    parser = argparse.ArgumentParser(prog="python -m mmif.kernels.report", description=__doc__)
    parser.add_argument("--arch", default=",".join(map(str, ARCHITECTURES)), help="default: %(default)s")
    parser.add_argument("--op", help="only this module of mmif.kernels")
    parser.add_argument("--first", action="store_true", help="only one configuration for each kernel and dtype")
    parser.add_argument("--json", type=Path, help="also write the rows to this file")
    args = parser.parse_args(argv)
    try:
        archs = _architectures(args.arch)
        if args.json and not args.json.parent.is_dir():
            raise ValueError(f"--json must name a file in a folder that exists; got {str(args.json)!r}")
        modules, some = _chosen(args.op), first_of_each if args.first else list
        found = show(rows((s, arch) for module in modules for arch in archs for s in some(module.specimens(arch))))
        if args.json:
            facts = [asdict(row) | {"faults": row.faults()} for row in found]
            args.json.write_text(json.dumps({"triton": triton.__version__, "rows": facts}, indent=1))
    except (ValueError, OSError) as error:
        print(f"{parser.prog}: error: {error}", file=sys.stderr)
        return 2
    wrong = sum(bool(row.faults()) for row in found)
    print(f"{len(found)} compiled with Triton {triton.__version__}, {wrong} with faults")
    return 1 if wrong else 0


def _architectures(text: str) -> list[int]:
    known = ", ".join(map(str, SHARED_LIMITS))
    if not re.fullmatch(r"\d+(,\d+)*", text) or not {int(arch) for arch in text.split(",")} <= SHARED_LIMITS.keys():
        raise ValueError(f"--arch must be some of {known}, separated by commas; got {text!r}")
    return [int(arch) for arch in text.split(",")]


def _chosen(op: str | None) -> list[ModuleType]:
    if os.environ.get("TRITON_INTERPRET", "0") != "0":
        raise ValueError("TRITON_INTERPRET must not be set, the interpreter compiles nothing; run again without it")
    known = modules()
    if op is not None and op not in known:
        raise ValueError(f"--op must be one of {', '.join(known)}; got {op!r}")
    return [importlib.import_module(f".{name}", __package__) for name in known if op in (None, name)]


if __name__ == "__main__":
    raise SystemExit(main())
