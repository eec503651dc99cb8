"""Read a packed set back, in an endless order that can be resumed at any position."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterator
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from PIL import Image
from torch.utils.data import DataLoader, Dataset, Sampler

from mmif.data.manifest import Shard, read_manifest
from mmif.data.workers import lifeline, obey_owner, signals_held
from mmif.images.decode import guarded
from mmif.images.labels import UNKNOWN

_REPAIR = "remove it and run `mmif-data prepare` again"


@dataclass(slots=True)
class _Entry:
    """Where the members of one photograph lie: extension -> (offset, size) in the shard."""

    key: str
    shard: Path
    members: dict[str, tuple[int, int]] = field(default_factory=dict)


class PackedDataset(Dataset[dict[str, Any]]):
    """The photographs of one split of a set that ``mmif-data prepare`` wrote.

    An item is a dictionary: ``key`` str; ``image`` uint8 [3, S, S]; ``seg`` uint8 [S, S], label ids, 255 = unknown, all
    255 in a set without labels; ``edge`` uint8 [1, S, S], 0 or 1. Shards are opened for each read, so that the object
    may be shared with any number of processes.

    Args:
        root: folder of the set.
        split: train, val or test.

    Raises:
        ValueError: no complete set of this format, a split that it lacks, or a shard that is missing or damaged.
    """

    def __init__(self, root: str | Path, split: str) -> None:
        self.root = Path(root)
        self.manifest = read_manifest(self.root)
        splits = self.manifest.splits
        if split not in splits:
            raise ValueError(f"the split must be one of {', '.join(splits)} of {self.root}, got {split!r}")
        self.size = self.manifest.size
        self.labels = list(self.manifest.labels)
        self._entries = [entry for shard in splits[split].shards for entry in _scan(self.root, shard)]

    @property
    def num_classes(self) -> int:
        """Number of labels; 0 in a set without labels."""
        return len(self.labels)

    def __len__(self) -> int:
        return len(self._entries)

    def __getitem__(self, index: int) -> dict[str, Any]:
        entry = self._entries[index]
        try:
            with guarded(entry.key):
                return self._item(entry)
        except (ValueError, OSError) as error:
            raise ValueError(f"{entry.shard} must hold a whole {entry.key}, got {error}: {_REPAIR}") from error

    def _item(self, entry: _Entry) -> dict[str, Any]:
        data = _read(entry)
        image = self._decode(data["png" if "png" in data else "jpg"], "RGB")
        edge = self._decode(data["edge.png"], "1").astype(np.uint8)
        seg = np.full((self.size, self.size), UNKNOWN, np.uint8)
        if "seg.png" in data:
            seg = self._decode(data["seg.png"])
            wrong = seg[(seg >= self.num_classes) & (seg != UNKNOWN)]
            if wrong.size:
                raise ValueError(f"a label {wrong[0]}, where the manifest has {self.num_classes}")
        return {
            "key": entry.key,
            "image": torch.from_numpy(image).permute(2, 0, 1).contiguous(),
            "seg": torch.from_numpy(seg),
            "edge": torch.from_numpy(edge)[None],
        }

    def _decode(self, data: bytes, mode: str | None = None) -> np.ndarray:
        """The pixels of a member, in its own mode or converted to ``mode``."""
        image = Image.open(io.BytesIO(data), formats=("PNG", "JPEG"))  # all that a shard holds
        if image.size != (self.size, self.size):  # before anything is decoded
            raise ValueError(f"{image.width} x {image.height} pixels, where the manifest has {self.size} x {self.size}")
        return np.array(image if mode is None else image.convert(mode))


class InfiniteSampler(Sampler[int]):
    """Endless shuffled indices: every epoch is a permutation fixed by the seed and the number of the epoch.

    Args:
        length: number of items, >= 1.
        seed: fixes all permutations.
        start: how many indices were already used; a run that saw n items goes on with ``start=n``.
    """

    def __init__(self, length: int, seed: int, start: int = 0) -> None:
        if length < 1 or start < 0:
            raise ValueError(f"a sampler needs length >= 1 and start >= 0, got {length} and {start}")
        self.length, self.seed, self.start = length, seed, start

    def __iter__(self) -> Iterator[int]:
        epoch, skip = divmod(self.start, self.length)
        while True:
            order = np.random.default_rng([self.seed, epoch]).permutation(self.length)
            yield from order[skip:].tolist()
            epoch, skip = epoch + 1, 0


def batches(
    dataset: PackedDataset, sampler: Sampler[int], batch_size: int, workers: int = 0
) -> Iterator[dict[str, Any]]:
    """Yield collated batches without end: the items' tensors stacked, ``key`` a list of str.

    Args:
        dataset: the photographs.
        sampler: their order, e.g. :class:`InfiniteSampler`.
        batch_size: items in a batch; a last, shorter one is left out.
        workers: processes that decode; 0 decodes in this one. The batches do not depend on it. They end with this
            process, and signals from elsewhere than it do not reach them.
    """
    loader = DataLoader(
        dataset,
        batch_size,
        sampler=sampler,
        num_workers=workers,
        drop_last=True,
        pin_memory=torch.cuda.is_available(),
        generator=torch.Generator(),  # else the loader would draw from, and so move, the global one
        # Forked, they would inherit locks, of run folders too, and may hang in the thread pools torch has started here.
        multiprocessing_context="spawn" if workers else None,
        worker_init_fn=partial(obey_owner, lifeline()) if workers else None,
    )
    with signals_held():
        return iter(loader)


def _scan(root: Path, shard: Shard) -> Iterator[_Entry]:
    path = root / shard.file
    entries: dict[str, _Entry] = {}
    try:
        with tarfile.open(path, "r:") as tar:
            for member in tar:
                key, _, extension = member.name.partition(".")
                entries.setdefault(key, _Entry(key, path)).members[extension] = (member.offset_data, member.size)
    except Exception as error:  # of tarfile, on a damaged file: more than its own kinds
        raise ValueError(f"{path} must be a shard of {shard.count} photographs, got {error}: {_REPAIR}") from error
    if len(entries) != shard.count:  # cut between two photographs
        raise ValueError(f"{path} must hold {shard.count} photographs, got {len(entries)}: {_REPAIR}")
    yield from entries.values()


def _read(entry: _Entry) -> dict[str, bytes]:
    data = {}
    with entry.shard.open("rb") as file:
        for name, (offset, size) in entry.members.items():
            file.seek(offset)
            data[name] = file.read(size)
    return data
