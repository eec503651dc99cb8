"""Full-reference metrics measured inside the hole, and their aggregation.

All take uint8 RGB batches, because that is what a user gets: composites that were rounded and pasted back. The known
pixels are equal in both images by construction, so a mean over the whole image would mostly measure the size of the
hole; these metrics average over hole pixels only.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor

MAX_PSNR = 100.0  # dB reported for identical pixels, so that a mean stays finite
SSIM_WINDOW = 11
SSIM_SIGMA = 1.5


@dataclass(frozen=True, slots=True)
class Estimate:
    """A mean over photographs: how many, the mean, and its standard error (NaN for a single photograph)."""

    n: int
    mean: float
    stderr: float


def estimate(values: Sequence[float]) -> Estimate:
    """Mean of ``values`` and its standard error, s / sqrt(n) with the n - 1 sample deviation.

    Raises:
        ValueError: ``values`` is empty.
    """
    if not values:
        raise ValueError("an estimate needs at least one value, got none")
    x = torch.tensor(values, dtype=torch.float64)
    stderr = x.std().item() / math.sqrt(len(x)) if len(x) > 1 else math.nan
    return Estimate(len(x), x.mean().item(), stderr)


def win_share(ours: Sequence[float], theirs: Sequence[float], higher_is_better: bool) -> float:
    """Share in [0, 1] of photographs on which ``ours`` beats ``theirs``; the two are paired, a tie counts half.

    Raises:
        ValueError: the two have different lengths or are empty.
    """
    if not ours or len(ours) != len(theirs):
        raise ValueError(f"a paired comparison needs two equally long lists, got {len(ours)} and {len(theirs)} values")
    sign = 1.0 if higher_is_better else -1.0
    gain = sign * (torch.tensor(ours, dtype=torch.float64) - torch.tensor(theirs, dtype=torch.float64))
    return ((gain > 0).double() + 0.5 * (gain == 0).double()).mean().item()


def l1(reference: Tensor, candidate: Tensor, hole: Tensor) -> Tensor:
    """Mean absolute difference over the RGB values of the hole, in levels 0..255.

    Args:
        reference: uint8 [N, 3, H, W].
        candidate: uint8 [N, 3, H, W].
        hole: bool [N, 1, H, W], at least one pixel True in every image.

    Returns:
        float64 [N].

    Raises:
        ValueError: a shape or dtype differs from the above, or an image has no hole.
    """
    _check(reference, candidate, hole)
    return _hole_mean((reference.double() - candidate.double()).abs(), hole)


def psnr(reference: Tensor, candidate: Tensor, hole: Tensor) -> Tensor:
    """Peak signal-to-noise ratio of the hole in dB: 10 log10(255^2 / mean squared difference over its RGB values).

    Identical pixels, and anything better than :data:`MAX_PSNR`, give :data:`MAX_PSNR`. Arguments, result and errors
    as in :func:`l1`.
    """
    _check(reference, candidate, hole)
    error = _hole_mean((reference.double() - candidate.double()).square(), hole)
    return (10 * torch.log10(255.0**2 / error)).clamp(max=MAX_PSNR)


def ssim(reference: Tensor, candidate: Tensor, hole: Tensor) -> Tensor:
    """Structural similarity, averaged over the pixels of the hole and the three RGB channels.

    The map is that of Wang et al. 2004 per channel: Gaussian window 11 x 11 of sigma 1.5, population covariance, data
    range 255, K1 = 0.01, K2 = 0.03, image mirrored at its border with the edge pixel repeated. Windows centred near
    the rim of the hole also see known pixels. Arguments, result and errors as in :func:`l1`; sides must be >= 11.
    """
    _check(reference, candidate, hole)
    if min(reference.shape[-2:]) < SSIM_WINDOW:
        raise ValueError(f"SSIM needs sides of at least {SSIM_WINDOW} pixels, got {tuple(reference.shape[-2:])}")
    x, y = reference.double(), candidate.double()  # float32 loses the variance of bright flat regions
    mx, my = _blur(x), _blur(y)
    vx, vy, cov = _blur(x * x) - mx * mx, _blur(y * y) - my * my, _blur(x * y) - mx * my
    c1, c2 = (0.01 * 255) ** 2, (0.03 * 255) ** 2
    similarity = (2 * mx * my + c1) * (2 * cov + c2) / ((mx * mx + my * my + c1) * (vx + vy + c2))
    return _hole_mean(similarity, hole)


def discriminative_scores(real: Tensor, fake: Tensor) -> tuple[float, float]:
    """P-IDS and U-IDS (Zhao et al. 2021): how well a linear SVM tells fills from photographs, 0 = always.

    U-IDS is one minus the accuracy of a linear SVM fitted to all features, at most 1/2 for features it cannot tell
    apart; P-IDS is the share of pairs in which the fill looks strictly more real than its own photograph. Both are
    biased towards 0 by small N (docs/evaluation.md): compare at equal N only.

    Args:
        real: features of N photographs, [N, D], N >= 2.
        fake: features of their N fills, in the same order.

    Returns:
        (P-IDS, U-IDS), each in [0, 1].

    Raises:
        ValueError: other shapes, or scikit-learn (``pip install "mminvertfill[eval]"``) is missing.
    """
    if real.ndim != 2 or real.shape != fake.shape or len(real) < 2:
        raise ValueError(f"features must be two [N, D] with N >= 2, got {tuple(real.shape)} and {tuple(fake.shape)}")
    try:
        from sklearn.svm import LinearSVC
    except ImportError as error:
        raise ValueError(f'P-IDS needs scikit-learn ({error}): pip install "mminvertfill[eval]"') from error
    features = torch.cat([real, fake]).double().cpu().numpy()
    svm = LinearSVC(dual=False)  # pyright: ignore[reportArgumentType] - inferred from the default, a string
    svm.fit(features, [1] * len(real) + [0] * len(fake))
    margin = torch.from_numpy(svm.decision_function(features))
    seems_real, n = margin > 0, len(real)
    accuracy = (seems_real[:n].sum() + (~seems_real[n:]).sum()).item() / (2 * n)
    return (margin[n:] > margin[:n]).double().mean().item(), 1.0 - accuracy


def _blur(x: Tensor) -> Tensor:
    """Separable Gaussian mean of [N, C, H, W], same size, mirrored at the border with the edge repeated."""
    radius = SSIM_WINDOW // 2
    taps = torch.arange(-radius, radius + 1, dtype=x.dtype, device=x.device)
    kernel = torch.exp(-0.5 * (taps / SSIM_SIGMA).square())
    kernel = (kernel / kernel.sum()).reshape(1, 1, -1)
    for _ in range(2):  # filter the last axis, swap the axes, filter the other one, swap back
        x = torch.cat((x[..., :radius].flip(-1), x, x[..., -radius:].flip(-1)), -1)
        rows = F.conv1d(x.reshape(-1, 1, x.shape[-1]), kernel)
        x = rows.reshape(*x.shape[:-1], rows.shape[-1]).transpose(-1, -2)
    return x


def _hole_mean(x: Tensor, hole: Tensor) -> Tensor:
    weight = hole.to(x.dtype)
    return (x * weight).sum((1, 2, 3)) / (weight.sum((1, 2, 3)) * x.shape[1])


def _check(reference: Tensor, candidate: Tensor, hole: Tensor) -> None:
    for name, image in (("reference", reference), ("candidate", candidate)):
        if image.dtype != torch.uint8 or image.ndim != 4 or image.shape[1] != 3:
            raise ValueError(f"{name} must be uint8 [N, 3, H, W], got {image.dtype} {tuple(image.shape)}")
    if reference.shape != candidate.shape:
        raise ValueError(f"both images must have one shape, got {tuple(reference.shape)} and {tuple(candidate.shape)}")
    if hole.dtype != torch.bool or hole.shape != (len(reference), 1, *reference.shape[-2:]):
        raise ValueError(
            f"hole must be bool {(len(reference), 1, *reference.shape[-2:])}, got {hole.dtype} {tuple(hole.shape)}"
        )
    if not hole.flatten(1).any(1).all():
        raise ValueError("every image must have a hole to be measured in, got an empty hole")
