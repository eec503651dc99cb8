"""Files: written whole or not at all, hashed, and one run at a time in a folder.

Every file of this project is written through :func:`writing` or :func:`write`: under a random name in the folder of its
target, never through a link, flushed to the disk, then renamed. A writer holds a lock on its unfinished file, so that
the next one can tell what a killed process left behind from what is being written, and removes the former.
"""

from __future__ import annotations

import fcntl
import glob
import hashlib
import json
import os
import secrets
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import IO, Any

_UNFINISHED = ".{name}.{token}.part"
_YOUNG = 60.0  # seconds in which a file may be made and not locked yet


@contextmanager
def writing(path: str | os.PathLike[str]) -> Iterator[IO[bytes]]:
    """Open ``path`` for writing bytes; the file appears, or is replaced, when the block ends without an error.

    Raises:
        OSError: the folder is missing or read-only, or the disk is full; what was at ``path`` is untouched.
    """
    path = Path(path)
    _remove_orphans(path)
    unfinished = path.with_name(_UNFINISHED.format(name=path.name, token=secrets.token_hex(8)))
    # O_EXCL: neither a file nor a link that somebody put there is written to.
    descriptor = os.open(unfinished, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, 0o666)
    try:
        with open(descriptor, "wb") as file:
            with suppress(OSError):  # some network file systems have no locks: then nothing is cleaned up there
                fcntl.flock(file, fcntl.LOCK_EX)
            yield file
            file.flush()
            os.fsync(file.fileno())
            os.replace(unfinished, path)
        _sync_folder(path.parent)
    except BaseException:
        unfinished.unlink(missing_ok=True)
        raise


def write(path: str | os.PathLike[str], content: bytes | str) -> None:
    """Write a whole file; text becomes UTF-8. See :func:`writing`."""
    with writing(path) as file:
        file.write(content.encode() if isinstance(content, str) else content)


def write_json(path: str | os.PathLike[str], value: Any) -> None:
    """Write strict JSON (no NaN), indented, with a newline at the end."""
    write(path, json.dumps(value, indent=2, allow_nan=False) + "\n")


def check_writable(path: Path | None) -> None:
    """Check, before the work, that a file can be written at ``path``; None is never written.

    Raises:
        ValueError: its folder is missing or read-only, or ``path`` is a folder.
    """
    if path and (path.is_dir() or not path.parent.is_dir() or not os.access(path.parent, os.W_OK)):
        raise ValueError(f"{path} must be a file in a folder that exists and can be written to; choose another place")


def sha256(path: str | os.PathLike[str]) -> str:
    """Hexadecimal SHA-256 of a file."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def claim(folder: Path, file: IO[Any] | int) -> None:
    """Hold the open ``file``, or folder, for this process until it is closed or the process ends in whichever way.

    Raises:
        ValueError: another process holds it, and so works in ``folder``.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(f"another run is using {folder}: wait for it, or choose another --out") from None


def _remove_orphans(path: Path) -> None:
    """Remove what killed writers of ``path`` left: unfinished files that nobody holds."""
    for orphan in path.parent.glob(_glob_escaped(path.name)):
        with suppress(OSError), open(orphan, "rb") as file:  # gone already, or somebody is writing it
            if time.time() - os.fstat(file.fileno()).st_mtime < _YOUNG:
                continue
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
            orphan.unlink(missing_ok=True)


def _glob_escaped(name: str) -> str:
    return _UNFINISHED.format(name=glob.escape(name), token="[0-9a-f]" * 16)


def _sync_folder(folder: Path) -> None:
    """Let the rename itself survive a power cut, where the file system can say so."""
    with suppress(OSError):
        descriptor = os.open(folder, os.O_RDONLY)
        try:
            os.fsync(descriptor)
        finally:
            os.close(descriptor)
