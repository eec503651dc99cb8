"""Building blocks that several parts of the model share: equalised layers, gated convolution, blur-downsampling."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.ops import bias_act, setup_filter, upfirdn2d

RESAMPLE_TAPS = (1.0, 3.0, 3.0, 1.0)  # StyleGAN2's low-pass filter


class EqualLinear(nn.Module):
    """Dense layer with equalised learning rate, then an activation: ``[..., I]`` to ``[..., O]``.

    The weight is stored with variance ``1 / lr_multiplier^2`` and scaled at run time (StyleGAN2).
    """

    def __init__(
        self,
        in_features: int,
        out_features: int,
        *,
        act: str = "linear",
        lr_multiplier: float = 1.0,
        bias_init: float = 0.0,
        weight_init: float = 1.0,
    ):
        super().__init__()
        self.act, self.lr_multiplier = act, lr_multiplier
        self.weight = nn.Parameter(torch.randn(out_features, in_features) * (weight_init / lr_multiplier))
        self.bias = nn.Parameter(torch.full([out_features], bias_init / lr_multiplier))
        self.scale = lr_multiplier / math.sqrt(in_features)

    def forward(self, x: Tensor) -> Tensor:
        y = F.linear(x, self.weight * self.scale)
        return bias_act(y, self.bias * self.lr_multiplier, dim=-1, act=self.act)


class EqualConv2d(nn.Module):
    """Convolution ("same" padding) with equalised learning rate, optional blur-downsampling, bias and activation."""

    resample_filter: Tensor | None

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: int,
        *,
        act: str = "linear",
        down: int = 1,
        bias: bool = True,
        gain: float | None = None,
        clamp: float | None = None,
        zero_init: bool = False,
    ):
        super().__init__()
        shape = (out_channels, in_channels, kernel_size, kernel_size)
        self.weight = nn.Parameter(torch.zeros(shape) if zero_init else torch.randn(shape))
        self.bias = nn.Parameter(torch.zeros(out_channels)) if bias else None
        self.act, self.down, self.gain, self.clamp = act, down, gain, clamp
        self.scale = 1.0 / math.sqrt(in_channels * kernel_size**2)
        self.pad = kernel_size // 2
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS) if down > 1 else None, persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        weight = self.weight * self.scale
        if self.resample_filter is None:
            x = F.conv2d(x, weight, padding=self.pad)
        else:
            # Blur, then convolve with stride: the pads centre filter and kernel together.
            taps = len(RESAMPLE_TAPS)
            before, after = self.pad + (taps - 1) // 2, self.pad + (taps - 2) // 2
            x = upfirdn2d(x, self.resample_filter, padding=(before, after, before, after))
            x = F.conv2d(x, weight, stride=self.down)
        return bias_act(x, self.bias, act=self.act, gain=self.gain, clamp=self.clamp)


class GatedConv2d(nn.Module):
    """Gated convolution ``relu(bn(lrelu(W_f x) * sigmoid(W_g x)))``; also returns the gate ``sigmoid(W_g x)``."""

    def __init__(self, in_channels: int, out_channels: int, kernel_size: int, *, stride: int = 1):
        super().__init__()
        pad = kernel_size // 2
        self.feature = nn.Conv2d(in_channels, out_channels, kernel_size, stride, pad, bias=False)
        self.gate = nn.Conv2d(in_channels, out_channels, kernel_size, stride, pad)
        self.norm = nn.BatchNorm2d(out_channels)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        gate = torch.sigmoid(self.gate(x))
        return F.relu(self.norm(F.leaky_relu(self.feature(x), 0.2) * gate)), gate
