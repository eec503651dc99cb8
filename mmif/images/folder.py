"""What a folder holds: the files that can be read as pictures, and those that are left out, with the reason."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path

from mmif.files import real, some
from mmif.images.decode import HEIF_SUFFIXES, NO_HEIF, READ_SUFFIXES, heif_is_readable


@dataclass(frozen=True, slots=True)
class Folder:
    """What :func:`look_into` found.

    Attributes:
        pictures: files whose name says that they can be read, sorted by their path.
        skipped: every other file, and folders that were not entered although they hold pictures or are links, with the
            reason; hidden ones (``.x``, ``._x.jpg``) are not even here.
    """

    pictures: list[Path]
    skipped: dict[Path, str]

    def note(self, known: Iterable[Path] = ()) -> str | None:
        """One line about what was skipped, with up to five names for each reason, or None; of ``known`` nothing."""
        known = {real(path) for path in known}
        names: dict[str, list[str]] = {}
        for path, reason in self.skipped.items():
            if real(path) not in known:
                names.setdefault(reason, []).append(path.name)
        return f"skipped: {'; '.join(f'{some(them)} ({why})' for why, them in names.items())}" if names else None


def look_into(folder: Path, recursive: bool = False) -> Folder:
    """List the files of a folder; with ``recursive`` those of its folders, too, but for hidden ones.

    Raises:
        ValueError: there is no such folder.
    """
    if not folder.is_dir():
        raise ValueError(
            f"{folder} is a file; give a folder" if folder.exists() else f"no folder at {folder}; check the path"
        )
    pictures: list[Path] = []
    skipped: dict[Path, str] = {}
    unread: list[OSError] = []
    for path in sorted(_visible(folder, recursive, unread, skipped)):
        reason = _why_not(path)
        if reason is None:
            pictures.append(path)
        else:
            skipped[path] = reason
    skipped |= {Path(error.filename): f"a folder that cannot be read: {error.strerror}" for error in unread}
    return Folder(pictures, skipped)


def _visible(folder: Path, recursive: bool, unread: list[OSError], skipped: dict[Path, str]) -> Iterator[Path]:
    for where, folders, names in os.walk(folder, onerror=unread.append):
        yield from (Path(where, name) for name in names if not name.startswith("."))
        folders[:] = [name for name in folders if not name.startswith(".")]
        inner = [Path(where, name) for name in sorted(folders)]
        if recursive:
            skipped |= {path: "a link to a folder, which is not followed" for path in inner if path.is_symlink()}
        else:
            skipped |= {path: "a folder of pictures; --recursive fills them, too" for path in inner if _has_any(path)}
            folders.clear()


def _has_any(folder: Path) -> bool:
    """Whether a folder holds pictures itself; one that cannot be read holds none."""
    _, _, names = next(os.walk(folder), ("", [], []))
    return any(_why_not(folder / name) is None for name in names if not name.startswith("."))


def _why_not(path: Path) -> str | None:
    """Why a file is not read as a picture, or None."""
    suffix = path.suffix.lower()
    if suffix in HEIF_SUFFIXES and not heif_is_readable():
        return NO_HEIF
    if suffix not in READ_SUFFIXES | HEIF_SUFFIXES:
        return "not a picture that is read"
    return None if path.is_file() else "a link that leads nowhere, or no file"
