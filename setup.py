"""The compiled extension ``mmif._C`` and nothing else; everything about the package is in pyproject.toml.

``csrc/*.cpp`` are bindings and CPU bodies, ``csrc/*.cu`` kernels and their launchers. A binding that launches a kernel
is named like the kernel's file (``bias_act.cpp``, ``bias_act.cu``) and left out where CUDA is left out.

Environment: ``MMIF_CUDA`` = auto (CUDA if nvcc is found), 0 (never) or 1 (an error without nvcc);
``TORCH_CUDA_ARCH_LIST`` and ``MAX_JOBS`` as PyTorch reads them; ``CUDA_HOME``, ``CXX``.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import re
import shlex
import shutil
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from setuptools import Extension, setup
from setuptools.command.build_ext import build_ext

CSRC = Path(__file__).parent / "csrc"
CXX = shlex.split(os.environ.get("CXX") or shutil.which("g++") or shutil.which("c++") or "")  # may be `ccache g++`
ARCHS = ("80", "86", "89", "90a", "100", "120")  # machine code for each, and PTX of the last for what comes later
# NaN keeps its meaning, but errno and floating-point traps do not: without that nothing here vectorises.
CXX_FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math", "-Wall"]
NVCC_FLAGS = [
    "-std=c++17",
    "-O3",
    "-lineinfo",
    "-Xfatbin=-compress-all",
    "-Xcompiler=-fPIC,-fvisibility=hidden",
    "-Xptxas=-v",
]
TORCH_TARGET = "0x020b000000000000"  # 2.11: the oldest torch that loads the library


def why_not() -> str | None:
    """Why nothing can be compiled here, or None; cheap, because every command of setuptools runs it."""
    if not CXX:
        return "no C++ compiler was found (install g++ or set CXX)"
    if importlib.util.find_spec("torch") is None:
        return "torch is not installed in the building environment (pip install --no-build-isolation)"
    return None


def torch_home() -> Path:
    """The folder of the torch package, without importing it."""
    spec = importlib.util.find_spec("torch")
    assert spec is not None  # why_not() said so
    assert spec.origin is not None
    return Path(spec.origin).parent


def cuda_home() -> Path | None:
    """The toolkit that CUDA_HOME names, or the one of the nvcc on PATH; None if MMIF_CUDA or the machine says no."""
    wanted = os.environ.get("MMIF_CUDA", "auto")
    if wanted not in ("auto", "0", "1"):
        raise SystemExit(f"build_ext: MMIF_CUDA must be auto, 0 or 1, got {wanted!r}")
    if wanted == "0":
        print("build_ext: CUDA left out, MMIF_CUDA=0")
        return None
    named, found = os.environ.get("CUDA_HOME"), shutil.which("nvcc")
    home = Path(named) if named else toolkit_of(found) if found else None
    if home and (home / "bin" / "nvcc").exists():
        return home
    reason = f"no nvcc in CUDA_HOME={named}" if named else "nvcc is not on PATH and CUDA_HOME is not set"
    if wanted == "1":
        raise SystemExit(f"build_ext: MMIF_CUDA=1 needs the CUDA toolkit, but {reason}")
    print(f"build_ext: CUDA left out, {reason}")
    return None


def toolkit_of(nvcc: str) -> Path:
    """Where the toolkit of ``nvcc`` lies; asked of nvcc itself, because what is on PATH may be a link or a script."""
    found = re.search(r"^#\$ TOP=(.*)$", run([nvcc, "--dryrun", "-c", "x.cu"]), re.MULTILINE)
    if found is None:
        raise SystemExit(f"build_ext: {nvcc} does not tell where its toolkit is; set CUDA_HOME")
    return Path(found[1]).resolve()


def gencodes(nvcc: Path) -> list[str]:
    """Flags for the architectures of TORCH_CUDA_ARCH_LIST (such as ``8.0;9.0a+PTX``), else those of ARCHS."""
    listed = os.environ.get("TORCH_CUDA_ARCH_LIST")
    if listed:
        entries = [entry.replace(".", "") for entry in re.split(r"[;, ]+", listed) if entry]
        if not all(re.fullmatch(r"\d+[af]?(\+PTX)?", entry) for entry in entries):
            raise SystemExit(f"build_ext: TORCH_CUDA_ARCH_LIST must look like '8.0;9.0a+PTX', got {listed!r}")
        codes = [entry.removesuffix("+PTX") for entry in entries]
        ptx = [entry.removesuffix("+PTX") for entry in entries if entry.endswith("+PTX")]
    else:
        known = subprocess.run([nvcc, "--list-gpu-code"], capture_output=True, text=True, check=True).stdout.split()
        codes = [arch for arch in ARCHS if f"sm_{arch.rstrip('a')}" in known]
        ptx = codes[-1:]
    flags = [f"-gencode=arch=compute_{code},code=sm_{code}" for code in codes]
    return flags + [f"-gencode=arch=compute_{code},code=compute_{code}" for code in ptx]


def jobs() -> int:
    """How many compilers run at once: MAX_JOBS, or as many as there are processors."""
    given = os.environ.get("MAX_JOBS") or str(os.cpu_count() or 1)
    if not given.isdecimal() or int(given) < 1:
        raise SystemExit(f"build_ext: MAX_JOBS must be a number from 1 on, got {given!r}")
    return int(given)


def run(command: list[str]) -> str:
    """Run a compiler; its messages end the build if it fails, and are returned if not."""
    try:
        done = subprocess.run(command, capture_output=True, text=True, check=False)
    except OSError as error:
        raise SystemExit(f"build_ext: the compiler {command[0]!r} cannot be run ({error.strerror}); see CXX") from None
    if done.returncode:
        raise SystemExit(f"build_ext: this command failed:\n{' '.join(command)}\n{done.stdout}{done.stderr}")
    return done.stdout + done.stderr


class BuildExtension(build_ext):
    """Compile csrc/ with the C++ compiler and nvcc themselves: no GPU and no CUDA build of torch is needed."""

    def finalize_options(self) -> None:
        """Keep objects in one place, also where pip builds in temporary folders."""
        named = self.build_temp is not None
        super().finalize_options()
        if not named:
            self.build_temp = str(CSRC.parent / "build" / "ext")

    def run(self) -> None:
        """Build, or say in one line why there is nothing to build."""
        reason = why_not()
        if reason and os.environ.get("MMIF_CUDA") == "1":
            raise SystemExit(f"build_ext: MMIF_CUDA=1, but {reason}")
        if reason:
            print(f"build_ext: nothing was compiled, {reason}; the ops run in PyTorch")
        super().run()

    def build_extension(self, ext: Extension) -> None:
        """Compile what has changed, in parallel, and link."""
        home, torch_dir = cuda_home(), torch_home()
        nvcc = home / "bin" / "nvcc" if home else None
        cuda_sources = sorted(CSRC.glob("*.cu")) if home else []
        cpp = [p for p in sorted(CSRC.glob("*.cpp")) if home or not p.with_suffix(".cu").exists()]
        codes = gencodes(nvcc) if nvcc else []
        defines = [f"-DTORCH_TARGET_VERSION={TORCH_TARGET}"]
        if nvcc:
            version = run([str(nvcc), "--version"]).split("release ")[1].split(",")[0]
            built_for = " ".join([version, *(code.rpartition("_")[2] for code in codes if "code=sm" in code)])
            defines.append(f"-DMMIF_WITH_CUDA={built_for}")
        cxx = [*CXX, *CXX_FLAGS, *defines, "-isystem", str(torch_dir / "include")]
        processes = jobs()
        threads = max(1, processes // max(1, len(cuda_sources)))
        commands = [([str(nvcc), *NVCC_FLAGS, *codes], p, [f"--threads={threads}"]) for p in cuda_sources]
        commands += [(cxx, p, []) for p in cpp]
        with ThreadPoolExecutor(processes) as pool:
            objects = list(pool.map(lambda job: self.compile_one(*job), commands))
        if nvcc:
            self.report(objects)
        target = Path(self.get_ext_fullpath(ext.name))
        target.parent.mkdir(parents=True, exist_ok=True)
        libraries = [f"-L{torch_dir / 'lib'}", "-ltorch_cpu", "-lc10"]
        if home:
            lib = next(path for name in ("lib64", "lib") if (path := home / name / "libcudart_static.a").exists())
            libraries += [str(lib), "-ldl", "-lrt", "-lpthread"]
        # To a temporary name first: a process that has the old library open keeps it.
        partial = target.with_suffix(".partial")
        run([*CXX, "-shared", "-s", *map(str, objects), *libraries, "-Wl,--exclude-libs,ALL", "-o", str(partial)])
        partial.replace(target)

    def compile_one(self, command: list[str], source: Path, extra: list[str]) -> Path:
        """Compile one source; the object's name holds a hash of all that went into it, so that it is reused."""
        seed = hashlib.sha256(repr(command).encode())
        for path in [source, *sorted(CSRC.glob("*.h"))]:
            seed.update(path.read_bytes())
        output = Path(self.build_temp) / f"{source.name}-{seed.hexdigest()[:16]}.o"
        if not output.exists():
            if self.distribution.verbose:
                print(f"build_ext: {source.name}", flush=True)
            output.parent.mkdir(parents=True, exist_ok=True)
            partial = output.with_suffix(".partial")
            messages = run([*command, *extra, "-c", str(source), "-o", str(partial)])
            output.with_suffix(".log").write_text(messages)
            partial.replace(output)
        return output

    def report(self, objects: list[Path]) -> None:
        """Keep what ptxas said of every kernel, and print the table unless told to be quiet."""
        logs = "".join(path.with_suffix(".log").read_text() for path in objects if ".cu-" in path.name)
        (Path(self.build_temp) / "ptxas.log").write_text(logs)
        if self.distribution.verbose:
            sys.path.insert(0, str(CSRC))
            import ptxas_report  # pyright: ignore[reportMissingImports] - found just now

            print(ptxas_report.table(ptxas_report.parse(logs)))


# In place: an editable checkout finds mmif/_C*.so, and wheels contain it all the same.
options: dict[str, dict[str, str]] = {"build_ext": {"inplace": "true"}}
extensions: list[Extension] = []
if why_not() is None:
    extensions.append(
        Extension(
            "mmif._C", [p.relative_to(CSRC.parent).as_posix() for p in sorted(CSRC.glob("*.c*"))], py_limited_api=True
        )
    )
    options["bdist_wheel"] = {"py_limited_api": "cp311"}
setup(cmdclass={"build_ext": BuildExtension}, ext_modules=extensions, options=options)
