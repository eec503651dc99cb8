"""StyleGAN2 generator with an entry for known pixels: mapping network, synthesis network, F&W+ latent space.

Karras et al. 2020 (config-f: skip toRGB, weight demodulation, [1, 3, 3, 1] resampling), and Eqs. 5 and 6 of the
paper: with RGB-branch features given, the image comes from F&W+, without them from W+ alone.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import pairwise
from typing import cast

import torch
from torch import Tensor, nn

from mmif.config import GeneratorConfig, LatentConfig
from mmif.model.layers import RESAMPLE_TAPS, EqualLinear
from mmif.model.synthesis_plan import SynthesisPlan
from mmif.ops import bias_act, fuses_epilogue, modulated_conv2d, setup_filter, upfirdn2d


class MappingNetwork(nn.Module):
    """Map ``z`` [N, z_dim] to ``w`` [N, w_dim]: normalise the second moment, then dense layers."""

    def __init__(self, config: LatentConfig):
        super().__init__()
        widths = [config.z_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nn.Sequential(*(EqualLinear(i, o, act="lrelu", lr_multiplier=0.01) for i, o in pairwise(widths)))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8))


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


class SynthesisNetwork(nn.Module):
    """``ws`` [N, L, w_dim] and RGB-branch features to an image [N, 3, s, s]; L = 2 log2(s) - 2."""

    def __init__(self, config: GeneratorConfig, w_dim: int):
        super().__init__()
        self.config = config
        self.const = nn.Parameter(torch.randn(config.channels(4), 4, 4))
        self.blocks = nn.ModuleList(
            SynthesisBlock(config.channels(max(r // 2, 4)), config.channels(r), w_dim, r, config)
            for r in config.resolutions
        )
        self._plan: tuple[object, SynthesisPlan] | None = None

    @property
    def noise_sizes(self) -> list[int]:
        """Side of the noise image of every convolution, in order."""
        return [4] + [r for r in self.config.resolutions[1:] for _ in range(2)]

    def forward(self, ws: Tensor, noise: Sequence[Tensor], feats: dict[int, Tensor] | None = None) -> Tensor:
        """Generate an image.

        Args:
            ws: ``[N, L, w_dim]``.
            noise: one ``[N, 1, r, r]`` per convolution, see :attr:`noise_sizes`.
            feats: RGB-branch features by resolution (4, 8, ..., s), or None for W+ alone.

        Returns:
            ``[N, 3, s, s]``, float32, about [-1, 1], not clamped.
        """
        feats = feats or {}
        if self.config.add_at == "post_upconv" and fuses_epilogue(ws, *self.parameters()):
            return self.plan()(ws, noise, feats, self.config.const_mode == "replace").to(torch.float32)
        return self._plain(ws, noise, feats)

    def _plain(self, ws: Tensor, noise: Sequence[Tensor], feats: dict[int, Tensor]) -> Tensor:
        """Layer by layer, as it is written: what trains, exports and compiles."""
        x = self._constant(ws, feats.get(4))
        rgb, layer = None, 0
        for block, r in zip(self.blocks, self.config.resolutions, strict=True):
            convs = 1 if r == 4 else 2
            block_ws = [ws[:, layer + i] for i in range(convs + 1)]  # toRGB shares the next block's first style
            x, rgb = block(x, rgb, block_ws, noise[layer : layer + convs], feats.get(r) if r > 4 else None)
            layer += convs
        assert rgb is not None
        return rgb

    def plan(self) -> SynthesisPlan:
        """The fused form for inference, made anew when a parameter has changed."""
        dtype = _inference_dtype(self.const)
        key = (dtype, *((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters()))
        if self._plan is None or self._plan[0] != key:
            with torch.no_grad():
                self._plan = (
                    key,
                    SynthesisPlan(
                        cast("list[SynthesisBlock]", list(self.blocks)), self.const, self.config.conv_clamp, dtype
                    ),
                )
        return self._plan[1]

    def _constant(self, ws: Tensor, feat: Tensor | None) -> Tensor:
        const = self.const.expand(ws.shape[0], -1, -1, -1)
        if feat is None:
            return const
        return feat if self.config.const_mode == "replace" else const + feat


def _inference_dtype(const: Tensor) -> torch.dtype:
    """The dtype of the convolutions: autocast's where it is on."""
    device = const.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else const.dtype


class Generator(nn.Module):
    """Mapping and synthesis networks together: what the GAN pre-training trains."""

    def __init__(self, latent: LatentConfig, config: GeneratorConfig):
        super().__init__()
        self.mapping = MappingNetwork(latent)
        self.synthesis = SynthesisNetwork(config, latent.w_dim)
        self.z_dim, self.num_ws = latent.z_dim, config.num_ws
