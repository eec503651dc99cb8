"""What ``op`` of rosinality's stylegan2-pytorch exports: to change the package in that import is all it takes."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmif import ops
from mmif.compat import conv2d_gradfix

__all__ = ["FusedLeakyReLU", "conv2d_gradfix", "fused_leaky_relu", "upfirdn2d"]


def fused_leaky_relu(
    input: Tensor, bias: Tensor | None = None, negative_slope: float = 0.2, scale: float = 2**0.5
) -> Tensor:
    """Return ``scale * leaky_relu(input + bias)``; the bias runs along dimension one, in the dtype of ``input``."""
    b = None if bias is None else bias.to(input.dtype)
    return ops.bias_act(input, b, act="lrelu", alpha=negative_slope, gain=scale)


class FusedLeakyReLU(nn.Module):
    """:func:`fused_leaky_relu` with a bias of its own, zero at first."""

    def __init__(self, channel: int, bias: bool = True, negative_slope: float = 0.2, scale: float = 2**0.5) -> None:
        super().__init__()
        self.bias = nn.Parameter(torch.zeros(channel)) if bias else None
        self.negative_slope = negative_slope
        self.scale = scale

    def forward(self, input: Tensor) -> Tensor:
        return fused_leaky_relu(input, self.bias, self.negative_slope, self.scale)


def upfirdn2d(
    input: Tensor,
    kernel: Tensor,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    pad: Sequence[int] = (0, 0),
) -> Tensor:
    """Upsample, pad, convolve with ``kernel``, downsample; ``mmif.ops.upfirdn2d`` has the steps.

    Args:
        input: ``[N, C, H, W]``, floating point.
        kernel: ``[kh, kw]``, taken as float32.
        up: factor, or ``(x, y)``.
        down: factor, or ``(x, y)``.
        pad: ``(before, after)`` of both axes, or ``(left, right, top, bottom)``; negative crops.
    """
    pads = tuple(pad)
    if len(pads) not in (2, 4):
        raise ValueError(f"upfirdn2d: pad must be (before, after) or (left, right, top, bottom), got {pad}")
    return ops.upfirdn2d(input, kernel.float(), up=up, down=down, padding=pads * (4 // len(pads)))
