"""Write one tar shard of a packed set."""

from __future__ import annotations

import io
import tarfile
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import TypeVar

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor

from mmif.data.collections import Record
from mmif.data.edges import canny
from mmif.data.kmeans import Labeller
from mmif.data.photo import Square, encode_png, read_square
from mmif.data.settings import Settings
from mmif.files import writing
from mmif.images.labels import label_image

BATCH = 4  # photographs labelled at once: larger batches leave the cache and are slower

T = TypeVar("T")


def write_shard(path: Path, records: Iterable[Record], settings: Settings, labeller: Labeller | None) -> None:
    """Write the photographs that can be read; the others are left out.

    Args:
        path: the shard, which appears only when it is whole.
        records: photographs in the order of the shard.
        settings: resolved settings.
        labeller: makes the labels if ``settings.seg`` is kmeans.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with writing(path) as file, tarfile.open(fileobj=file, mode="w", format=tarfile.PAX_FORMAT) as tar:
        for chunk in chunks(readable(records, settings), BATCH):
            images = to_tensor([square.image for _, square in chunk])
            edges = canny(images, settings.canny_sigma or 1.0)
            made = labeller(images).numpy() if labeller else [square.labels for _, square in chunk]
            for (record, square), edge, labels in zip(chunk, edges, made, strict=True):
                _add_photograph(tar, record.key, square.data, labels, edge[0].numpy())


def readable(records: Iterable[Record], settings: Settings) -> Iterator[tuple[Record, Square]]:
    """Read the photographs one after the other, those that can be read; ``prepare`` lists the others."""
    for record in records:
        try:
            yield record, read_square(record, settings)
        except (ValueError, OSError):
            continue


def to_tensor(images: list[NDArray[np.uint8]]) -> Tensor:
    """Stack RGB images [H, W, 3] to uint8 [N, 3, H, W]."""
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


def chunks(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Cut a stream into lists of ``size`` items; the last one may be shorter."""
    chunk: list[T] = []
    for item in items:
        chunk.append(item)
        if len(chunk) == size:
            yield chunk
            chunk = []
    if chunk:
        yield chunk


def _add_photograph(
    tar: tarfile.TarFile, key: str, data: bytes, labels: NDArray[np.uint8] | None, edge: NDArray[np.bool_]
) -> None:
    _add(tar, f"{key}.png" if data.startswith(b"\x89PNG") else f"{key}.jpg", data)
    if labels is not None:
        _add(tar, f"{key}.seg.png", encode_png(label_image(labels)))
    _add(tar, f"{key}.edge.png", encode_png(Image.fromarray(edge)))


def _add(tar: tarfile.TarFile, name: str, data: bytes) -> None:
    member = tarfile.TarInfo(name)  # owner, time and mode stay at their fixed defaults
    member.size = len(data)
    tar.addfile(member, io.BytesIO(data))
