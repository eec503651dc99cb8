"""Discriminators: StyleGAN2's for the pre-training, spectrally normalised PatchGANs for the encoder's training."""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from mmif.config import GeneratorConfig
from mmif.model.layers import EqualConv2d, EqualLinear


class PatchDiscriminator(nn.Module):
    """SN-PatchGAN: five 4x4 convolutions, strides 2 2 2 1 1, no bias (paper section 3.4, predecessor's code).

    ``[N, in_channels, s, s]`` to logits ``[N, 1, s/8 - 2, s/8 - 2]``: one for every patch.
    """

    def __init__(self, in_channels: int, width: int = 64):
        super().__init__()
        widths = [in_channels, width, width * 2, width * 4, width * 8, 1]
        layers = []
        for i, stride in enumerate((2, 2, 2, 1, 1)):
            conv = nn.Conv2d(widths[i], widths[i + 1], 4, stride, 1, bias=False)
            nn.init.normal_(conv.weight, std=0.02)
            layers.append(spectral_norm(conv))
        self.layers = nn.ModuleList(layers)

    def forward(self, x: Tensor) -> Tensor:
        for layer in self.layers[:-1]:
            x = F.leaky_relu(layer(x), 0.2)
        return self.layers[-1](x)


class _ResidualBlock(nn.Module):
    """Two convolutions, the second downsampling, beside a downsampling 1x1 convolution; sum / sqrt(2)."""

    def __init__(self, in_channels: int, out_channels: int, clamp: float):
        super().__init__()
        half = math.sqrt(0.5)
        self.conv0 = EqualConv2d(in_channels, in_channels, 3, act="lrelu", clamp=clamp)
        self.conv1 = EqualConv2d(in_channels, out_channels, 3, act="lrelu", down=2, gain=1.0, clamp=clamp * half)
        self.skip = EqualConv2d(in_channels, out_channels, 1, down=2, bias=False, gain=half)

    def forward(self, x: Tensor) -> Tensor:
        return self.skip(x) + self.conv1(self.conv0(x))


class StyleDiscriminator(nn.Module):
    """StyleGAN2's residual discriminator with minibatch standard deviation: ``[N, in_channels, s, s]`` to ``[N]``."""

    def __init__(self, config: GeneratorConfig, in_channels: int = 3, group_size: int = 4):
        super().__init__()
        fine_to_coarse = config.resolutions[::-1]
        clamp, channels = config.conv_clamp, config.channels(4)
        self.group_size = group_size
        self.from_rgb = EqualConv2d(in_channels, config.channels(config.resolution), 1, act="lrelu", clamp=clamp)
        self.blocks = nn.ModuleList(
            _ResidualBlock(config.channels(r), config.channels(r // 2), clamp) for r in fine_to_coarse[:-1]
        )
        self.conv = EqualConv2d(channels + 1, channels, 3, act="lrelu", clamp=clamp)
        self.dense = EqualLinear(channels * 16, channels, act="lrelu")
        self.out = EqualLinear(channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.from_rgb(x)
        for block in self.blocks:
            x = block(x)
        x = self.conv(torch.cat([x, self._minibatch_std(x)], dim=1))
        return self.out(self.dense(x.flatten(1))).squeeze(1)

    def _minibatch_std(self, x: Tensor) -> Tensor:
        """Mean standard deviation over groups of the batch as one more channel, ``[N, 1, H, W]``."""
        n, c, h, w = x.shape
        group = math.gcd(self.group_size, n)
        y = x.float().reshape(group, n // group, c, h, w)
        std = (y - y.mean(0)).square().mean(0).add(1e-8).sqrt().mean((1, 2, 3))
        return std.repeat(group)[:, None, None, None].expand(n, 1, h, w).to(x.dtype)
