"""Compile csrc/ for the CPU emulation: the kernels as C++, the bindings as they are, one library.

Usage: pytest tests/ops --extension "$(python tests/csrc/emulation/build.py)"
"""

from __future__ import annotations

import argparse
import functools
import hashlib
import os
import re
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import torch

HERE = Path(__file__).resolve().parent
CSRC = HERE.parents[2] / "csrc"
CACHE = HERE.parents[2] / "build" / "emulation"
TORCH = Path(torch.__file__).parent
CXX_FLAGS = ("-std=c++17", "-O1", "-g1", "-fPIC", "-fvisibility=hidden")
DEFINES = ("-DMMIF_EMULATE", "-DTORCH_TARGET_VERSION=0x020b000000000000")
SANITIZE = ("-O0", "-fsanitize=address,undefined", "-fno-sanitize-recover=undefined", "-fno-omit-frame-pointer")
PLAIN, SANITIZED = "_C_emulated.so", "_C_sanitized.so"  # names of the library


class BuildError(RuntimeError):
    """The compiler is missing or refused a source; the message holds what it said."""


@functools.cache
def compiler() -> tuple[str, str]:
    """Return the path of g++ and what it says of its version."""
    path = shutil.which("g++")
    if path is None:
        raise BuildError(
            "the emulation needs a C++ compiler, and g++ is not on PATH; install it (Debian: apt-get install g++)"
        )
    return path, _run([path, "--version"])


def bindings(csrc: Path = CSRC) -> list[Path]:
    """Return the C++ sources that check arguments and launch kernels; bodies for the CPU itself are none."""
    return [path for path in sorted(csrc.glob("*.cpp")) if not path.stem.endswith("_cpu")]


def library(csrc: Path = CSRC, *, sanitize: bool = False) -> Path:
    """Return the emulated extension for the sources in ``csrc``, built unless the cache has it.

    Args:
        csrc: folder of the sources.
        sanitize: kernels and emulation watch themselves with AddressSanitizer and UndefinedBehaviorSanitizer.
    """
    checks = SANITIZE if sanitize else ()
    jobs = [(path, checks) for path in sorted(csrc.glob("*.cu"))]
    jobs += [(HERE / "emulation.cpp", checks), *((path, ()) for path in bindings(csrc))]
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        objects = list(pool.map(lambda job: _object(job[0], csrc, job[1]), jobs))
    torch_libraries = (f"-L{TORCH / 'lib'}", "-ltorch_cpu", "-lc10")
    return _link(objects, SANITIZED if sanitize else PLAIN, ("-shared", *checks, *torch_libraries))


def environment(library: Path) -> dict[str, str]:
    """Return the variables that a Python needs to load ``library``."""
    if library.name != SANITIZED:
        return {}
    # The sanitizers' runtime must come before all else, and looks at once for functions of libstdc++.
    paths = [_run([compiler()[0], f"-print-file-name={name}"]).strip() for name in ("libasan.so", "libstdc++.so")]
    return {"LD_PRELOAD": " ".join(paths), "ASAN_OPTIONS": "detect_leaks=0", "UBSAN_OPTIONS": "print_stacktrace=1"}


def program(source: Path, *, defines: tuple[str, ...] = ()) -> Path:
    """Return the executable of one source that launches kernels of its own."""
    return _link([_object(path, CSRC, defines) for path in (source, HERE / "emulation.cpp")], source.stem, ())


def _object(source: Path, csrc: Path, flags: tuple[str, ...]) -> Path:
    command = [compiler()[0], *CXX_FLAGS, *DEFINES, *flags]
    key = _hash(*command, compiler()[1], torch.__version__, *(p.read_bytes() for p in _with_headers(source, csrc)))
    includes = ["-isystem", str(TORCH / "include"), f"-I{csrc}", f"-I{HERE}"]
    output = CACHE / f"{source.name}-{key}.o"
    return _made(output, [*command, *includes, "-c", "-x", "c++", str(source)])


def _with_headers(source: Path, csrc: Path) -> list[Path]:
    """Return the source and all of our own that it includes."""
    found = [source]
    for path in found:
        names = re.findall(r'^#include "(.+)"', path.read_text(), re.MULTILINE)
        included = [folder / name for name in names for folder in (csrc, HERE) if (folder / name).exists()]
        found += [header for header in included if header not in found]
    return found


def _link(objects: list[Path], name: str, flags: tuple[str, ...]) -> Path:
    output = CACHE / _hash(*flags, *(path.name for path in objects)) / name
    return _made(output, [compiler()[0], *map(str, objects), *flags])


def _made(output: Path, command: list[str]) -> Path:
    """Run a command that makes ``output``, unless it is there; other processes see all of it or nothing."""
    if not output.exists():
        output.parent.mkdir(parents=True, exist_ok=True)
        partial = output.with_name(f"{output.name}.{os.getpid()}")
        _run([*command, "-o", str(partial)])
        partial.replace(output)
    return output


def _run(command: list[str]) -> str:
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise BuildError(f"this command failed:\n{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout


def _hash(*parts: str | bytes) -> str:
    seed = hashlib.sha256()
    for part in parts:
        seed.update(hashlib.sha256(part.encode() if isinstance(part, str) else part).digest())
    return seed.hexdigest()[:16]


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sanitize", action="store_true", help="with AddressSanitizer and UndefinedBehaviorSanitizer")
    built = library(sanitize=parser.parse_args().sanitize)
    print(built)
    for name, value in environment(built).items():
        print(f'export {name}="{value}"', file=sys.stderr)
