"""Bottlenecks between backbone and decoder: adaptive contextual (ACB), AOT and plain residual (paper Table 8).

All map ``(feature, previous gate)`` [N, C, H, W] to the same pair, so that the encoder can chain any of them.
"""

from __future__ import annotations

import math
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.config import EncoderConfig
from mmif.ops import acb_fusion, acb_fusion_code
from mmif.ops._common import wide_dtype

SLOPE = 0.2  # of the leaky ReLU behind a bottleneck


class _Post(nn.Module):
    """Batch norm and leaky ReLU on the output of a bottleneck (``acb_post``), or nothing."""

    def __init__(self, channels: int, enabled: bool):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if enabled else None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.norm is None else F.leaky_relu(self.norm(x), SLOPE)

    def affine(self) -> dict[str, Any]:
        """The same as arguments of :func:`acb_fusion`, where it is a fixed map and no gradient is wanted, else none."""
        norm = self.norm
        if norm is None or norm.training or torch.is_grad_enabled():
            return {}
        assert norm.running_mean is not None
        assert norm.running_var is not None
        wide = wide_dtype(norm.running_var)  # the shift is a difference
        mean, var, weight, bias = (t.to(wide) for t in (norm.running_mean, norm.running_var, norm.weight, norm.bias))
        scale = weight * torch.rsqrt(var + norm.eps)
        return {"scale": scale, "shift": bias - mean * scale, "slope": SLOPE}


class AdaptiveContextualBottleneck(nn.Module):
    """Eq. 1: dilated paths, weighted per channel by what their gating features say, plus the input.

    ``acb_variant="code"`` is what the predecessor released instead: one average-pooled gating vector, a scalar per
    path, and a gated blend with the input.
    """

    def __init__(self, channels: int, config: EncoderConfig):
        super().__init__()
        self.dilations, self.variant = config.dilations, config.acb_variant
        num_paths = len(self.dilations)
        self.gate = nn.Conv2d(channels, channels, 3, padding=1)
        # The paths one behind the other, as a convolution would have them: to(memory_format=...) takes four axes alone.
        self.path_weight = nn.Parameter(torch.empty(num_paths * channels, channels, 3, 3))
        nn.init.kaiming_normal_(self.path_weight, nonlinearity="relu")
        self.path_bias = nn.Parameter(torch.zeros(num_paths, channels))
        self.fuse = nn.Conv2d(3 * channels, channels, 3, padding=1)
        self.fc = nn.Linear(channels, channels if self.variant == "paper" else num_paths)
        if self.variant == "code":
            nn.init.xavier_uniform_(self.fc.weight)
        self.post = _Post(channels, config.acb_post)

    def forward(self, x: Tensor, gate_prev: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.gate(x)
        gate = torch.sigmoid(raw)
        if self.variant == "code":
            return self.post(self._code(x, raw, gate_prev)), gate
        affine = self.post.affine()
        out = self._paper(x, gate, gate_prev, affine)
        return (out if affine else self.post(out)), gate

    def _paths(self) -> tuple[Tensor, Tensor]:
        """Weight ``[R, C, C, 3, 3]`` and bias ``[R, C]`` of the paths."""
        return self.path_weight.unflatten(0, self.path_bias.shape), self.path_bias

    def _paper(self, x: Tensor, gate: Tensor, gate_prev: Tensor, affine: dict[str, Any]) -> Tensor:
        assert self.fuse.bias is not None  # it was made with one
        weights = (*self._paths(), self.fuse.weight, self.fuse.bias, self.fc.weight, self.fc.bias)
        return acb_fusion(x, torch.cat([gate, gate_prev], dim=1), *weights, dilations=self.dilations, **affine)

    def _code(self, x: Tensor, raw: Tensor, gate_prev: Tensor) -> Tensor:
        assert self.fuse.bias is not None
        weights = (*self._paths(), self.fuse.weight, self.fuse.bias, self.fc.weight)
        return acb_fusion_code(x, raw, gate_prev, *weights, dilations=self.dilations)


class AOTBlock(nn.Module):
    """Aggregated contextual transformations (Zeng et al. 2021): four narrow dilated paths, fused, gated blend."""

    def __init__(self, channels: int, config: EncoderConfig):
        super().__init__()
        # AOT's own rates, as far as reflect padding reaches on the coarsest feature map.
        self.dilations = tuple(min(d, config.resolution // 8 - 1) for d in (1, 2, 4, 8))
        narrow = channels // len(self.dilations)
        self.paths = nn.ModuleList(nn.Conv2d(channels, narrow, 3, dilation=d) for d in self.dilations)
        self.fuse = nn.Conv2d(narrow * len(self.dilations), channels, 3)
        self.gate = nn.Conv2d(channels, channels, 3)

    def forward(self, x: Tensor, gate_prev: Tensor) -> tuple[Tensor, Tensor]:
        paths = [
            F.relu(conv(F.pad(x, (d, d, d, d), mode="reflect")))
            for conv, d in zip(self.paths, self.dilations, strict=True)
        ]
        fused = self.fuse(F.pad(torch.cat(paths, 1), (1, 1, 1, 1), mode="reflect"))
        raw = self.gate(F.pad(x, (1, 1, 1, 1), mode="reflect"))
        std, mean = torch.std_mean(raw, dim=(2, 3), keepdim=True)
        gate = torch.sigmoid(5 * (2 * (raw - mean) / (std + 1e-9) - 1))
        return x * (1 - gate) + fused * gate, gate_prev


class ResidualBlock(nn.Module):
    """Two 3x3 convolutions with batch norm beside the identity: the RES row of Table 8."""

    def __init__(self, channels: int, config: EncoderConfig):
        super().__init__()
        del config  # nothing to choose; the constructor is shared with the other bottlenecks
        self.body = nn.Sequential(
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
            nn.ReLU(),
            nn.Conv2d(channels, channels, 3, padding=1, bias=False),
            nn.BatchNorm2d(channels),
        )

    def forward(self, x: Tensor, gate_prev: Tensor) -> tuple[Tensor, Tensor]:
        return x + self.body(x), gate_prev


BOTTLENECKS = {"acb": AdaptiveContextualBottleneck, "aot": AOTBlock, "res": ResidualBlock}


class SelfAttention(nn.Module):
    """Pre-norm multi-head self-attention over all positions, residual: ``[N, C, H, W]`` to the same."""

    def __init__(self, channels: int, heads: int):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(1, channels)
        self.qkv = nn.Conv2d(channels, 3 * channels, 1)
        self.proj = nn.Conv2d(channels, channels, 1)

    def forward(self, x: Tensor) -> Tensor:
        n, c, h, w = x.shape
        q, k, v = self.qkv(self.norm(x)).reshape(n, 3, self.heads, c // self.heads, h * w).unbind(1)
        # Written out rather than F.scaled_dot_product_attention: its CPU kernel's strides break ONNX export.
        alpha = (q.transpose(2, 3) @ k / math.sqrt(c // self.heads)).softmax(-1)
        y = (v @ alpha.transpose(2, 3)).reshape(n, c, h, w)
        return x + self.proj(y)
