"""Files: written whole or not at all, read within bounds, hashed, and one run at a time in a folder.

Every file of this project is written through :func:`writing`, :func:`write` or :func:`write_json`: under a random name
in the folder of its target, never through a link, flushed to the disk, then renamed. A writer holds a lock on its
unfinished file, so that the next one can tell what a killed process left behind from what is being written, and removes
the former. Only a log grows in place.
"""

from __future__ import annotations

import fcntl
import hashlib
import io
import json
import math
import os
import secrets
import stat
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any, NoReturn

_WANTED = "must be a file in a folder that exists and can be written to"
_UNFINISHED = ".{name}.{token}.part"
_LONGEST = 180  # bytes of a name that its unfinished file repeats: a file system allows 255 in all
_YOUNG = 60.0  # seconds in which a file may be made and not locked yet
_cleaned: dict[Path, float] = {}  # when this process last looked for what others left there, by the monotonic clock
_MOST_JSON = 64 * 2**20  # bytes; a packed set of a million photographs has a smaller manifest


class _Unfinished(io.FileIO):
    """A new file that remembers why it could not be written: PyTorch and others tell it as an error of their own."""

    failure: OSError | None = None

    def write(self, data: Any, /) -> int:
        try:
            return super().write(data)
        except OSError as error:
            self.failure = self.failure or error
            raise


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes; the file appears, or is replaced, when the block ends without an error.

    Raises:
        ValueError: ``path`` is a folder, a device or a pipe.
        OSError: the folder is missing or read-only, or the disk is full; what was at ``path`` is untouched.
    """
    path = Path(path)
    _check_replaceable(path)
    _clean(path.parent)
    raw = _create(path)
    try:
        with io.BufferedWriter(raw) as file:
            with suppress(OSError):  # some network file systems have no locks: then nothing is cleaned up there
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(str(raw.name), path)
        _sync_folder(path.parent)
    except BaseException as error:
        Path(str(raw.name)).unlink(missing_ok=True)
        if isinstance(error, Exception) and raw.failure is not None:
            _refuse(path, raw.failure)
        if isinstance(error, OSError) and error.filename in (None, raw.name):  # not one of a file read in the block
            _refuse(path, error)
        raise


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file; text becomes UTF-8. See :func:`writing`."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write strict JSON (no NaN), indented, with a newline at the end."""
    write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def read_json(path: str | os.PathLike[str]) -> Any:
    """Read strict JSON of at most 64 MB.

    Raises:
        ValueError: the file is missing, larger, or holds no JSON, a NaN, or more nesting than Python can follow.
    """
    try:
        with open(path, "rb") as file:
            data = file.read(_MOST_JSON + 1)
        if len(data) > _MOST_JSON:
            raise ValueError(f"it is larger than {_MOST_JSON // 2**20} MB")
        return parse_json(data)
    except (OSError, ValueError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        raise ValueError(f"{path} must be a JSON file, and cannot be read: {why}") from error


def parse_json(text: str | bytes) -> Any:
    """Parse strict JSON; ValueError for whatever is not, NaN, Infinity and bottomless nesting included."""
    try:
        return json.loads(text, parse_constant=_refuse_constant)
    except RecursionError:
        raise ValueError("it is nested too deeply") from None


def _refuse_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not valid JSON")


@contextmanager
def naming(path: str | os.PathLike[str] | None) -> Iterator[None]:
    """Let a ValueError say which file it is about, once; None is no file."""
    try:
        yield
    except ValueError as error:
        if path is None or os.fspath(path) in str(error):
            raise
        raise ValueError(f"{os.fspath(path)}: {error}") from None


def some(names: Sequence[object], between: str = ", ") -> str:
    """The first five of what may be thousands, and how many more there are: ``a, b, c, d, e and 7 more``."""
    more = f" and {len(names) - 5} more" if len(names) > 5 else ""
    return between.join(map(str, names[:5])) + more


def real(path: str | os.PathLike[str]) -> Path:
    """The absolute path without links; a loop of links, of which ``Path.resolve`` makes an error, stays as it is."""
    return Path(os.path.realpath(path))


def check_writable(path: Path | None) -> None:
    """Check, before the work, that a file can be written at ``path``; None is never written.

    Raises:
        ValueError: its folder is missing or read-only, or ``path`` is a folder, a device or a pipe.
    """
    if path is None:
        return
    _check_replaceable(path)
    if not path.parent.is_dir() or not os.access(path.parent, os.W_OK):
        raise ValueError(f"{path} {_WANTED}; choose another place")


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim(folder: Path, file: IO[Any] | int) -> None:
    """Hold the open ``file``, or folder, for this process until it is closed or the process ends in whichever way.

    Processes made by ``fork`` would hold it, too, and longer: start workers by ``spawn``.

    Raises:
        ValueError: another process holds it, and so works in ``folder``.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another run is using {folder}: wait for it, or choose another --out") from None


def _check_replaceable(path: Path) -> None:
    """Only a file may be replaced by one; renamed onto /dev/null, it would take that away from everyone."""
    with suppress(OSError):
        if not stat.S_ISREG(path.stat().st_mode):
            raise ValueError(f"{path} {_WANTED}, and is a folder, a device or a pipe; choose another place")


def _create(path: Path) -> _Unfinished:
    stem = os.fsdecode(os.fsencode(path.name)[:_LONGEST])
    name = _UNFINISHED.format(name=stem, token=secrets.token_hex(8))
    try:
        # x means O_EXCL: neither a file nor a link that somebody put there is written to.
        return _Unfinished(str(path.with_name(name)), "x")
    except OSError as error:
        _refuse(path, error)


def _refuse(path: Path, error: OSError) -> NoReturn:
    why = error.strerror or error
    raise OSError(f"{path} could not be written: {why}; make room there, or choose another place") from error


def _clean(folder: Path) -> None:
    """Remove what killed writers left in a folder; looks once a minute."""
    now = time.monotonic()
    if now - _cleaned.get(folder, -math.inf) < _YOUNG:  # a run may write thousands of files into one folder
        return
    _cleaned[folder] = now
    remove_orphans(folder, _YOUNG)


def remove_orphans(folder: Path, age: float = 0.0) -> None:
    """Remove unfinished files that nobody holds, and that have not been touched for ``age`` seconds.

    Without an age this is for who holds the folder (see :func:`claim`): else a file may be made and not locked yet.
    """
    for orphan in folder.glob(_UNFINISHED.format(name="*", token="[0-9a-f]" * 16)):
        with suppress(OSError), open(orphan, "rb", opener=_plainly) as file:  # gone already, or somebody is writing it
            if time.time() - os.fstat(file.fileno()).st_mtime < age:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            orphan.unlink(missing_ok=True)


def _plainly(path: str, flags: int) -> int:
    """Open without following a link or waiting for the other end of a pipe."""
    return os.open(path, flags | os.O_NOFOLLOW | os.O_NONBLOCK)


def _sync_folder(folder: Path) -> None:
    """Let the rename itself survive a power cut, where the file system can say so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
