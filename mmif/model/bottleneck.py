"""Bottlenecks between backbone and decoder: adaptive contextual (ACB), AOT and plain residual (paper Table 8).

All map ``(feature, previous gate)`` [N, C, H, W] to the same pair, so that the encoder can chain any of them.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.config import EncoderConfig
from mmif.ops import acb_fusion
from mmif.ops.acb_fusion import acb_mix_ref, acb_paths_ref, mean_of_conv3x3


class _Post(nn.Module):
    """Batch norm and leaky ReLU on the output of a bottleneck (``acb_post``), or nothing."""

    def __init__(self, channels: int, enabled: bool):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels) if enabled else None

    def forward(self, x: Tensor) -> Tensor:
        return x if self.norm is None else F.leaky_relu(self.norm(x), 0.2)


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
        self.path_weight = nn.Parameter(torch.empty(num_paths, channels, channels, 3, 3))
        self.path_bias = nn.Parameter(torch.zeros(num_paths, channels))
        for weight in self.path_weight:
            nn.init.kaiming_normal_(weight, nonlinearity="relu")
        self.fuse = nn.Conv2d(3 * channels, channels, 3, padding=1)
        self.fc = nn.Linear(channels, channels if self.variant == "paper" else num_paths)
        if self.variant == "code":
            nn.init.xavier_uniform_(self.fc.weight)
        self.post = _Post(channels, config.acb_post)

    def forward(self, x: Tensor, gate_prev: Tensor) -> tuple[Tensor, Tensor]:
        raw = self.gate(x)
        gate = torch.sigmoid(raw)
        out = self._paper(x, gate, gate_prev) if self.variant == "paper" else self._code(x, raw, gate, gate_prev)
        return self.post(out), gate

    def _paper(self, x: Tensor, gate: Tensor, gate_prev: Tensor) -> Tensor:
        assert self.fuse.bias is not None  # it was made with one
        weights = (self.path_weight, self.path_bias, self.fuse.weight, self.fuse.bias, self.fc.weight, self.fc.bias)
        return acb_fusion(x, torch.cat([gate, gate_prev], dim=1), *weights, dilations=self.dilations)

    def _code(self, x: Tensor, raw: Tensor, gate: Tensor, gate_prev: Tensor) -> Tensor:
        pooled = mean_of_conv3x3(torch.cat([x, raw, gate_prev], dim=1), self.fuse.weight, self.fuse.bias)
        scores = torch.tanh(F.linear(pooled, self.fc.weight))  # one per path; the released code has no bias
        paths = acb_paths_ref(x, self.path_weight, self.path_bias, self.dilations)
        mix = acb_mix_ref(paths, scores[:, :, None].expand(-1, -1, x.shape[1]), torch.zeros_like(x))
        return x * (1 - gate) + mix * gate


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
