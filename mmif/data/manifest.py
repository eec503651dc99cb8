"""``manifest.json`` of a packed set: what it holds, checked as a whole before anything is read by it."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Literal

from mmif.files import read_json
from mmif.options import Count, Length, Pattern, Range, Rate, build, check

FORMAT = 1
NAME = "manifest.json"

Digest = Annotated[str, Pattern("[0-9a-f]{64}", "a SHA-256 of 64 hexadecimal digits")]


@dataclass(frozen=True, slots=True)
class Shard:
    """One tar file of a split."""

    file: Annotated[str, Pattern(r"(train|val|test)/\d{6}\.tar", "the name of a shard, such as train/000000.tar")]
    count: Count  # photographs
    sha256: Digest


@dataclass(frozen=True, slots=True)
class Split:
    """The shards of train, val or test."""

    count: Count  # photographs
    shards: tuple[Shard, ...]


@dataclass(frozen=True, slots=True)
class LeftOut:
    """A file that is not in the set."""

    path: str  # below the collection
    reason: str


@dataclass(frozen=True, slots=True)
class Manifest:
    """A set, or the beginning of one: then ``complete`` is false and what follows ``duplicates`` is missing."""

    format: Literal[1]
    complete: bool
    layout: str
    size: Annotated[int, Range(16, 2048)]  # side of the squares in pixels
    seg: Literal["given", "kmeans", "none"]
    num_classes: Annotated[int, Range(0, 255)]
    labels: Annotated[tuple[str, ...], Length(0, 255)]
    canny_sigma: Rate
    photographs_sha256: Digest  # of the list of photographs, not of their content
    terms: str
    duplicates: tuple[str, ...]
    splits: dict[str, Split] = field(default_factory=dict)
    corrupt: tuple[LeftOut, ...] = ()
    skipped: tuple[LeftOut, ...] = ()
    made_by: str = ""

    def __post_init__(self) -> None:
        check(self, "the manifest.{}".format)
        if self.num_classes != len(self.labels):
            raise ValueError(f"num_classes must be the number of labels, {len(self.labels)}; got {self.num_classes}")
        for name, split in self.splits.items():
            if split.count != sum(shard.count for shard in split.shards):
                raise ValueError(f"the count of {name} must be the sum of its shards'; got {split.count}")
            if any(shard.file.split("/")[0] != name for shard in split.shards):
                raise ValueError(f"the shards of {name} must lie in its folder")


def read_manifest(root: Path) -> Manifest:
    """Read and check the manifest of a complete set.

    Raises:
        ValueError: not a packed set, an unfinished one, or one of another format.
    """
    path = root / NAME
    try:
        values = read_json(path)
        version = values["format"] if isinstance(values, dict) and "format" in values else None
        if version is not None and version != FORMAT:
            raise ValueError(f"it must have format {FORMAT}, got {version}; prepare the set again")
        manifest = build(Manifest, values, "the manifest")
    except ValueError as error:
        raise ValueError(f"{root} must be a folder that `mmif-data prepare` wrote; in {path}: {error}") from error
    if not manifest.complete:
        raise ValueError(f"{root} is not complete: run the same `mmif-data prepare` again to finish it")
    return manifest
