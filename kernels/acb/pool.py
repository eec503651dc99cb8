"""Kernels of ``mmif::acb_pool``: a 3x3 convolution of which only mean, maximum and its position leave the chip.

Every program reduces its own tile of the result; a second kernel reduces the tiles, in a fixed order. As with
``torch.max`` the first of equal maxima is taken, and NaN is larger than any number.
"""

# pyright: reportArgumentType=false, reportCallIssue=false, reportReturnType=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import Config, Specimen, capability, run
from .conv3x3 import as_channels_last, compiled_cases, configs, convolved, packed, precision

_REDUCE = Config(4, 1, (("BLOCK_N", 32),))
_TILE = 128 * 64 - 1  # pixels by channels: more spills in the epilogue, or comes close
Pooled = tuple[Tensor, Tensor, Tensor]


@triton.jit
def highest(z, positions, there):
    """Maximum over the first axis and the smallest of the ``positions`` where it lies, among what is ``there``."""
    unordered = there & (z != z)
    any_unordered = tl.max(unordered.to(tl.int32), axis=0) > 0
    peak = tl.max(tl.where(there & (z == z), z, float("-inf")), axis=0)
    hit = tl.where(any_unordered[None, :], unordered, there & (z == peak[None, :]))
    where = tl.min(tl.where(hit, positions, 2**31 - 1), axis=0)
    return tl.where(any_unordered, float("nan"), peak), where


@triton.jit
def tiles_kernel(
    image,  # [N R, H, W, C_IN]
    weight,  # [C_OUT, 3, 3, C_IN]
    shared,  # [N, H, W, C_OUT], added to the convolution of all R paths
    sums,  # [N R, tiles, C_OUT] float32
    peaks,  # the same
    places,  # the same, int32
    weight_o,
    weight_tap,
    R,
    H,
    W,
    C_IN: tl.constexpr,
    C_OUT: tl.constexpr,
    PRECISION: tl.constexpr,
    BLOCK_M: tl.constexpr,
    BLOCK_N: tl.constexpr,
    BLOCK_K: tl.constexpr,
):
    """One tile of pixels by channels of one path."""
    path = tl.program_id(1).to(tl.int64)
    tiles_o: tl.constexpr = (C_OUT + BLOCK_N - 1) // BLOCK_N
    tile = tl.program_id(0) // tiles_o
    pixels = tile * BLOCK_M + tl.arange(0, BLOCK_M)
    channels = tl.program_id(0) % tiles_o * BLOCK_N + tl.arange(0, BLOCK_N)
    z = convolved(
        image + path * H * W * C_IN, weight, weight_o, weight_tap, pixels, channels,
        1, H, W, C_IN, C_OUT, False, PRECISION, BLOCK_M, BLOCK_N, BLOCK_K,
    )  # fmt: skip
    there = (pixels[:, None] < H * W) & (channels[None, :] < C_OUT)
    common = shared + path // R * H * W * C_OUT + pixels[:, None] * C_OUT + channels[None, :]
    z += tl.load(common, mask=there, other=0.0).to(tl.float32)
    peak, where = highest(z, pixels[:, None], there)
    to = (path * tl.cdiv(H * W, BLOCK_M) + tile) * C_OUT + channels
    tl.store(sums + to, tl.sum(tl.where(there, z, 0.0), axis=0), mask=channels < C_OUT)
    tl.store(peaks + to, peak, mask=channels < C_OUT)
    tl.store(places + to, where, mask=channels < C_OUT)


