"""The protocol of ``mmif-eval``: which photographs, which holes, who fills them, how the result is measured.

Arrays are as outside the model: images uint8 [N, H, W, 3] RGB, holes and edges bool [N, H, W], labels uint8 [N, H, W].
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import torch
from numpy.typing import NDArray

from mmif.data.masks import hole_at_ratio
from mmif.evaluation import metrics
from mmif.evaluation.distances import STLPIPS
from mmif.evaluation.peers import BASELINES
from mmif.images.labels import UNKNOWN
from mmif.images.tensors import binary_to_model, from_model, labels_to_model, to_model
from mmif.inpaint.seam import match_seam


class Bucket(NamedTuple):
    """A range of hole ratios in per cent, written ``lo-hi``."""

    lo: int
    hi: int

    def __str__(self) -> str:
        return f"{self.lo}-{self.hi}"


class Batch(NamedTuple):
    """Photographs with their holes, as every method gets them."""

    keys: list[str]
    indices: list[int]  # positions in the split: they key the noise
    rgb: NDArray[np.uint8]
    hole: NDArray[np.bool_]
    seg: NDArray[np.uint8]  # 255 where unknown
    edge: NDArray[np.bool_]


Method = Callable[[Batch], NDArray[np.uint8]]  # the filled photographs


def parse_buckets(text: str) -> list[Bucket]:
    """Read ``10-30,40-60``.

    Raises:
        ValueError: not of this form, a bucket twice, or outside 0 <= lo < hi < 100.
    """
    parts = text.split(",")
    pairs = [re.fullmatch(r"\s*(\d{1,2})-(\d{1,2})\s*", part) for part in parts]
    buckets = [Bucket(int(pair[1]), int(pair[2])) for pair in pairs if pair]
    if len(set(buckets)) != len(parts) or any(bucket.lo >= bucket.hi for bucket in buckets):
        raise ValueError(
            f"--ratios must be different ranges in per cent such as 10-30,40-60 with lo < hi < 100, got {text!r}"
        )
    return buckets


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


def baseline_method(name: str) -> Method:
    """Return the classical method called ``name``, applied image by image."""

    def method(batch: Batch) -> NDArray[np.uint8]:
        return np.stack([BASELINES[name](rgb, hole) for rgb, hole in zip(batch.rgb, batch.hole, strict=True)])

    return method


def model_method(model: Any, device: torch.device, seed: int, with_oracle: bool, seam: str) -> Method:
    """Return the network, with or without the true labels and edges; its known pixels are those of the photograph.

    ``seam`` is what ``mmif-inpaint`` does at the border of the hole: ``match``, its default, or ``none``.
    """

    @torch.inference_mode()
    def method(batch: Batch) -> NDArray[np.uint8]:
        hints = oracle(batch, model.config.encoder.num_classes) if with_oracle else {}
        inputs = {"image": to_model(batch.rgb), "hole": binary_to_model(batch.hole), **hints}
        noise = model.make_noise([(seed, index) for index in batch.indices])
        output = model(**{k: v.to(device) for k, v in inputs.items()}, noise=[layer.to(device) for layer in noise])
        if not output.image.isfinite().all():
            raise ValueError(f"the model's output must be finite, got NaN or infinity in the batch of {batch.keys[0]}")
        filled = from_model(output.image)
        if seam == "match":
            filled = np.stack([match_seam(*x) for x in zip(filled, batch.rgb, batch.hole, strict=True)])
        return composite(batch.rgb, filled, batch.hole)

    return method


def oracle(batch: Batch, classes: int) -> dict[str, torch.Tensor]:
    """True labels and edges as the model's keyword arguments; pixels without a label stay a hole of the label map.

    Raises:
        ValueError: a label that the model does not know.
    """
    unknown = batch.seg == UNKNOWN
    largest = int(batch.seg[~unknown].max(initial=0))
    if largest >= classes:
        raise ValueError(f"the model knows the labels 0..{classes - 1}, the data holds {largest}; use --guidance none")
    return {
        "seg": labels_to_model(batch.seg, classes),
        "seg_hole": binary_to_model(unknown),
        "edge": binary_to_model(batch.edge),
        "edge_hole": binary_to_model(np.zeros_like(batch.hole)),
    }


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
