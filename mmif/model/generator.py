"""StyleGAN2 generator with an entry for known pixels: mapping network, synthesis network, F&W+ latent space.

Karras et al. 2020 (config-f: skip toRGB, weight demodulation, [1, 3, 3, 1] resampling), and Eqs. 5 and 6 of the
paper: with RGB-branch features given, the image comes from F&W+, without them from W+ alone.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn

from mmif.config import GeneratorConfig, LatentConfig
from mmif.model.layers import EqualLinear
from mmif.model.synthesis import SynthesisBlock
from mmif.model.synthesis_plan import SynthesisPlan
from mmif.ops import fuses_epilogue
from mmif.ops._common import autocast_dtype


class MappingNetwork(nn.Module):
    """Map ``z`` [N, z_dim] to ``w`` [N, w_dim]: normalise the second moment, then dense layers."""

    def __init__(self, config: LatentConfig):
        super().__init__()
        widths = [config.z_dim] + [config.w_dim] * config.mapping_layers
        self.layers = nn.Sequential(*(EqualLinear(i, o, act="lrelu", lr_multiplier=0.01) for i, o in pairwise(widths)))

    def forward(self, z: Tensor) -> Tensor:
        return self.layers(z * torch.rsqrt(z.square().mean(1, keepdim=True) + 1e-8))


class _Planned(NamedTuple):
    key: object  # what the plan was made from
    plan: SynthesisPlan


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
        self._plan: _Planned | None = None

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
        dtype = autocast_dtype(self.const) or self.const.dtype
        key = (dtype, *((p.data_ptr(), 0 if p.is_inference() else p._version) for p in self.parameters()))
        if self._plan is None or self._plan.key != key:
            with torch.no_grad():
                blocks = cast("list[SynthesisBlock]", list(self.blocks))
                self._plan = _Planned(key, SynthesisPlan(blocks, self.const, self.config.conv_clamp, dtype))
        return self._plan.plan

    def _constant(self, ws: Tensor, feat: Tensor | None) -> Tensor:
        const = self.const.expand(ws.shape[0], -1, -1, -1)
        if feat is None:
            return const
        return feat if self.config.const_mode == "replace" else const + feat


class Generator(nn.Module):
    """Mapping and synthesis networks together: what the GAN pre-training trains."""

    def __init__(self, latent: LatentConfig, config: GeneratorConfig):
        super().__init__()
        self.mapping = MappingNetwork(latent)
        self.synthesis = SynthesisNetwork(config, latent.w_dim)
        self.z_dim, self.num_ws = latent.z_dim, config.num_ws
