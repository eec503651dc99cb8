"""Layers of the StyleGAN2 synthesis network: modulated convolution, toRGB, and the block of one resolution."""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor, nn

from mmif.config import GeneratorConfig
from mmif.model.layers import RESAMPLE_TAPS, EqualLinear
from mmif.ops import bias_act, modulated_conv2d, setup_filter, upfirdn2d


class SynthesisLayer(nn.Module):
    """Modulated 3x3 convolution, noise, bias, leaky ReLU; optionally upsampling by two first."""

    resample_filter: Tensor | None

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, clamp: float, *, up: int = 1):
        super().__init__()
        self.up, self.resolution, self.clamp = up, resolution, clamp
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels, 3, 3))
        self.weight_scale = 1.0 / math.sqrt(in_channels * 9)
        self.bias = nn.Parameter(torch.zeros(out_channels))
        self.noise_strength = nn.Parameter(torch.zeros(()))
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS) if up > 1 else None, persistent=False)

    def forward(self, x: Tensor, w: Tensor, noise: Tensor) -> Tensor:
        styles = self.affine(w)
        weight = (self.weight * self.weight_scale).to(x.dtype)
        x = modulated_conv2d(x, weight, styles, up=self.up, resample_filter=self.resample_filter)
        x = x + (noise * self.noise_strength).to(x.dtype)
        return bias_act(x, self.bias.to(x.dtype), act="lrelu", clamp=self.clamp)


class ToRGB(nn.Module):
    """Modulated 1x1 convolution to three channels, without demodulation."""

    def __init__(self, in_channels: int, w_dim: int, clamp: float):
        super().__init__()
        self.clamp = clamp
        self.affine = EqualLinear(w_dim, in_channels, bias_init=1.0)
        self.weight = nn.Parameter(torch.randn(3, in_channels, 1, 1))
        self.weight_scale = 1.0 / math.sqrt(in_channels)
        self.bias = nn.Parameter(torch.zeros(3))

    def forward(self, x: Tensor, w: Tensor) -> Tensor:
        styles = self.affine(w) * self.weight_scale
        x = modulated_conv2d(x, self.weight.to(x.dtype), styles, demodulate=False)
        return bias_act(x, self.bias.to(x.dtype), clamp=self.clamp)


class SynthesisBlock(nn.Module):
    """One resolution: up-convolution (but at 4x4), RGB-branch feature added, convolution, toRGB.

    ``add_at`` tells where the feature joins: behind the up-convolution (the default), or on the upsampled input of it.
    """

    resample_filter: Tensor

    def __init__(self, in_channels: int, out_channels: int, w_dim: int, resolution: int, config: GeneratorConfig):
        super().__init__()
        clamp = config.conv_clamp
        self.pre_upconv = config.add_at == "pre_upconv"
        self.first = resolution == 4
        if not self.first:
            up = 1 if self.pre_upconv else 2
            self.conv0 = SynthesisLayer(in_channels, out_channels, w_dim, resolution, clamp, up=up)
        self.conv1 = SynthesisLayer(out_channels, out_channels, w_dim, resolution, clamp)
        self.torgb = ToRGB(out_channels, w_dim, clamp)
        self.register_buffer("resample_filter", setup_filter(RESAMPLE_TAPS), persistent=False)

    def forward(
        self, x: Tensor, rgb: Tensor | None, ws: Sequence[Tensor], noise: Sequence[Tensor], feat: Tensor | None
    ) -> tuple[Tensor, Tensor]:
        """``ws`` and ``noise`` hold one entry per convolution; the last of ``ws`` belongs to toRGB."""
        if not self.first:
            if self.pre_upconv:
                x = self._upsample(x)
                x = x if feat is None else x + feat
            x = self.conv0(x, ws[0], noise[0])
            if feat is not None and not self.pre_upconv:
                x = x + feat
        x = self.conv1(x, ws[-2], noise[-1])
        new_rgb = self.torgb(x, ws[-1]).float()
        return x, new_rgb if rgb is None else self._upsample(rgb) + new_rgb

    def _upsample(self, x: Tensor) -> Tensor:
        return upfirdn2d(x, self.resample_filter, up=2, padding=(2, 1, 2, 1), gain=4.0)
