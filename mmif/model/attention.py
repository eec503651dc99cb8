"""Gated mask-aware attention with its gated feed-forward: one stage of the mutual decoder (paper Eq. 3)."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.config import EncoderConfig
from mmif.model.fusion import FUSIONS
from mmif.ops import gated_mask_attention, gated_residual


class GatedFeedForward(nn.Module):
    """``z + body(u) * sigmoid(gate(u))`` with ``u = fusion(z, aux)``.

    ``gff="code"``, the predecessor's form: ``z * tanh(gate(u)) + body(u)``.
    """

    def __init__(self, channels: int, aux_channels: int, config: EncoderConfig):
        super().__init__()
        self.form = config.gff
        self.fusion = FUSIONS[config.fusion](channels, aux_channels)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=2, dilation=2),
            nn.GELU(),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, z: Tensor, aux: Tensor) -> Tensor:
        u = self.fusion(z, aux)
        if self.form == "code":
            return z * torch.tanh(self.gate(u)) + self.body(u)
        return gated_residual(z, self.body(u), self.gate(u))


class GatedMaskAttention(nn.Module):
    """GMA: q, k, v guided by the auxiliary branches, gated patch attention, residual, gated feed-forward.

    ``[N, C, H, W]`` to the same; H and W are multiples of every patch size.
    """

    def __init__(self, channels: int, aux_channels: int, config: EncoderConfig):
        super().__init__()
        self.order, self.mode, self.patch_sizes = config.adn_order, config.gma_gate, config.patch_sizes
        self.see_hole = config.gma_gate_mask
        self.qkv = nn.ModuleList(nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.fusion = FUSIONS[config.fusion](channels, aux_channels)
        self.feed_forward = GatedFeedForward(channels, aux_channels, config)
        if self.mode == "none":
            self.gate = None
        else:
            self.gate = nn.Conv2d(channels + self.see_hole, len(self.patch_sizes), 3, padding=1)
            # sigmoid(2) = 0.88: training starts close to plain attention.
            self.gate.bias = nn.Parameter(torch.full((len(self.patch_sizes),), 2.0))

    def forward(self, x: Tensor, aux: Tensor, hole: Tensor) -> Tensor:
        """``x`` [N, C, H, W], ``aux`` [N, A, H, W], ``hole`` [N, 1, H, W], the share of hole in every cell."""
        if self.order == "text":  # fusion before the embeddings
            u = self.fusion(x, aux)
            q, k, v = (conv(u) for conv in self.qkv)
        else:
            guide = self.fusion.guide(aux)  # the same for all three
            q, k, v = (self.fusion.fuse(conv(x), guide) for conv in self.qkv)
        gate = None
        if self.gate is not None:
            seen = torch.cat([x, hole], dim=1) if self.see_hole else x
            gate = torch.sigmoid(self.gate(seen))
        z = gated_mask_attention(q, k, v, gate, residual=x, patch_sizes=self.patch_sizes, mode=self.mode)
        return self.feed_forward(z, aux)


def area_resize(x: Tensor, size: int) -> Tensor:
    """Average ``x`` [N, C, H, W] down (or repeat it up) to ``size`` x ``size`` cells."""
    if x.shape[2] == size:
        return x
    if x.shape[2] > size:
        return F.avg_pool2d(x, x.shape[2] // size)
    return F.interpolate(x, size=(size, size), mode="nearest")
