"""Pack a collection of photographs into numbered tar shards with labels, edges and a manifest.

``OUT/<split>/000000.tar`` holds, for every photograph, ``<key>.png`` (or the untouched ``.jpg``), ``<key>.seg.png``
(label ids, palette) and ``<key>.edge.png`` (1 bit). A shard is written under a temporary name and then renamed, and its
bytes depend on the sources and the settings alone, so that an interrupted run can be started again and ends the same.
"""

from __future__ import annotations

import hashlib
import os
import tarfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from mmif import __version__
from mmif.backbones.mobilenet import mobilenet_v2
from mmif.data import kmeans
from mmif.data.collections import LAYOUTS, SPLITS, Record, drop_duplicates, read_layout
from mmif.data.manifest import FORMAT, NAME, Split
from mmif.data.photo import read_square
from mmif.data.settings import Settings
from mmif.data.shard import BATCH, chunks, readable, to_tensor, write_shard
from mmif.data.workers import share_out
from mmif.files import claim, read_json, remove_orphans, sha256, write_json
from mmif.images.folder import look_into
from mmif.options import build

_SHARD = 500  # photographs in one shard
_FIT = 1500  # training photographs that k-means sees
_CENTRES = "labels.safetensors"


def prepare(
    source: Path, out: Path, settings: Settings, *, weights: Path | None = None, workers: int = 1, progress: bool = True
) -> dict[str, Any]:
    """Pack the photographs of ``source`` into ``out``; call it again to finish an interrupted run.

    Args:
        source: folder of the collection.
        out: new or empty folder, or the one of an interrupted run with the same settings.
        settings: what to make.
        weights: MobileNetV2 weights for ``seg="kmeans"``, see :func:`mmif.backbones.weights.find_weights`.
        workers: processes, each with one thread.
        progress: draw progress bars on stderr.

    Returns:
        The manifest, which is also written to ``out/manifest.json``.

    Raises:
        ValueError: a setting out of range, no photographs, an ``out`` that holds something else or in which another
            run is at work, or a damaged shard.
        ChildProcessError: a worker process was ended from outside.
    """
    if workers < 1:
        raise ValueError(f"--workers must be >= 1, got {workers}")
    records, duplicates = drop_duplicates(read_layout(settings.layout, source))
    settings = settings.resolved(records)
    shards = _plan(records, out)
    manifest = _manifest(source, settings, records, duplicates)
    with _claimed(out):
        for folder in (out, *(out / split for split in SPLITS)):
            remove_orphans(folder)
        _begin(out, manifest)
        if settings.seg == "kmeans" and not (out / _CENTRES).exists():
            training = [record for record in records if record.split == "train"]
            _fit(training[:_FIT], settings, out / _CENTRES, weights, progress)
        _write_missing(shards, partial(_work, settings, out, weights), workers, progress)
        manifest |= _describe(shards, settings, source, out) | _skipped(source)
        manifest |= {"complete": True, "made_by": f"mmif-data {__version__}"}
        write_json(out / NAME, manifest)
    return manifest


def _plan(records: list[Record], out: Path) -> dict[Path, list[Record]]:
    """Which photographs go into which shard file."""
    shards: dict[Path, list[Record]] = {}
    for split in SPLITS:
        members = (record for record in records if record.split == split)
        shards |= {out / split / f"{i:06d}.tar": chunk for i, chunk in enumerate(chunks(members, _SHARD))}
    return shards


def _manifest(source: Path, settings: Settings, records: list[Record], duplicates: list[Record]) -> dict[str, Any]:
    listing = "\n".join(f"{r.key}\t{r.split}\t{_relative(r, source)}" for r in records)
    return {
        "format": FORMAT,
        "complete": False,
        "layout": settings.layout,
        "size": settings.size,
        "seg": settings.seg,
        "num_classes": len(settings.labels),
        "labels": settings.labels,
        "canny_sigma": settings.canny_sigma,
        "photographs_sha256": hashlib.sha256(listing.encode(errors="surrogateescape")).hexdigest(),
        "terms": LAYOUTS[settings.layout].terms,
        "duplicates": sorted(_relative(record, source) for record in duplicates),
    }


@contextmanager
def _claimed(out: Path) -> Iterator[None]:
    """Make the folder, and keep other runs out of it."""
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out must be a new or empty folder, or one that this command began, got {out}")
    out.mkdir(parents=True, exist_ok=True)
    folder = os.open(out, os.O_RDONLY)  # a file to hold would be one too many in the set
    try:
        claim(out, folder)
        yield
    finally:
        os.close(folder)


