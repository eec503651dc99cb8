"""Canny edges of a batch of photographs, in torch alone."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor

_LOW, _HIGH = 0.1, 0.2  # of the Sobel magnitude of grey values in [0, 1]


def canny(images: Tensor, sigma: float) -> Tensor:
    """Find edges as in Canny (1986): blur, gradient, thinning across the edge, hysteresis.

    Args:
        images: uint8 [N, 3, H, W], RGB.
        sigma: standard deviation of the blur in pixels, > 0.

    Returns:
        bool [N, 1, H, W]; a photograph without contrast has no edge.

    Raises:
        ValueError: sigma is not positive.
    """
    if sigma <= 0:
        raise ValueError(f"the Canny sigma must be > 0, got {sigma}")
    grey = (images.float() / 255 * torch.tensor([0.2125, 0.7154, 0.0721]).view(3, 1, 1)).sum(1, keepdim=True)
    blurred = _blur(grey, sigma)
    smooth, slope = torch.tensor([1.0, 2.0, 1.0]), torch.tensor([-1.0, 0.0, 1.0])
    padded = F.pad(blurred, (1, 1, 1, 1), mode="replicate")
    gx = F.conv2d(padded, (smooth[:, None] * slope).view(1, 1, 3, 3))
    gy = F.conv2d(padded, (slope[:, None] * smooth).view(1, 1, 3, 3))
    magnitude = torch.hypot(gx, gy)
    return _hysteresis(_thin(magnitude, gx, gy))


def _blur(x: Tensor, sigma: float) -> Tensor:
    radius = math.ceil(4 * sigma)
    taps = torch.exp(-0.5 * (torch.arange(-radius, radius + 1) / sigma) ** 2)
    taps = taps / taps.sum()
    inside = torch.ones_like(x[:1])  # weight of the pixels that exist, so that the frame is not darkened
    for shape, pad in (((1, 1, -1, 1), (radius, 0)), ((1, 1, 1, -1), (0, radius))):
        x = F.conv2d(x, taps.view(shape), padding=pad)
        inside = F.conv2d(inside, taps.view(shape), padding=pad)
    return x / inside


def _thin(magnitude: Tensor, gx: Tensor, gy: Tensor) -> Tensor:
    """Magnitude where it is the largest along its gradient (neighbours interpolated), 0 elsewhere and on the frame."""
    height, width = magnitude.shape[-2:]
    padded = F.pad(magnitude, (1, 1, 1, 1))

    def at(dy: int, dx: int) -> Tensor:
        return padded[..., 1 + dy : 1 + dy + height, 1 + dx : 1 + dx + width]

    steep = gy.abs() > gx.abs()
    share = torch.where(steep, gx.abs(), gy.abs()) / torch.where(steep, gy.abs(), gx.abs()).clamp_min(1e-12)
    same = gx * gy >= 0  # the gradient points to the lower right or to the upper left
    peak = magnitude > 0
    for sign in (1, -1):
        diagonal = torch.where(same, at(sign, sign), torch.where(steep, at(sign, -sign), at(-sign, sign)))
        straight = torch.where(steep, at(sign, 0), at(0, sign))
        peak &= magnitude >= share * diagonal + (1 - share) * straight
    frame = F.pad(torch.ones_like(magnitude[..., 1:-1, 1:-1]), (1, 1, 1, 1))
    return magnitude * peak * frame


def _hysteresis(thin: Tensor) -> Tensor:
    """Weak edges that touch, through weak edges, a strong one."""
    weak = thin >= _LOW
    edges = thin >= _HIGH
    while True:
        grown = _dilate(edges) & weak
        if torch.equal(grown, edges):
            return edges
        edges = grown


def _dilate(x: Tensor) -> Tensor:
    """Each pixel or one of its eight neighbours; shifted copies are 10x faster than max_pool2d on the CPU."""
    rows = x.clone()
    rows[..., 1:, :] |= x[..., :-1, :]
    rows[..., :-1, :] |= x[..., 1:, :]
    out = rows.clone()
    out[..., 1:] |= rows[..., :-1]
    out[..., :-1] |= rows[..., 1:]
    return out
