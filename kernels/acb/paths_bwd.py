"""Kernel of ``mmif::acb_paths_bwd``: the gradient of the input, as one implicit matrix product over all paths.

A pixel of a row is read at its own position and, near an end, also through the mirror there. So tap k of a window gets
gradient not only from ``u - (k - 1) d`` but, for the tap that looks back, from ``d - u``, and, for the one that looks
ahead, from ``2 (size - 1) - d - u``. Those are added before the product, and the result is written once. The gradients
of weight and bias stay with PyTorch: they are products over all pixels, for which a library is faster.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import Config, Specimen, capability, run
from .conv3x3 import TYPES, as_channels_last, dilation_of, precision

_CONFIGS = tuple(
    Config(4, stages, (("BLOCK_M", m), ("BLOCK_N", n), ("BLOCK_K", k)))
    for stages, m, n, k in ((2, 64, 64, 32), (2, 64, 128, 32), (3, 64, 32, 32))
)


@triton.jit
def mirrored(u, size, dilation, step):
    """The second place along an axis from which ``u`` gets gradient by a tap at ``step``, and whether there is one."""
    place = tl.where(step < 0, dilation - u, 2 * (size - 1) - dilation - u)
    back, ahead = (step < 0) & (u > 0) & (place >= 0), (step > 0) & (u < size - 1) & (place < size)
    return place, back | ahead


@triton.jit
def gradient_at(dz, y, x, there, o, W, C_OUT: tl.constexpr):
    """Gradient at the positions, 0 where there is none: [BLOCK_M, BLOCK_K] float32."""
    mask = there[:, None] & (o[None, :] < C_OUT)
    return tl.load(dz + (y * W + x)[:, None] * C_OUT + o[None, :], mask=mask, other=0.0).to(tl.float32)


@triton.jit
def data_gradient_kernel(
    dz,  # [N, R, H, W, C_OUT], behind the ReLU
    weight,  # [R, 3, 3, C_OUT, C_IN] by its strides
    dx,  # [N, H, W, C_IN]
    weight_r,
    weight_tap,
    weight_o,
    weight_i,
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
    """BLOCK_M pixels by BLOCK_N input channels of one image."""
    n = tl.program_id(1).to(tl.int64)
    tiles_i: tl.constexpr = (C_IN + BLOCK_N - 1) // BLOCK_N
    pixels = tl.program_id(0) // tiles_i * BLOCK_M + tl.arange(0, BLOCK_M)
    channels = tl.program_id(0) % tiles_i * BLOCK_N + tl.arange(0, BLOCK_N)
    u, v = pixels // W, pixels % W
    blocks: tl.constexpr = (C_OUT + BLOCK_K - 1) // BLOCK_K
    acc = tl.zeros((BLOCK_M, BLOCK_N), tl.float32)
    # One loop whose every step reads four places, most of them masked: unrolled by taps, with the places that each has,
    # it would read fewer, and take ten times as long to compile.
    for i in range(9 * len(DILATIONS) * blocks):
        tap, r = i % 9, i // (9 * blocks)
        o = i // 9 % blocks * BLOCK_K + tl.arange(0, BLOCK_K)
        d, down, right = dilation_of(r, DILATIONS), tap // 3 - 1, tap % 3 - 1
        image = dz + (n * len(DILATIONS) + r) * H * W * C_OUT
        y, x = u - down * d, v - right * d
        in_y, in_x = (y >= 0) & (y < H) & (u < H), (x >= 0) & (x < W)
        my, in_my = mirrored(u, H, d, down)
        mx, in_mx = mirrored(v, W, d, right)
        in_my &= u < H
        a = gradient_at(image, y, x, in_y & in_x, o, W, C_OUT) + gradient_at(image, my, x, in_my & in_x, o, W, C_OUT)
        a += gradient_at(image, y, mx, in_y & in_mx, o, W, C_OUT)
        a += gradient_at(image, my, mx, in_my & in_mx, o, W, C_OUT)
        rows = weight + r * weight_r + tap * weight_tap + o[:, None] * weight_o + channels[None, :] * weight_i
        b = tl.load(rows, mask=(o[:, None] < C_OUT) & (channels[None, :] < C_IN), other=0.0)
        acc = tl.dot(a.to(b.dtype), b, acc, input_precision=PRECISION)
    to = dx + n * H * W * C_IN + pixels[:, None] * C_IN + channels[None, :]
    tl.store(to, acc.to(dx.dtype.element_ty), mask=(pixels[:, None] < H * W) & (channels[None, :] < C_IN))


def paths_data_gradient(
    dz: Tensor, x: Tensor, weight: Tensor, dilations: tuple[int, ...], reference: Callable[..., Tensor]
) -> Tensor:
    """Gradient of ``x``, its channels last in memory, from the one behind the ReLU, ``dz`` [N, R, O, H, W]."""
    gradient, taps = as_channels_last(dz), _taps(weight)
    n, c, h, w = x.shape
    o = weight.shape[1]

    def launch(config: Config) -> Tensor:
        dx = gradient.new_empty(n, h, w, c)
        tiles = triton.cdiv(h * w, config.kwargs["BLOCK_M"]) * triton.cdiv(c, config.kwargs["BLOCK_N"])
        data_gradient_kernel[(tiles, n)](
            gradient, taps, dx, taps.stride(0), taps.stride(2), taps.stride(3), taps.stride(4), h, w, c, o,
            dilations, precision(x.dtype), **config.kwargs,
        )  # fmt: skip
        return dx.movedim(-1, 1)

    def plain() -> Tensor:
        return as_channels_last(reference(dz, x, weight, dilations)).movedim(-1, 1)

    key = ("backward", n, c, o, h, w, *dilations, str(x.dtype), precision(x.dtype))
    return run("acb_paths", key, _configs(capability(x.device), x.dtype), launch, plain, x.device)


def _taps(weight: Tensor) -> Tensor:
    """``[R, O, C, 3, 3]`` as ``[R, 3, 3, O, C]`` with one stride over the taps; as it lies if it is channels last."""
    taps = weight.permute(0, 3, 4, 1, 2)
    good = taps.stride(4) == 1 and taps.stride(1) == 3 * taps.stride(2)
    return taps if good else taps.contiguous()


def _configs(capability: int, dtype: torch.dtype) -> Sequence[Config]:
    return _CONFIGS[:1] if dtype == torch.float32 or capability >= 100 else _CONFIGS


def specimens(capability: int, shapes: Sequence[tuple[int, int]] = ((256, 32),)) -> Iterator[Specimen]:
    """The kernel for channels and side of the image."""
    for c, side in shapes:
        for name, dtype in TYPES.items():
            for config in _configs(capability, dtype)[: None if name == "fp16" else 1]:
                signature = dict.fromkeys(("dz", "weight", "dx"), f"*{name}")
                signature |= dict.fromkeys(("weight_r", "weight_tap", "weight_o", "H", "W"), "i32")
                constexprs = {"C_IN": c, "C_OUT": c, "DILATIONS": (1, 2, 3, 4), "PRECISION": "ieee", "weight_i": 1}
                yield Specimen(
                    f"data_gradient_kernel C={c} {side}x{side} {name}", data_gradient_kernel, signature, constexprs,
                    config, tuple(signature), hot=name != "fp32",
                )  # fmt: skip
