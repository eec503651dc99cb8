"""What a folder holds: the files that can be read as pictures, and those that are left out, with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from mmif.files import some
from mmif.images.decode import HEIF_SUFFIXES, NO_HEIF, READ_SUFFIXES, heif_is_readable


@dataclass(frozen=True, slots=True)
class Folder:
    """What :func:`look_into` found.

    Attributes:
        pictures: files whose name says that they can be read, sorted by their path.
        skipped: every other file, with the reason; hidden ones (``.x``, ``._x.jpg``) are not even here.
    """

    pictures: list[Path]
    skipped: dict[Path, str]

    def note(self) -> str | None:
        """One line about what was skipped, with up to five names for each reason, or None."""
        if not self.skipped:
            return None
        parts = []
        for reason in dict.fromkeys(self.skipped.values()):
            names = [path.name for path, why in self.skipped.items() if why == reason]
            parts.append(f"{some(names)} ({reason})")
        count = len(self.skipped)
        return f"{count} {'file was' if count == 1 else 'files were'} skipped: {'; '.join(parts)}"


def look_into(folder: Path, recursive: bool = False) -> Folder:
    """List the files of a folder; with ``recursive`` those of its folders, too, but for hidden ones.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is a file; give a folder" if folder.exists() else f"no folder at {folder}; check the path"
        )
    pictures, skipped = [], {}
    unread: list[OSError] = []
    for path in sorted(_visible(folder, recursive, unread)):
        reason = _why_not(path)
        if reason is None:
            pictures.append(path)
        else:
            skipped[path] = reason
    skipped |= {Path(error.filename): f"a folder that cannot be read: {error.strerror}" for error in unread}
    return Folder(pictures, skipped)


def _visible(folder: Path, recursive: bool, unread: list[OSError]) -> Iterator[Path]:
    for where, folders, names in os.walk(folder, onerror=unread.append):
        yield from (Path(where, name) for name in names if not name.startswith("."))
        folders[:] = [name for name in folders if recursive and not name.startswith(".")]


def _why_not(path: Path) -> str | None:
    """Why a file is not read as a picture, or None."""
    suffix = path.suffix.lower()
    if suffix in HEIF_SUFFIXES and not heif_is_readable():
        return NO_HEIF
    if suffix not in READ_SUFFIXES | HEIF_SUFFIXES:
        return "not a picture that is read"
    return None if path.is_file() else "a link that leads nowhere, or no file"
