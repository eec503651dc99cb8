"""The protocol of ``mmif-eval``: which photographs, which holes, how the result is measured.

Arrays are as outside the model: images uint8 [N, H, W, 3] RGB, holes and edges bool [N, H, W], labels uint8 [N, H, W].
"""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mmif.data.masks import hole_at_ratio
from mmif.evaluation import metrics
from mmif.evaluation.distances import STLPIPS
from mmif.evaluation.request import Bucket
from mmif.images.tensors import to_model


class Batch(NamedTuple):
    """Photographs with their holes, as every method gets them."""

    keys: list[str]
    indices: list[int]  # positions in the split: they key the noise
    rgb: NDArray[np.uint8]
    hole: NDArray[np.bool_]
    seg: NDArray[np.uint8]  # 255 where unknown
    edge: NDArray[np.bool_]


def choose(count: int, n: int, seed: int) -> list[int]:
    """Positions of ``n`` out of ``count`` photographs, in the order they are used: a larger ``n`` only adds some."""
    return np.random.default_rng(seed).permutation(count)[:n].tolist()


def make_hole(size: int, bucket: Bucket, key: str, seed: int) -> NDArray[np.bool_]:
    """The hole of one photograph, bool [size, size]: a function of the arguments alone."""
    digest = hashlib.sha256(f"{seed}:{bucket}:{key}".encode()).digest()
    return hole_at_ratio(size, bucket.lo / 100, bucket.hi / 100, np.random.default_rng(list(digest)))


class HoleManifest:
    """One hash over all holes of an evaluation: equal hashes mean the same photographs with the same holes."""

    def __init__(self) -> None:
        self._lines: set[str] = set()
        self._ratios: dict[str, list[float]] = {}

    def add(self, bucket: str, keys: Sequence[str], holes: NDArray[np.bool_]) -> None:
        """Record the holes, bool [N, H, W], of N photographs in one bucket."""
        for key, hole in zip(keys, holes, strict=True):
            digest = hashlib.sha256(np.packbits(hole).tobytes()).hexdigest()
            self._lines.add(f"{bucket} {key} {hole.shape[0]}x{hole.shape[1]} {digest}\n")
            self._ratios.setdefault(bucket, []).append(float(hole.mean()))

    def summary(self) -> dict[str, Any]:
        """The hash, which does not depend on the order, and the mean ratio of each bucket."""
        sha256 = hashlib.sha256("".join(sorted(self._lines)).encode()).hexdigest()
        return {"sha256": sha256, "mean_ratio": {name: float(np.mean(x)) for name, x in self._ratios.items()}}


def composite(rgb: NDArray[np.uint8], filled: NDArray[np.uint8], hole: NDArray[np.bool_]) -> NDArray[np.uint8]:
    """Return ``filled`` inside the hole and ``rgb`` outside; all [N, H, W, ...]."""
    return np.where(hole[..., None], filled, rgb)


def measure(
    reference: NDArray[np.uint8],
    candidate: NDArray[np.uint8],
    hole: NDArray[np.bool_],
    distances: Mapping[str, STLPIPS],
) -> dict[str, list[float]]:
    """Return every metric by its name in :data:`mmif.evaluation.tables.METRICS`, one value per photograph."""
    a, b = (torch.from_numpy(np.ascontiguousarray(x)).permute(0, 3, 1, 2) for x in (reference, candidate))
    where = torch.tensor(hole)[:, None]  # a copy: a mask of 1 bit is read-only, which torch warns of
    values = {"psnr": metrics.psnr(a, b, where), "ssim": metrics.ssim(a, b, where), "l1": metrics.l1(a, b, where)}
    for name, distance in distances.items():
        values[name] = distance(to_model(reference), to_model(candidate))
    return {name: value.tolist() for name, value in values.items()}
