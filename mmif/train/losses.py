"""The training objective, Eqs. 7 to 10, term by term."""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.images.labels import UNKNOWN


def generator_loss(logits: Tensor, form: str) -> Tensor:
    """Adversarial loss of the generator: ``-E[D]`` (``hinge``) or ``softplus(-D)`` (``nsgan``)."""
    return -logits.mean() if form == "hinge" else F.softplus(-logits).mean()


def discriminator_loss(real: Tensor, fake: Tensor, form: str) -> Tensor:
    """Adversarial loss of the discriminator, averaged over real and fake."""
    if form == "hinge":
        return (F.relu(1 - real).mean() + F.relu(1 + fake).mean()) / 2
    return (F.softplus(-real).mean() + F.softplus(fake).mean()) / 2


def edge_loss(predicted: Tensor, target: Tensor, form: str) -> Tensor:
    """Binary cross-entropy of an edge map; ``balanced`` weighs each class by the share of the other.

    Args:
        predicted: probabilities ``[N, 1, H, W]``.
        target: ``[N, 1, H, W]`` in {0, 1}.
        form: ``balanced`` or ``plain``.
    """
    p = predicted.float().clamp(1e-6, 1 - 1e-6)  # rounded to 0 or 1 they would give infinities
    # Written out: F.binary_cross_entropy stops at NaN, on CUDA for good, before the training can say what went wrong.
    loss = (target - 1) * torch.log1p(-p) - target * p.log()
    if form == "balanced":
        share = target.mean()  # of edge pixels
        loss = loss * torch.where(target > 0.5, 1 - share, share)
    return loss.mean()


def seg_loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross-entropy of ``[N, K, H, W]`` logits against ``[N, H, W]`` int64 labels; unknown ones do not count."""
    if bool((labels == UNKNOWN).all()):
        return logits.sum() * 0.0
    return F.cross_entropy(logits.float(), labels, ignore_index=UNKNOWN)


def fidelity_loss(ws: Tensor, mean: Tensor, form: str) -> Tensor:
    """Eq. 9, distance of the codes [N, L, w] from the mean latent [w]: mean square (``mse``) or norm (``norm``)."""
    offset = ws - mean
    return offset.square().mean() if form == "mse" else offset.flatten(1).norm(dim=1).mean()


def targets_at(size: int, image: Tensor, edge: Tensor, labels: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Ground truth at one scale: image by area, edges by maximum (thin lines stay), labels by nearest."""
    ratio = image.shape[2] // size
    if ratio <= 1:
        return image, edge, labels
    half = ratio // 2
    return F.avg_pool2d(image, ratio), F.max_pool2d(edge, ratio), labels[:, half::ratio, half::ratio]


def perceptual_at_least(images: Sequence[Tensor], size: int) -> list[Tensor]:
    """Enlarge images below ``size``: a perceptual network sees nothing in a 32-pixel picture."""
    return [
        x if x.shape[2] >= size else F.interpolate(x, size=(size, size), mode="bilinear", align_corners=False)
        for x in images
    ]
