"""One run at a time in a folder."""

from __future__ import annotations

import fcntl
from pathlib import Path
from typing import IO


def claim(folder: Path, file: IO[str] | int) -> None:
    """Hold the open ``file``, or folder, for this process until it is closed or the process ends in whichever way.

    Raises:
        ValueError: another process holds it, and so works in ``folder``.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise ValueError(
            f"{folder} must have one run at a time, and another is at work in it: wait, or choose another --out"
        ) from None
