"""Kernels of ``mmif::acb_paths`` and ``mmif::acb_blend``: dilated 3x3 convolutions with reflect padding and ReLU.

The gradient of the input is one implicit product over all paths (:mod:`mmif.kernels.acb.paths_bwd`).
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import Config, Specimen, capability, run
from .conv3x3 import (
    as_channels_last,
    compiled_cases,
    configs,
    convolved,
    dilation_of,
    packed,
    precision,
    relu,
)

_BLEND_TILE = 128 * 64  # pixels by channels: the blend has two accumulators, more than that spills


@triton.jit
def paths_kernel(
    image,  # [N, H, W, C]
    weight,  # [R, O, 3, 3, C]
    bias,  # [R, O]
    out,  # [N, R, H, W, O]
    weight_r,
    weight_o,
    weight_tap,
    H,
    W,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    DILATIONS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One path of one image."""
    r, n = tl.program_id(1), tl.program_id(2).to(tl.int64)
    tiles_o: tl.constexpr = (C_OUT + BLOCK_N - 1) // BLOCK_N
    pixels = tl.program_id(0) // tiles_o * BLOCK_M + tl.arange(0, BLOCK_M)
    channels = tl.program_id(0) % tiles_o * BLOCK_N + tl.arange(0, BLOCK_N)
    z = convolved(
        image + n * H * W * C_IN, weight + r * weight_r, weight_o, weight_tap, pixels, channels,
        dilation_of(r, DILATIONS), H, W, C_IN, C_OUT, True, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip
    z += tl.load(bias + r * C_OUT + channels, mask=channels < C_OUT, other=0.0).to(tl.float32)[None, :]
    to = out + (n * len(DILATIONS) + r) * H * W * C_OUT + pixels[:, None] * C_OUT + channels[None, :]
    tl.store(to, relu(z).to(out.dtype.element_ty), mask=(pixels[:, None] < H * W) & (channels[None, :] < C_OUT))


@triton.jit
def blend_kernel(
    image,  # [N, H, W, C]
    weight,  # [R, C, 3, 3, C]
    bias,  # [R, C]
    mix,  # [N, R]
    gate,  # [N, H, W, C]
    out,  # [N, H, W, C]
    weight_r,
    weight_o,
    weight_tap,
    H,
    W,
    C: tl.constexpr,
    DILATIONS: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """All paths of one image, one after the other: each is added to the mix in registers and never written."""
    n = tl.program_id(1).to(tl.int64)
    tiles_o: tl.constexpr = (C + BLOCK_N - 1) // BLOCK_N
    pixels = tl.program_id(0) // tiles_o * BLOCK_M + tl.arange(0, BLOCK_M)
    channels = tl.program_id(0) % tiles_o * BLOCK_N + tl.arange(0, BLOCK_N)
    mixed = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    for r in range(len(DILATIONS)):
        z = convolved(
            image + n * H * W * C, weight + r * weight_r, weight_o, weight_tap, pixels, channels,
            dilation_of(r, DILATIONS), H, W, C, C, True, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
        )  # fmt: skip
        z += tl.load(bias + r * C + channels, mask=channels < C, other=0.0).to(tl.float32)[None, :]
        mixed += tl.load(mix + n * len(DILATIONS) + r).to(tl.float32) * relu(z)
    at = n * H * W * C + pixels[:, None] * C + channels[None, :]
    mask = (pixels[:, None] < H * W) & (channels[None, :] < C)
    x = tl.load(image + at, mask=mask, other=0.0).to(tl.float32)
    g = tl.load(gate + at, mask=mask, other=0.0).to(tl.float32)
    tl.store(out + at, (x + g * (mixed - x)).to(out.dtype.element_ty), mask=mask)


def paths(
    x: Tensor, weight: Tensor, bias: Tensor, dilations: tuple[int, ...], reference: Callable[..., Tensor]
) -> Tensor:
    """``relu(conv3x3_dilated_r(x) + bias_r)``, ``[N, R, O, H, W]`` with O last in memory."""
    image, taps, bias = as_channels_last(x), packed(weight), bias.contiguous()
    n, h, w, c = image.shape
    r, o = weight.shape[:2]

    def launch(config: Config) -> Tensor:
        out = image.new_empty(n, r, h, w, o)
        paths_kernel[(_tiles(config, h * w, o), r, n)](
            image, taps, bias, out, *_strides(taps), h, w, c, o, dilations, precision(x.dtype), **config.kwargs
        )
        return out.movedim(-1, 2)

    key = ("forward", n, c, o, h, w, *dilations, str(x.dtype), precision(x.dtype))
    return run(
        "acb_paths",
        key,
        configs(capability(x.device), x.dtype),
        launch,
        lambda: _hwc(reference(x, weight, bias, dilations)),
        x.device,
    )


def blend(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mix: Tensor,
    gate: Tensor,
    dilations: tuple[int, ...],
    reference: Callable[..., Tensor],
) -> Tensor:
    """``x (1 - gate) + gate sum_r mix_r relu(conv3x3_dilated_r(x) + bias_r)`` with its channels last in memory."""
    image, opened, taps = as_channels_last(x), as_channels_last(gate), packed(weight)
    bias, mix = bias.contiguous(), mix.contiguous()
    n, h, w, c = image.shape

    def launch(config: Config) -> Tensor:
        out = torch.empty_like(image)
        blend_kernel[(_tiles(config, h * w, c), n)](
            image, taps, bias, mix, opened, out, *_strides(taps), h, w, c, dilations, precision(x.dtype),
            **config.kwargs,
        )  # fmt: skip
        return out.movedim(-1, 1)

    key = ("forward", n, c, h, w, *dilations, str(x.dtype), precision(x.dtype))
    return run(
        "acb_blend",
        key,
        configs(capability(x.device), x.dtype, _BLEND_TILE),
        launch,
        lambda: _hwc(reference(x, weight, bias, mix, gate, dilations)),
        x.device,
    )


def _hwc(t: Tensor) -> Tensor:
    return as_channels_last(t).movedim(-1, -3)


def _tiles(config: Config, pixels: int, channels: int) -> int:
    blocks = config.kwargs
    return triton.cdiv(pixels, blocks["BLOCK_M"]) * triton.cdiv(channels, blocks["BLOCK_N"])


def _strides(taps: Tensor) -> tuple[int, int, int]:
    """Strides of ``[R, O, 3, 3, C]`` over paths, output channels and taps."""
    return taps.stride(0), taps.stride(1), taps.stride(3)


def specimens(capability: int, shapes: Sequence[tuple[int, int]] = ((256, 32),)) -> Iterator[Specimen]:
    """Both kernels for channels and side of the image."""
    for kernel in (paths_kernel, blend_kernel):
        for c, side in shapes:
            for dtype, config in compiled_cases(capability, _BLEND_TILE if kernel is blend_kernel else 128 * 128):
                fixed = {"C": c, "C_IN": c, "C_OUT": c, "DILATIONS": (1, 2, 3, 4), "PRECISION": "ieee"}
                constexprs = {name: value for name, value in fixed.items() if name in kernel.arg_names}
                numbers = ("weight_r", "weight_o", "weight_tap", "H", "W")
                blocks = dict(config.blocks)
                pointers = [a for a in kernel.arg_names if a not in (*numbers, *constexprs, *blocks)]
                signature = {**dict.fromkeys(pointers, f"*{dtype}"), **dict.fromkeys(numbers, "i32")}
                yield Specimen(
                    f"{kernel.__name__} C={c} {side}x{side} {dtype}", kernel, signature, constexprs, config,
                    (*pointers, *numbers), hot=dtype != "fp32",
                )  # fmt: skip
