"""What ptxas says of each kernel: registers, spills, stack, shared memory. Read from the log of ``-Xptxas=-v``.

Usage: python csrc/ptxas_report.py build/ext/ptxas.log
"""

from __future__ import annotations

import re
import sys
from dataclasses import dataclass
from pathlib import Path

_ENTRY = re.compile(r"Compiling entry function '(\S+)' for '(\S+)'")
_STACK = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")
_USED = re.compile(r"Used (\d+) registers")
_SHARED = re.compile(r"(\d+) bytes smem")


@dataclass(frozen=True, slots=True)
class Kernel:
    """One instance of a kernel on one architecture; memory in bytes per thread (stack, spills) or block (shared)."""

    symbol: str
    arch: str
    registers: int
    stack: int
    spills: int
    shared: int

    @property
    def name(self) -> str:
        """Name without namespaces and template arguments."""
        return self._split()[0]

    @property
    def double(self) -> bool:
        """True if double is its first template argument."""
        return self._split()[1].startswith("Id")

    def _split(self) -> tuple[str, str]:
        """The name and what follows it in the mangled symbol, where each name stands behind its own length."""
        found = [(self.symbol, "")]
        for length in re.finditer(r"\d+", self.symbol):
            for start in range(length.start(), length.end()):  # digits of a hash may stand before the length
                end = length.end() + int(self.symbol[start : length.end()])
                if self.symbol[length.end() : end].endswith("_kernel"):
                    found.append((self.symbol[length.end() : end], self.symbol[end:]))
        return min(found, key=lambda parts: len(parts[0]))  # a longer one began inside of a hash


def parse(log: str) -> list[Kernel]:
    """Return every kernel instance that ``log`` tells of."""
    kernels = []
    for part in re.split(r"(?=ptxas info +: Compiling entry function)", log)[1:]:
        entry, stack, used, shared = (pattern.search(part) for pattern in (_ENTRY, _STACK, _USED, _SHARED))
        if not (entry and stack and used):
            raise ValueError(f"the log must have entry, stack and registers of each kernel, got: {part}")
        spills = int(stack[2]) + int(stack[3])
        kernels.append(Kernel(entry[1], entry[2], int(used[1]), int(stack[1]), spills, int(shared[1]) if shared else 0))
    return kernels


def table(kernels: list[Kernel]) -> str:
    """One line per kernel and architecture, the worst of its instances."""
    groups: dict[tuple[str, str], list[Kernel]] = {}
    for kernel in kernels:
        groups.setdefault((kernel.name, kernel.arch), []).append(kernel)
    lines = [f"{'kernel':<32}{'arch':<9}{'instances':>9}{'registers':>11}{'spills':>8}{'shared':>8}"]
    for (name, arch), members in sorted(groups.items()):
        worst = [max(getattr(k, field) for k in members) for field in ("registers", "spills", "shared")]
        lines.append(f"{name:<32}{arch:<9}{len(members):>9}{worst[0]:>11}{worst[1]:>8}{worst[2]:>8}")
    return "\n".join(lines)


if __name__ == "__main__":
    print(table(parse("".join(Path(path).read_text() for path in sys.argv[1:]))))
