"""This machine: which device to take, what is installed and what is missing, and where a number was measured."""

from __future__ import annotations

import datetime
import platform
import re
import subprocess
from collections.abc import Iterable
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import torch

DISTRIBUTION = "mminvertfill"  # ours, in whose environment another package called mmif cannot live
# What is shown -> the distributions that provide it, the first installed one counts.
_PROVIDERS = {
    "torch": ("torch",),
    "triton": ("triton",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "tensorrt": ("tensorrt", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13"),
}
# Those whose version can change a number.
MEASURED_WITH = ("torch", "numpy", "pillow", "opencv-python-headless", "pypatchmatch", "stlpips-pytorch")


def pick_device(name: str | torch.device | None = None) -> torch.device:
    """The device that is meant by ``auto`` (or None: a GPU if torch sees one), ``cpu``, ``cuda`` or ``cuda:N``.

    Raises:
        ValueError: another name, or a device that torch does not see.
    """
    import torch

    if name is None or str(name).lower() == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name.lower() if isinstance(name, str) else name)
    except (RuntimeError, TypeError):
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"the device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"torch sees {torch.cuda.device_count()} CUDA devices, so there is no {name}; use cpu")
    return device


def device_name(device: torch.device) -> str:
    """What to call a device in a report: the model of a GPU, else ``cpu``."""
    import torch

    return torch.cuda.get_device_name(device) if device.type == "cuda" else str(device)


def version(distribution: str) -> str | None:
    """Version of an installed distribution, or None."""
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def versions() -> dict[str, str | None]:
    """Versions of Python, of this package and of what can run it; None: not installed."""
    found = {name: map(version, distributions) for name, distributions in _PROVIDERS.items()}
    ours = {"python": platform.python_version(), "mmif": version(DISTRIBUTION)}
    return ours | {name: next(filter(None, installed), None) for name, installed in found.items()}


def missing_extras() -> dict[str, list[str]]:
    """The extras that are not complete here, each with the distributions it lacks."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}  # a checkout that was never installed declares none
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name and extra and version(name[0]) is None:
            missing.setdefault(extra[1], []).append(name[0])
    return missing


def install_line(extra: str) -> str:
    """What to type to install an extra: a checkout is installed from its own folder, no index needs to know it."""
    checkout = (Path(__file__).parents[1] / "pyproject.toml").is_file()
    return f"pip install {'-e ' if checkout else ''}'{'.' if checkout else DISTRIBUTION}[{extra}]'"


def clashes() -> list[str]:
    """One line for each other distribution here that also installs an import package called ``mmif``."""
    owners = {re.sub(r"[-_.]+", "-", name).lower() for name in metadata.packages_distributions().get("mmif", [])}
    owners |= {"mmif-python"} if version("mmif-python") else set()
    return [
        f"{name} also installs an import package called mmif: keep it and {DISTRIBUTION} in two environments"
        for name in sorted(owners - {DISTRIBUTION})
    ]


def provenance(distributions: Iterable[str] = MEASURED_WITH) -> dict[str, Any]:
    """When, with which code and on what machine: date, commit, versions, processor, threads."""
    import torch

    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": commit(),
        "versions": {
            "python": platform.python_version(),
            **{name: version(name) for name in (DISTRIBUTION, *distributions)},
        },
        "platform": platform.platform(),
        "cpu": processor(),
        "threads": torch.get_num_threads(),
    }


def commit() -> str | None:
    """Commit of the checkout that this file lies in, with ``-dirty`` if its files differ; None where nobody can say.

    Untracked files do not count, nor do the results of benchmarks, which each run replaces.
    """
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # installed: git would find whatever repository the environment lies in
        return None
    name = output("git", "-C", root, "describe", "--always", "--abbrev=12")
    changes = output(
        *("git", "--no-optional-locks", "-C", root, "status", "--porcelain", "--untracked-files=no"),
        *("--", ".", ":(exclude)benchmarks/results"),
    )
    return None if name is None or changes is None else f"{name}-dirty" if changes else name


def output(*command: str | Path) -> str | None:
    """What a program prints; None if it is not there, fails, or takes longer than ten seconds."""
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def processor() -> str:
    """The model of the processor."""
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor() or platform.machine()