def _begin(out: Path, manifest: dict[str, Any]) -> None:
    """Begin in an empty folder, or make sure that this same run began it and that what it wrote is whole."""
    path = out / NAME
    if path.is_file():
        try:
            begun = dict(read_json(path))
            splits = [build(Split, split, "splits") for split in dict(begun.get("splits", {})).values()]
            written = {out / shard.file: shard.sha256 for split in splits for shard in split.shards}
        except (ValueError, TypeError):
            begun, written = {}, {}  # damaged: differs in everything
        changed = [key for key in manifest if key != "complete" and begun.get(key) != manifest[key]]
        if changed:
            raise ValueError(
                f"--out must be new or hold the same set, but {', '.join(changed)} in {path} differ: "
                "remove the folder or choose another"
            )
        damaged = next((p for p, digest in written.items() if p.exists() and sha256(p) != digest), None)
        if damaged:
            raise ValueError(f"{damaged} must be as it was written, and is damaged: remove it and run this again")
        return
    if any(out.iterdir()):
        raise ValueError(f"--out must be a new or empty folder, or one that this command began, got {out}")
    write_json(path, manifest)


def _fit(records: list[Record], settings: Settings, path: Path, weights: Path | None, progress: bool) -> None:
    net = mobilenet_v2(weights)
    squares = readable(tqdm(records, desc="k-means", unit="photo", disable=not progress), settings)
    batches = (to_tensor([square.image for _, square in chunk]) for chunk in chunks(squares, BATCH))
    with _one_thread():
        kmeans.fit(net, batches, settings.classes, path)


def _write_missing(
    shards: dict[Path, list[Record]], work: Callable[[Path, list[Record]], int], workers: int, progress: bool
) -> None:
    missing = {path: records for path, records in shards.items() if not path.exists()}
    done = sum(len(records) for path, records in shards.items() if path not in missing)
    total = done + sum(map(len, missing.values()))
    with tqdm(total=total, initial=done, desc="pack", unit="photo", disable=not progress) as bar:
        if workers == 1 or len(missing) < 2:
            for item in missing.items():
                bar.update(work(*item))
        else:
            share_out(work, missing.items(), workers, bar.update)


def _work(settings: Settings, out: Path, weights: Path | None, path: Path, records: list[Record]) -> int:
    with _one_thread():
        labeller = kmeans.load(mobilenet_v2(weights), out / _CENTRES) if settings.seg == "kmeans" else None
        write_shard(path, records, settings, labeller)
    return len(records)


@contextmanager
def _one_thread() -> Iterator[None]:
    """The rounding of a sum, and so a label, depends on the number of threads."""
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _describe(shards: dict[Path, list[Record]], settings: Settings, source: Path, out: Path) -> dict[str, Any]:
    """What was written, by shard, and what could not be read."""
    splits: dict[str, Any] = {}
    corrupt = []
    for path, records in shards.items():
        written = _keys(path)
        corrupt += [_reason(record, settings, source, path) for record in records if record.key not in written]
        split = splits.setdefault(path.parent.name, {"count": 0, "shards": []})
        split["count"] += len(written)
        file = path.relative_to(out).as_posix()
        split["shards"].append({"file": file, "count": len(written), "sha256": sha256(path)})
    return {"splits": splits, "corrupt": sorted(corrupt, key=lambda entry: entry["path"])}


def _skipped(source: Path) -> dict[str, Any]:
    """The files of the collection that no layout takes for photographs."""
    skipped = look_into(source, recursive=True).skipped.items()
    return {"skipped": [{"path": path.relative_to(source).as_posix(), "reason": reason} for path, reason in skipped]}


def _keys(path: Path) -> set[str]:
    try:
        with tarfile.open(path, "r:") as tar:
            return {name.split(".")[0] for name in tar.getnames()}
    except Exception as error:  # of tarfile, on a damaged file: more than its own kinds
        raise ValueError(f"{path} must be a tar shard, got {error}: remove it and run this again") from error


def _reason(record: Record, settings: Settings, source: Path, shard: Path) -> dict[str, str]:
    """Why a photograph is not in its shard."""
    try:
        read_square(record, settings)
    except (ValueError, OSError) as error:
        reason = str(error)
        for file in filter(None, (record.path, record.seg)):  # the manifest tells nothing of this machine
            reason = reason.replace(str(file), file.name)
        return {"path": _relative(record, source), "reason": reason}
    raise ValueError(f"{shard} must hold {record.path.name}, got a damaged shard: remove it and run this again")


def _relative(record: Record, source: Path) -> str:
    return record.path.relative_to(source).as_posix()
