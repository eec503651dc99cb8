"""Segmentation labels without people: k-means on MobileNetV2 features.

Features of three stages, each position scaled to length 1, are projected on their principal components and clustered.
Projection, upsampling and the score ``2 x.c - |c|^2`` of a centre ``c`` are all linear, so that labelling is one 1x1
convolution per stage to K scores, which are upsampled, added and maximised.
"""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import safetensors
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save
from torch import Tensor, nn

from mmif.backbones.mobilenet import MobileNetV2
from mmif.files import write

TAPS = (6, 13, 17)  # strides 8, 16, 32
_SIDE = 256  # photographs are enlarged to this side, near the 224 of the network's training
_COMPONENTS = 48
_GRID = 8  # positions per side and photograph that k-means sees
_ITERATIONS = 50


class Labeller(nn.Module):
    """Label map of a photograph: the nearest of K centres in the projected feature space.

    Args:
        net: MobileNetV2, frozen.
        mean: [C] mean of the features of all stages, C = 32 + 96 + 320.
        components: [D, C] principal components.
        centres: [K, D].
    """

    def __init__(self, net: MobileNetV2, mean: Tensor, components: Tensor, centres: Tensor) -> None:
        super().__init__()
        # channels_last: 2x faster on CPU
        self.net = net.to(memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - torch's stubs leave memory_format out
        weight = 2 * centres @ components
        self.weights = weight.split([32, 96, 320], dim=1)
        self.bias = -(weight @ mean) - centres.square().sum(1)

    @torch.inference_mode()
    def forward(self, images: Tensor) -> Tensor:
        """Label uint8 images [N, 3, S, S]; returns uint8 [N, S, S] in 0..K-1."""
        scores = self.bias.view(-1, 1, 1)
        for feature, weight in zip(_features(self.net, images), self.weights, strict=True):
            score = F.conv2d(feature, weight[:, :, None, None])
            scores = scores + F.interpolate(score, images.shape[-2:], mode="bilinear")
        return scores.argmax(1).to(torch.uint8)


def _features(net: MobileNetV2, images: Tensor) -> list[Tensor]:
    x = F.interpolate(images.float() / 255, (_SIDE, _SIDE), mode="bilinear", antialias=images.shape[-1] > _SIDE)
    return [F.normalize(f) for f in net.features(x.contiguous(memory_format=torch.channels_last), TAPS)]


@torch.inference_mode()
def fit(net: MobileNetV2, batches: Iterable[Tensor], classes: int, path: Path) -> None:
    """Find the centres on batches of uint8 images [N, 3, S, S] and write them to a safetensors file.

    The same batches give the same centres. The labels are ordered by how often they occur.

    Raises:
        ValueError: fewer photographs than classes.
    """
    rows = []
    for images in batches:
        maps = [F.interpolate(f, (_GRID, _GRID), mode="bilinear") for f in _features(net, images)]
        rows.append(torch.cat(maps, 1).permute(0, 2, 3, 1).reshape(-1, sum(m.shape[1] for m in maps)))
    x = torch.cat(rows) if rows else torch.empty(0, 448)
    if len(x) < classes * _GRID**2:
        raise ValueError(f"k-means needs at least {classes} training photographs, got {len(x) // _GRID**2}")
    mean = x.mean(0)
    _, vectors = torch.linalg.eigh((x - mean).T.double() @ (x - mean).double())
    components = vectors.flip(1)[:, :_COMPONENTS].T.float().contiguous()
    centres = _lloyd((x - mean) @ components.T, classes)
    write(path, save({"mean": mean, "components": components, "centres": centres}))


def load(net: MobileNetV2, path: Path) -> Labeller:
    """Read what :func:`fit` wrote.

    Raises:
        ValueError: the file is damaged or of other shapes.
    """
    try:
        tensors = load_file(path)
        return Labeller(net, tensors["mean"], tensors["components"], tensors["centres"])
    except (safetensors.SafetensorError, KeyError, RuntimeError) as error:
        raise ValueError(f"{path.name} must hold the label centres, got {error}: remove it to fit them anew") from error


def _lloyd(x: Tensor, classes: int) -> Tensor:
    """K-means on rows [N, D] with k-means++ seeding; returns the centres [K, D], most frequent first."""
    generator = torch.Generator().manual_seed(0)
    centres = x[torch.randint(len(x), (1,), generator=generator)]
    while len(centres) < classes:
        # float64: multinomial must see probabilities that add up
        distance = torch.cdist(x, centres).min(1).values.double().square()
        pick = torch.searchsorted(distance.cumsum(0), distance.sum() * torch.rand(1, generator=generator).double())
        centres = torch.cat([centres, x[pick.clamp_max(len(x) - 1)]])
    labels = torch.empty(0)
    for _ in range(_ITERATIONS):
        nearest = torch.cdist(x, centres).argmin(1)
        if torch.equal(nearest, labels):
            break
        labels = nearest
        counts = torch.bincount(labels, minlength=classes)
        sums = torch.zeros_like(centres).index_add_(0, labels, x)
        centres = torch.where(counts[:, None] > 0, sums / counts.clamp_min(1)[:, None], centres)
    return centres[torch.bincount(labels, minlength=classes).argsort(descending=True, stable=True)]
