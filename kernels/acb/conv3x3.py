"""What the kernels of the adaptive contextual bottleneck share: a 3x3 convolution as an implicit matrix product.

A program makes BLOCK_M pixels of one image by BLOCK_N output channels. Its loop runs over the nine taps and the input
channels; neighbours are found by index, so that no padded copy is made. Images have their channels last, weights are
``[O, 3, 3, C]`` with any strides but the last. Sums are float32.
"""

# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import Config

TYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}  # Triton's names of ours

# No more than four warps: Triton has miscompiled implicit products with eight (triton#1254, pytorch#173068).
_BLOCKS = ((3, 64, 64, 64), (3, 128, 64, 64), (4, 64, 32, 64), (3, 64, 128, 64), (4, 128, 128, 32))
_CONFIGS = tuple(Config(4, stages, (("BLOCK_M", m), ("BLOCK_N", n), ("BLOCK_K", k))) for stages, m, n, k in _BLOCKS)


@triton.jit
def reflected(i, size):
    """Where position ``i`` lies in a row that is mirrored at its ends, which are not repeated."""
    i = tl.abs(i)
    return size - 1 - tl.abs(size - 1 - i)


@triton.jit
def dilation_of(r, DILATIONS: tl.constexpr):
    """``DILATIONS[r]`` for an ``r`` that is known at run time only."""
    d = 0
    for i in tl.static_range(len(DILATIONS)):
        d = tl.where(r == i, DILATIONS[i], d)
    return d


@triton.jit
def convolved(
    image,  # [H, W, C], the first pixel
    weight,  # [O, 3, 3, C]
    weight_o,  # strides of the weight over output channels and taps
    weight_tap,
    pixels,  # [BLOCK_M], may lie behind the image: their results are worth nothing
    channels,  # [BLOCK_N], the same
    dilation,
    H,
    W,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    REFLECT: tl.constexpr,  # reflect padding, else zeros
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """The convolution at ``pixels`` and ``channels``, without bias: [BLOCK_M, BLOCK_N] float32."""
    pixels = tl.minimum(pixels, H * W - 1)  # in range, so that their loads need no mask
    channels = tl.minimum(channels, C_OUT - 1)
    y, x = pixels // W, pixels % W
    blocks: tl.constexpr = (C_IN + BLOCK_K - 1) // BLOCK_K
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for i in range(9 * blocks):
        tap = i // blocks
        c = i % blocks * BLOCK_K + tl.arange(0, BLOCK_K)
        yy, xx = y + (tap // 3 - 1) * dilation, x + (tap % 3 - 1) * dilation
        sources = image + c[None, :]
        columns = weight + channels[None, :] * weight_o + tap * weight_tap + c[:, None]
        if REFLECT:
            sources += (reflected(yy, H) * W + reflected(xx, W))[:, None] * C_IN
            a = tl.load(sources) if C_IN % BLOCK_K == 0 else tl.load(sources, mask=c[None, :] < C_IN, other=0.0)
        else:
            inside = (yy >= 0) & (yy < H) & (xx >= 0) & (xx < W)
            a = tl.load(sources + (yy * W + xx)[:, None] * C_IN, mask=inside[:, None] & (c[None, :] < C_IN), other=0.0)
        b = tl.load(columns) if C_IN % BLOCK_K == 0 else tl.load(columns, mask=c[:, None] < C_IN, other=0.0)
        acc = tl.dot(a, b, acc, input_precision=PRECISION)
    return acc


@triton.jit
def relu(v):
    """ReLU that keeps NaN."""
    return tl.where(v < 0, 0.0, v)


def configs(capability: int, dtype: torch.dtype, tile: int = 128 * 128) -> Sequence[Config]:
    """The configurations of an implicit product; fewer where registers (``tile``), memory or trust are short."""
    if dtype == torch.float32:  # twice the bytes per block
        return [Config(4, 2, (("BLOCK_M", 64), ("BLOCK_N", 64), ("BLOCK_K", 32)))]
    fitting = [config for config in _CONFIGS if config.kwargs["BLOCK_M"] * config.kwargs["BLOCK_N"] <= tile]
    return fitting if capability < 100 else fitting[:3]  # mamba#997: a pipelined loop went wrong there


def precision(dtype: torch.dtype) -> str:
    """How float32 is multiplied: as PyTorch's convolutions were told to."""
    told: Any = torch.backends.cudnn
    return "tf32" if dtype == torch.float32 and told.conv.fp32_precision == "tf32" else "ieee"


def as_channels_last(t: Tensor) -> Tensor:
    """``[..., C, H, W]`` as ``[..., H, W, C]``, dense."""
    return t.movedim(-3, -1).contiguous()


def packed(weight: Tensor) -> Tensor:
    """``[..., C, 3, 3]`` as ``[..., 3, 3, C]`` with C dense and one stride over the taps; a copy only if needed."""
    weight = weight.movedim(-3, -1)
    good = weight.stride(-1) == 1 and weight.stride(-3) == 3 * weight.stride(-2)
    return weight if good else weight.contiguous()


def compiled_cases(capability: int, tile: int = 128 * 128) -> Iterator[tuple[str, Config]]:
    """Names of dtypes with the configurations to compile: all in fp16, the first in the others."""
    for name, dtype in TYPES.items():
        yield from ((name, config) for config in configs(capability, dtype, tile)[: None if name == "fp16" else 1])
