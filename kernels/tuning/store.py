"""What was measured, kept on disk: one JSON file for each device, its versions and the kernels' sources.

The folder is ``MMIF_CACHE_DIR``, else ``mmif`` / ``tuned`` in the user's cache, else there is none. A file is read once
in a process, lazily; it is written as a whole and merged with what other processes wrote meanwhile. Nothing here ever
stops a computation: what cannot be read counts as empty, what cannot be written is kept in memory, and one warning says
so.
"""

from __future__ import annotations

import fcntl
import functools
import hashlib
import json
import logging
import os
import re
import tempfile
import threading
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import torch

logger = logging.getLogger(__name__)

Key = tuple[str | int, ...]
PACKAGE = Path(__file__).parents[1]  # mmif.kernels


@dataclass(frozen=True)
class Config:
    """One way to run a kernel."""

    warps: int
    stages: int
    blocks: tuple[tuple[str, int], ...]  # constexpr arguments of the kernel, such as (("BLOCK_M", 64), ("BLOCK_N", 64))

    @property
    def options(self) -> dict[str, int]:
        """What the compiler takes beside the arguments of a kernel."""
        return {"num_warps": self.warps, "num_stages": self.stages}

    @property
    def kwargs(self) -> dict[str, int]:
        """What ``kernel[grid](..., **config.kwargs)`` takes."""
        return {**dict(self.blocks), **self.options}

    def __str__(self) -> str:
        return " ".join(f"{name}={value}" for name, value in self.kwargs.items())


@dataclass(frozen=True)
class Choice:
    """The fastest way that was found, None for the reference, and why the others were not taken."""

    config: Config | None
    ms: float | None  # of the fastest configuration; None where none serves
    reference_ms: float | None  # None where the reference does not run, for lack of memory
    dropped: dict[str, str] = field(default_factory=dict)  # configuration -> reason

    def describe(self) -> str:
        """In words, for a log and a record."""
        times = [f"{name} {ms:.3g} ms" for name, ms in (("kernel", self.ms), ("reference", self.reference_ms)) if ms]
        lost = f"; {len(self.dropped)} dropped" if self.dropped else ""
        return f"{self.config or 'reference'} ({', '.join(times)}{lost})"


class Store:
    """The choices of one device: a dictionary in memory, behind it a file or, without a path, nothing."""

    def __init__(self, path: Path | None) -> None:
        self.path = path
        self._lock = threading.Lock()
        self._choices = {} if path is None else _read(path)

    def get(self, op: str, key: Key) -> Choice | None:
        return self._choices.get((op, key))

    def items(self) -> list[tuple[tuple[str, Key], Choice]]:
        return list(self._choices.items())

    def put(self, op: str, key: Key, choice: Choice) -> None:
        with self._lock:
            self._choices[op, key] = choice
            try:
                if self.path is None:
                    raise FileNotFoundError("this user has no home; set MMIF_CACHE_DIR to a folder")
                self.path.parent.mkdir(parents=True, exist_ok=True)
                with self.path.with_suffix(".lock").open("w") as lock:
                    fcntl.flock(lock, fcntl.LOCK_EX)  # between reading and replacing nobody else may replace
                    self._choices = _read(self.path) | self._choices
                    _write(self.path, self._choices)
            except OSError as error:
                _warn_once(f"tuned kernels cannot be stored, they are measured again next time: {error}")


def folder() -> Path | None:
    """Where the files lie, or None: a folder that everybody may write to, such as ``/tmp``, is no place for them."""
    given = os.environ.get("MMIF_CACHE_DIR")
    if given:
        return Path(given)
    places = (os.environ.get("XDG_CACHE_HOME", ""), os.path.expanduser("~/.cache"))  # relative ones do not count
    return next((Path(place, "mmif", "tuned") for place in places if os.path.isabs(place)), None)


def file_name(device: torch.device) -> str:
    """Name of the file of one device: all that a measurement depends on."""
    import triton

    major, minor = torch.cuda.get_device_capability(device)
    parts = (
        torch.cuda.get_device_name(device),
        f"sm{major}{minor}",
        f"driver{_driver()}",
        f"torch{torch.__version__}",
        f"triton{triton.__version__}",
        sources(PACKAGE),
    )
    return "_".join(re.sub(r"[^A-Za-z0-9.]+", "-", part) for part in parts) + ".json"


def sources(package: Path) -> str:
    """A hash of the kernels' sources: a changed kernel is measured again."""
    digest = hashlib.sha256()
    for path in sorted(package.rglob("*.py")):
        digest.update(path.relative_to(package).as_posix().encode() + path.read_bytes())
    return digest.hexdigest()[:12]


def _driver() -> str:
    path = Path("/sys/module/nvidia/version")
    return path.read_text().strip() if path.exists() else "unknown"


def _read(path: Path) -> dict[tuple[str, Key], Choice]:
    try:
        entries = json.loads(path.read_text())["entries"]
        return {(entry["op"], tuple(entry["key"])): _choice(entry) for entry in entries}
    except (FileNotFoundError, NotADirectoryError):
        return {}
    except (OSError, ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        _warn_once(f"{path} cannot be read, its kernels are measured again: {type(error).__name__}: {error}")
        return {}


def _choice(entry: dict[str, Any]) -> Choice:
    config = entry["config"]
    if config is not None:
        config = Config(config["warps"], config["stages"], tuple((name, value) for name, value in config["blocks"]))
    choice = Choice(config, entry["ms"], entry["reference_ms"], dict(entry["dropped"]))
    times = [t for t in (choice.ms, choice.reference_ms) if t is not None]
    if not all(isinstance(t, float) for t in times) or not all(isinstance(t, str) for t in choice.dropped.values()):
        raise ValueError(f"times must be numbers and reasons text, got {entry}")
    if config is None and len(times) == 1 and choice.ms is not None:
        raise ValueError(f"the reference must have a time where a kernel lost to it, got {entry}")
    return choice


def _write(path: Path, choices: dict[tuple[str, Key], Choice]) -> None:
    entries = [{"op": op, "key": key, **asdict(choice)} for (op, key), choice in choices.items()]
    handle, name = tempfile.mkstemp(prefix=path.stem, suffix=".tmp", dir=path.parent)
    try:
        with os.fdopen(handle, "w") as file:
            json.dump({"entries": entries}, file, indent=1)
        os.replace(name, path)
    except OSError:
        os.unlink(name)
        raise


@functools.cache
def _warn_once(message: str) -> None:
    logger.warning(message)
