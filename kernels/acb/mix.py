"""Kernels of ``mmif::acb_mix`` and its backward: softmax over the paths, weighted sum, residual, optional affine."""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import Config, Specimen, run
from .conv3x3 import as_channels_last

_CONFIGS = tuple(Config(4, 1, (("BLOCK_M", m), ("BLOCK_N", n))) for m, n in ((32, 64), (64, 64), (16, 128), (16, 32)))

_REDUCE = Config(4, 1, (("BLOCK_N", 32),))


@triton.jit
def path_weights(logits, channels, C, R: tl.constexpr, PATHS: tl.constexpr):
    """Softmax over the paths of ``logits`` [R, C]: [PATHS, channels] float32, 0 in the rows after R."""
    r = tl.arange(0, PATHS)[:, None]
    at = logits + r * C + channels[None, :]
    z = tl.load(at, mask=(r < R) & (channels[None, :] < C), other=0.0).to(tl.float32)
    z = tl.where(r < R, z, float("-inf"))
    e = tl.exp(z - tl.max(z, axis=0)[None, :])
    return e / tl.sum(e, axis=0)[None, :]


@triton.jit
def row(matrix, r, ROWS: tl.constexpr):
    """Row ``r`` of a matrix in registers."""
    return tl.sum(tl.where(tl.arange(0, ROWS)[:, None] == r, matrix, 0.0), axis=0)