@triton.jit
def reduce_kernel(
    sums,  # [N R, tiles, C_OUT] float32
    peaks,  # the same
    places,  # the same, int32
    mean,  # [N R, C_OUT]
    peak,  # the same
    where,  # the same, int64
    tiles,
    size,  # pixels of an image
    C_OUT,
    TILES: tl.constexpr,  # a power of two, not less than tiles
    BLOCK_N: tl.constexpr,
):
    """All tiles of one path."""
    path = tl.program_id(1).to(tl.int64)
    channels = tl.program_id(0) * BLOCK_N + tl.arange(0, BLOCK_N)
    tile = tl.arange(0, TILES)[:, None]
    there = (tile < tiles) & (channels[None, :] < C_OUT)
    at = (path * tiles + tile) * C_OUT + channels[None, :]
    total = tl.sum(tl.load(sums + at, mask=there, other=0.0), axis=0)
    values = tl.load(peaks + at, mask=there, other=float("-inf"))
    highest_value, place = highest(values, tl.load(places + at, mask=there, other=0), there)
    to, mask = path * C_OUT + channels, channels < C_OUT
    tl.store(mean + to, (total / size).to(mean.dtype.element_ty), mask=mask)
    tl.store(peak + to, highest_value.to(peak.dtype.element_ty), mask=mask)
    tl.store(where + to, place.to(tl.int64), mask=mask)


def pool(paths: Tensor, shared: Tensor, weight: Tensor, reference: Callable[..., Pooled]) -> Pooled:
    """Mean, maximum and its position over the image of ``conv3x3(paths[:, r], weight) + shared``, ``[N, R, O]``."""
    image, common, taps = as_channels_last(paths), as_channels_last(shared), packed(weight)
    n, r, h, w, c = image.shape
    o = weight.shape[0]

    def launch(config: Config) -> Pooled:
        tiles = triton.cdiv(h * w, config.kwargs["BLOCK_M"])
        partial = image.new_empty(2, n * r, tiles, o, dtype=torch.float32)
        places = image.new_empty(n * r, tiles, o, dtype=torch.int32)
        grid = (tiles * triton.cdiv(o, config.kwargs["BLOCK_N"]), n * r)
        tiles_kernel[grid](
            image, taps, common, *partial, places, taps.stride(0), taps.stride(2), r, h, w, c, o,
            precision(paths.dtype), **config.kwargs,
        )  # fmt: skip
        mean, peak = image.new_empty(n, r, o), image.new_empty(n, r, o)
        where = image.new_empty(n, r, o, dtype=torch.int64)
        grid = (triton.cdiv(o, _REDUCE.kwargs["BLOCK_N"]), n * r)
        reduce_kernel[grid](
            *partial, places, mean, peak, where, tiles, h * w, o, triton.next_power_of_2(tiles), **_REDUCE.kwargs
        )
        return mean, peak, where

    key = ("forward", n, r, c, o, h, w, str(paths.dtype), precision(paths.dtype))
    allowed = configs(capability(paths.device), paths.dtype, _TILE)
    return run("acb_pool", key, allowed, launch, lambda: reference(paths, shared, weight), paths.device)


def specimens(capability: int, shapes: Sequence[tuple[int, int]] = ((256, 32),)) -> Iterator[Specimen]:
    """The convolution for channels and side of the image, and its reduction."""
    floats = dict.fromkeys(("sums", "peaks"), "*fp32") | {"places": "*i32"}
    for c, side in shapes:
        for dtype, config in compiled_cases(capability, _TILE):
            signature = dict.fromkeys(("image", "weight", "shared"), f"*{dtype}") | floats
            aligned = (*signature, "weight_o", "weight_tap", "H", "W")
            signature |= dict.fromkeys(("weight_o", "weight_tap", "R", "H", "W"), "i32")
            constexprs = {"C_IN": c, "C_OUT": c, "PRECISION": "ieee"}
            name = f"acb_pool tiles C={c} {side}x{side} {dtype}"
            yield Specimen(name, tiles_kernel, signature, constexprs, config, aligned, hot=dtype != "fp32")
    for dtype in ("fp16", "bf16", "fp32"):
        signature = floats | {"mean": f"*{dtype}", "peak": f"*{dtype}", "where": "*i64"}
        aligned = (*signature, "C_OUT")
        signature |= dict.fromkeys(("tiles", "size", "C_OUT"), "i32")
        yield Specimen(f"acb_pool reduce {dtype}", reduce_kernel, signature, {"TILES": 16}, _REDUCE, aligned)
