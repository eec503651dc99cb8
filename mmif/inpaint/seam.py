"""Let a fill meet the known pixels round it without a visible edge, by changing the fill alone."""

from __future__ import annotations

import numpy as np

_RING = 3  # known pixels next to the hole that are compared
_REACH = 1 / 12  # distance, as a share of the side, at which half of the correction is left


def match_seam(fill: np.ndarray, seen: np.ndarray, hole: np.ndarray) -> np.ndarray:
    """Add a smooth correction to the fill so that it continues the known pixels.

    The difference (seen - fill) on a ring just outside the hole is carried inwards as a weighted mean,

        c(x) = sum_r K(x - r) d(r) / (sum_r K(x - r) + k),  K(v) = (|v|^2 + 1)^(-3/2),

    close to a membrane stretched over the hole near its border; the constant k lets it fade towards the middle, where
    the fill keeps its own colours.

    Args:
        fill: uint8 [S, S, 3], what the model made of the whole square.
        seen: uint8 [S, S, 3], the photograph at the same size.
        hole: bool [S, S].

    Returns:
        uint8 [S, S, 3], equal to ``seen`` outside the hole. Without a known pixel next to the hole, the fill as it is.
    """
    ring = _grow(hole, _RING) & ~hole
    result = fill.astype(np.float32)
    if ring.any():
        weights = ring[..., None] * np.dstack([seen.astype(np.float32) - result, np.ones_like(hole, np.float32)])
        spread = _convolve(weights)
        # A straight border at distance h weighs 2 * _RING / h^2: k is that weight at the reach.
        fade = 2.0 * _RING / (_REACH * len(hole)) ** 2
        result += spread[..., :3] / (spread[..., 3:] + fade)
    return np.where(hole[..., None], result.round().clip(0, 255).astype(np.uint8), seen)


def _grow(mask: np.ndarray, steps: int) -> np.ndarray:
    """Dilate a bool mask [H, W] by ``steps`` pixels."""
    for _ in range(steps):
        grown = mask.copy()
        grown[1:] |= mask[:-1]
        grown[:-1] |= mask[1:]
        grown[:, 1:] |= mask[:, :-1]
        grown[:, :-1] |= mask[:, 1:]
        mask = grown
    return mask


def _convolve(planes: np.ndarray) -> np.ndarray:
    """Convolve [S, S, C] with the kernel K, zero outside."""
    side = len(planes)
    offsets = np.fft.fftfreq(2 * side, 1 / (2 * side)).astype(np.float32)  # 0, 1, .., -2, -1: no wrap-around
    kernel = (offsets[:, None] ** 2 + offsets[None, :] ** 2 + 1.0) ** -1.5
    size, axes = (2 * side, 2 * side), (0, 1)
    spectrum = np.fft.rfft2(planes, size, axes) * np.fft.rfft2(kernel)[..., None]
    return np.fft.irfft2(spectrum, size, axes)[:side, :side]