@triton.jit
def mix_kernel(
    paths,  # [N, R, H, W, C]
    logits,  # [N, R, C]
    x,  # [N, C, H, W], any strides
    scale,  # [C] or None
    shift,  # [C] or None
    out,  # [N, C, H, W], any strides
    slope,
    H,
    W,
    C,
    x_n,
    x_c,
    x_h,
    x_w,
    out_n,
    out_c,
    out_h,
    out_w,
    R: tl.constexpr,
    PATHS: tl.constexpr,
    AFFINE: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """``sum_r softmax_r(logits) paths_r + x``, with AFFINE ``leaky_relu(scale y + shift, slope)`` of it."""
    n = tl.program_id(2).to(tl.int64)
    pixels = (tl.program_id(0) * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    channels = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    c = channels[None, :]
    mask = (pixels < H * W) & (c < C)
    weights = path_weights(logits + n * R * C, channels, C, R, PATHS)
    h, w = pixels // W, pixels % W
    y = tl.load(x + n * x_n + c * x_c + h * x_h + w * x_w, mask=mask, other=0.0).to(tl.float32)
    for r in tl.static_range(R):
        path = tl.load(paths + (n * R + r) * H * W * C + pixels * C + c, mask=mask, other=0.0).to(tl.float32)
        y += row(weights, r, PATHS)[None, :] * path
    if AFFINE:
        y = y * tl.load(scale + c, mask=c < C, other=0.0) + tl.load(shift + c, mask=c < C, other=0.0)
        y = tl.where(y < 0, slope * y, y)
    tl.store(out + n * out_n + c * out_c + h * out_h + w * out_w, y.to(out.dtype.element_ty), mask=mask)


@triton.jit
def mix_bwd_kernel(
    dy,  # [N, H, W, C]
    paths,  # [N, R, H, W, C]
    logits,  # [N, R, C]
    dpaths,  # [N, R, H, W, C]
    dots,  # [N, tiles, R, C] float32
    size,  # pixels of an image
    C,
    R: tl.constexpr,
    PATHS: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Gradient of the paths, and the sums over this tile of ``paths dy``, gradient of the paths' weights."""
    n = tl.program_id(2).to(tl.int64)
    tile = tl.program_id(0)
    pixels = (tile * BLOCK_M + tl.arange(0, BLOCK_M))[:, None]
    channels = tl.program_id(1) * BLOCK_N + tl.arange(0, BLOCK_N)
    mask = (pixels < size) & (channels[None, :] < C)
    at = pixels * C + channels[None, :]
    weights = path_weights(logits + n * R * C, channels, C, R, PATHS)
    g = tl.load(dy + n * size * C + at, mask=mask, other=0.0).to(tl.float32)
    for r in tl.static_range(R):
        here = (n * R + r) * size * C + at
        path = tl.load(paths + here, mask=mask, other=0.0).to(tl.float32)
        tl.store(dpaths + here, (row(weights, r, PATHS)[None, :] * g).to(dpaths.dtype.element_ty), mask=mask)
        to = dots + ((n * tl.num_programs(0) + tile) * R + r) * C + channels
        tl.store(to, tl.sum(path * g, axis=0), mask=channels < C)


@triton.jit
def softmax_bwd_kernel(
    dots,  # [N, tiles, R, C] float32
    logits,  # [N, R, C]
    dlogits,  # the same
    tiles,
    C,
    R: tl.constexpr,
    PATHS: tl.constexpr,
    BLOCK_N: tl.constexpr,
):
    """Add up the tiles, in their order, and go back through the softmax."""
    n = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    r = tl.arange(0, PATHS)[:, None]
    at, mask = r * C + channels[None, :], (r < R) & (channels[None, :] < C)
    dweights = tl.zeros((PATHS, BLOCK_N), tl.float32)
    for tile in range(tiles):
        dweights += tl.load(dots + (n * tiles + tile) * R * C + at, mask=mask, other=0.0)
    weights = path_weights(logits + n * R * C, channels, C, R, PATHS)
    dz = weights * (dweights - tl.sum(weights * dweights, axis=0)[None, :])
    tl.store(dlogits + n * R * C + at, dz.to(dlogits.dtype.element_ty), mask=mask)


def mix(
    paths: Tensor,
    logits: Tensor,
    x: Tensor,
    scale: Tensor | None,
    shift: Tensor | None,
    slope: float,
    reference: Callable[..., Tensor],
) -> Tensor:
    """``sum_r softmax_r(logits) paths_r + x``, and the affine map and leaky ReLU of it; in the layout of ``x``."""
    image, logits = as_channels_last(paths), logits.contiguous()
    n, r, h, w, c = image.shape
    layout = torch.channels_last if x.is_contiguous(memory_format=torch.channels_last) else torch.contiguous_format
    affine = scale is not None and shift is not None
    factors = tuple(None if t is None else t.float().contiguous() for t in (scale, shift))

    def launch(config: Config) -> Tensor:
        out = torch.empty_like(x, memory_format=layout)
        mix_kernel[(*_grid(config, h * w, c), n)](
            image, logits, x, *factors, out, slope, h, w, c, *x.stride(), *out.stride(),
            r, triton.next_power_of_2(r), affine, **config.kwargs,
        )  # fmt: skip
        return out

    def plain() -> Tensor:
        return reference(paths, logits, x, scale, shift, slope).contiguous(memory_format=layout)

    key = ("forward", n, r, c, h, w, str(layout), str(x.is_contiguous(memory_format=layout)), affine, str(x.dtype))
    return run("acb_mix", key, _CONFIGS, launch, plain, x.device)


def mix_bwd(
    dy: Tensor, paths: Tensor, logits: Tensor, reference: Callable[..., tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Gradients of the paths, their channels last in memory, and of the logits; the one of ``x`` is ``dy``."""
    image, gradient, logits = as_channels_last(paths), as_channels_last(dy), logits.contiguous()
    n, r, h, w, c = image.shape

    def launch(config: Config) -> tuple[Tensor, Tensor]:
        dpaths, dlogits = torch.empty_like(image), torch.empty_like(logits)
        tiles_m, tiles_c = _grid(config, h * w, c)
        dots = image.new_empty(n, tiles_m, r, c, dtype=torch.float32)
        powers = triton.next_power_of_2(r)
        mix_bwd_kernel[(tiles_m, tiles_c, n)](
            gradient, image, logits, dpaths, dots, h * w, c, r, powers, **config.kwargs
        )
        grid = (triton.cdiv(c, _REDUCE.kwargs["BLOCK_N"]), n)
        softmax_bwd_kernel[grid](dots, logits, dlogits, tiles_m, c, r, powers, **_REDUCE.kwargs)
        return dpaths.movedim(-1, 2), dlogits

    key = ("backward", n, r, c, h, w, str(dy.dtype))
    return run("acb_mix", key, _CONFIGS, launch, lambda: reference(dy, paths, logits), dy.device)


def _grid(config: Config, pixels: int, channels: int) -> tuple[int, int]:
    return triton.cdiv(pixels, config.kwargs["BLOCK_M"]), triton.cdiv(channels, config.kwargs["BLOCK_N"])


def specimens(capability: int) -> Iterator[Specimen]:
    """Every configuration in float16, the first in the other dtypes too."""
    for kernel in (mix_kernel, mix_bwd_kernel, softmax_bwd_kernel):
        for i, config in enumerate((_REDUCE,) if kernel is softmax_bwd_kernel else _CONFIGS):
            for dtype in ("fp16", "bf16", "fp32") if i == 0 else ("fp16",):
                yield _specimen(kernel, dtype, config)


def _specimen(kernel: triton.JITFunction, dtype: str, config: Config) -> Specimen:
    pointers = ("paths", "logits", "x", "out", "dy", "dpaths", "dlogits")
    types = {
        **dict.fromkeys(pointers, f"*{dtype}"),
        **dict.fromkeys(("scale", "shift", "dots"), "*fp32"),
        "slope": "fp32",
    }
    constexprs = {"R": 4, "PATHS": 4, "AFFINE": True, "x_c": 1, "out_c": 1}
    fixed = {name: value for name, value in constexprs.items() if name in kernel.arg_names}
    blocks = dict(config.blocks)
    signature = {a: types.get(a, "i32") for a in kernel.arg_names if a not in fixed and a not in blocks}
    aligned = tuple(a for a in signature if a not in ("slope", "tiles"))
    return Specimen(f"{kernel.__name__} {dtype}", kernel, signature, fixed, config, aligned)
