"""How the published photograph collections lie on disk, and which split each photograph belongs to."""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path

from mmif.files import sha256

SPLITS = ("train", "val", "test")
_SIDECAR = re.compile(r"_(seg|edge|mask\d*)$")
_CROP = re.compile(r"_\d{3}$")  # not four digits: that is how cameras number photographs


@dataclass(frozen=True, slots=True)
class Record:
    """One source photograph."""

    key: str  # unique, without dot or slash: the stem of its members in a shard
    path: Path
    split: str
    seg: Path | None = None  # label map that comes with it


@dataclass(frozen=True, slots=True)
class Layout:
    """A collection: how to read it, its labels if it has any, and on what terms it may be used."""

    read: Callable[[Path], Iterator[Record]]
    terms: str
    labels: tuple[str, ...] = ()
    void: int | None = None  # label id that means unknown


def read_layout(name: str, root: Path) -> list[Record]:
    """List the photographs below ``root``, in the order in which they are packed.

    The order is that of the hash of the key, so that any run of photographs is a fair sample of its split.

    Raises:
        ValueError: unknown layout, or no photograph where the layout has them.
    """
    if name not in LAYOUTS:
        raise ValueError(f"--layout must be one of {sorted(LAYOUTS)}, got {name!r}")
    if not root.is_dir():
        raise ValueError(f"--from must be a folder, got {root}")
    records = sorted(_unique(LAYOUTS[name].read(root)), key=lambda record: (_hash(record.key), record.key))
    if not records:
        raise ValueError(f"--from must hold the photographs of layout {name}, found none in {root}")
    return records


def drop_duplicates(records: Iterable[Record]) -> tuple[list[Record], list[Record]]:
    """Keep one copy of every photograph, the one in the most held-out split (test, then val, then train).

    Returns:
        The records kept, in their order, and those dropped. Two photographs are the same if their files are.
    """
    records = list(records)
    kept: dict[str, Record] = {}
    for record in sorted(records, key=lambda record: SPLITS.index(record.split), reverse=True):
        kept.setdefault(_content(record.path), record)
    keys = {record.key for record in kept.values()}
    return [r for r in records if r.key in keys], [r for r in records if r.key not in keys]


def _content(path: Path) -> str:
    """What tells a file from others; one that cannot be read is like no other, and left out later with the reason."""
    try:
        return sha256(path)
    except OSError:
        return os.fspath(path)


def _hash(text: str) -> int:
    return int.from_bytes(hashlib.sha256(text.encode()).digest()[:8], "big")


def _fraction(text: str) -> float:
    """A number in [0, 1) fixed by the text: splits do not change when photographs are added."""
    return _hash(text) / 2**64


def _photographs(folder: Path) -> list[Path]:
    from mmif.images.folder import look_into  # here: the names of the layouts are known without Pillow

    return look_into(folder, recursive=True).pictures if folder.is_dir() else []


def _key(path: Path, root: Path) -> str:
    return _safe(path.relative_to(root).with_suffix("").as_posix())


def _safe(name: str) -> str:
    """The name without what a key must not hold; a hash tells names apart that differ in nothing else."""
    plain = name.replace("/", "-")
    safe = re.sub(r"[^A-Za-z0-9_-]+", "-", plain)
    digest = hashlib.sha256(name.encode(errors="surrogateescape")).hexdigest()
    return safe if safe == plain else f"{safe}-{digest[:8]}"


def _unique(records: Iterable[Record]) -> Iterator[Record]:
    seen: set[str] = set()
    for record in records:
        key = record.key
        while key in seen:  # a.jpg beside a.png
            key += "-" + (record.path.suffix[1:].lower() if key == record.key else "x")
        seen.add(key)
        yield replace(record, key=key)


def _find(root: Path, *candidates: str) -> Path:
    """The first of the candidate folders below ``root`` that exists; a repository keeps its data deeper down."""
    found = next((root / candidate for candidate in candidates if (root / candidate).is_dir()), None)
    if found is None:
        raise ValueError(f"--from must hold one of the folders {', '.join(candidates)}, found none in {root}")
    return found


def _if_there(path: Path) -> Path | None:
    """The file, or None where there is none, as under a name longer than any can be."""
    try:
        return path if path.is_file() else None
    except OSError:
        return None


def _intel_scenes(root: Path) -> Iterator[Record]:
    base = _find(root, "seg_train", "dataset/seg_train", "intel/seg_train").parent
    for folder in ("seg_train", "seg_pred", "seg_test"):
        for path in _photographs(base / folder):
            key = _key(path, base)
            held_out = "val" if _fraction(key) < 0.02 else "train"
            yield Record(key, path, "test" if folder == "seg_test" else held_out)


def _bsds500(root: Path) -> Iterator[Record]:
    images = _find(root, "BSDS500/data/images", "data/images", "images")
    for split in SPLITS:
        for path in _photographs(images / split):
            yield Record(_key(path, images), path, split)


def _camvid(root: Path) -> Iterator[Record]:
    base = _find(root, "CamVid/train", "train").parent
    for split in SPLITS:
        for path in _photographs(base / split):
            yield Record(_key(path, base), path, split, _if_there(base / f"{split}annot" / path.name))


def _folder(root: Path) -> Iterator[Record]:
    paths = _photographs(root)
    stems = {path.with_suffix("") for path in paths}
    for path in paths:
        if path.with_name(_SIDECAR.sub("", path.stem)) in stems and _SIDECAR.search(path.stem):
            continue
        # Crops of one photograph share a split.
        group = _safe(_CROP.sub("", path.relative_to(root).with_suffix("").as_posix()))
        place = _fraction(group)
        split = "train" if place < 0.9 else "val" if place < 0.95 else "test"
        yield Record(_key(path, root), path, split, _if_there(path.with_name(path.stem + "_seg.png")))


_CAMVID = ("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "cyclist")

LAYOUTS = {
    "intel-scenes": Layout(
        _intel_scenes,
        "Intel natural scenes: published for a public challenge without a licence text. Use it for research only and "
        "do not pass the photographs on.",
    ),
    "bsds500": Layout(
        _bsds500,
        "Berkeley Segmentation Data Set 500: for non-commercial research and education only; cite Arbelaez et al., "
        "Contour Detection and Hierarchical Image Segmentation, 2011.",
    ),
    "camvid": Layout(
        _camvid,
        "CamVid as distributed with the SegNet tutorial: CC BY-NC, for research; cite Brostow et al., 2009.",
        labels=_CAMVID,
        void=11,
    ),
    "folder": Layout(_folder, "Photographs of your own: you are responsible for the right to use them."),
}
