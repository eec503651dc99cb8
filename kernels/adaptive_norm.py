"""Kernels of ``mmif::adaptive_norm``: statistics of every sample, then one pass that normalises and modulates.

A sample lies dense in memory, as do the maps beside it, in the same order: to the kernels it is a vector of ``size``
elements. The statistics take two stages, both in a fixed order: each program of the first launch leaves mean and sum of
squared deviations of one chunk, and each program of the second combines those of its sample (Chan et al. 1979) before
it touches its block of elements. A sample that fits into one block needs no first launch. Backward does the same with
the two sums that it needs. Everything between load and store is float32.
"""

# Triton types a launch as a call of the kernel, which has constexpr where the launch has numbers.
# pyright: reportArgumentType=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tuning import Config, Key, Specimen, run

CHUNK = 4096  # elements whose statistics one program takes
CHUNKING = Config(8, 1, (("CHUNK", CHUNK),))


@triton.jit
def _moments(x, mask, count):
    """Mean of ``count`` values and their sum of squared deviations; what ``mask`` leaves out is 0 in ``x``."""
    rough = tl.sum(x) / count
    mean = rough + tl.sum(tl.where(mask, x - rough, 0.0)) / count  # a large mean loses digits in a sum, its rest none
    rest = tl.where(mask, x - mean, 0.0)
    return mean, tl.sum(rest * rest)


@triton.jit
def _combined(means, squares, size, chunks, CHUNK: tl.constexpr, CHUNKS: tl.constexpr):
    """Mean and sum of squared deviations of a sample from those of its chunks; differences from the first chunk's."""
    chunk = tl.arange(0, CHUNKS)
    there = chunk < chunks
    count = tl.where(there, tl.minimum(size - chunk * CHUNK, CHUNK), 0).to(tl.float32)
    pivot = tl.load(means)
    rest = tl.where(there, tl.load(means + chunk, mask=there, other=0.0) - pivot, 0.0)
    offset = tl.sum(rest * count) / size
    within = tl.sum(tl.load(squares + chunk, mask=there, other=0.0))
    return pivot + offset, within + tl.sum(count * (rest - offset) * (rest - offset))


@triton.jit
def chunk_moments(x, means, squares, size, chunks, CHUNK: tl.constexpr):
    """``means``, ``squares`` [N, chunks]: what :func:`_moments` gives for each chunk of ``x`` [N, size]."""
    program = tl.program_id(0)
    sample, chunk = program // chunks, program % chunks
    i = chunk * CHUNK + tl.arange(0, CHUNK)
    mask = i < size
    value = tl.load(x + sample.to(tl.int64) * size + i, mask=mask, other=0.0).to(tl.float32)
    count = tl.minimum(size - chunk * CHUNK, CHUNK).to(tl.float32)
    mean, square = _moments(value, mask, count)
    tl.store(means + program, mean)
    tl.store(squares + program, square)


@triton.jit
def modulate(
    x, gamma, beta, shift, y,  # [N, size]; shift is not read without SHIFT
    means, squares,  # [N, chunks], from chunk_moments; not read where CHUNKS is 0
    mean_out, rstd_out,  # [N]
    size, chunks, eps,
    SHIFT: tl.constexpr,
    CHUNK: tl.constexpr, CHUNKS: tl.constexpr,  # elements of a chunk; their number, to a power of two
    BLOCK: tl.constexpr,
):  # fmt: skip
    """``y = gamma * norm(x) + beta + shift``; one program makes BLOCK elements of one sample."""
    blocks = tl.cdiv(size, BLOCK)
    sample, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    i = block * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    i += sample.to(tl.int64) * size
    # The maps first: they are on their way while the statistics are combined.
    value = tl.load(x + i, mask=mask, other=0.0).to(tl.float32)
    factor = tl.load(gamma + i, mask=mask, other=0.0).to(tl.float32)
    offset = tl.load(beta + i, mask=mask, other=0.0).to(tl.float32)
    if SHIFT:
        offset += tl.load(shift + i, mask=mask, other=0.0).to(tl.float32)
    if CHUNKS == 0:
        mean, square = _moments(value, mask, size)
    else:
        mean, square = _combined(means + sample * chunks, squares + sample * chunks, size, chunks, CHUNK, CHUNKS)
    rstd = tl.rsqrt(square / size + eps)
    tl.store(y + i, (factor * ((value - mean) * rstd) + offset).to(y.dtype.element_ty), mask=mask)
    if block == 0:
        tl.store(mean_out + sample, mean)
        tl.store(rstd_out + sample, rstd)


@triton.jit
def chunk_sums(dy, x, gamma, mean, rstd, sums, products, size, chunks, CHUNK: tl.constexpr):
    """``sums``, ``products`` [N, chunks]: of ``g = dy * gamma``, and of g times the norm, over each chunk."""
    program = tl.program_id(0)
    sample, chunk = program // chunks, program % chunks
    i = chunk * CHUNK + tl.arange(0, CHUNK)
    mask = i < size
    i += sample.to(tl.int64) * size
    g = tl.load(dy + i, mask=mask, other=0.0).to(tl.float32) * tl.load(gamma + i, mask=mask, other=0.0).to(tl.float32)
    value = tl.load(x + i, mask=mask, other=0.0).to(tl.float32)
    norm = (value - tl.load(mean + sample)) * tl.load(rstd + sample)
    tl.store(sums + program, tl.sum(g))
    tl.store(products + program, tl.sum(g * norm))  # g is 0 where the mask is


@triton.jit
def modulate_grads(
    dy, x, gamma, dx, dgamma,  # [N, size]
    mean, rstd,  # [N]
    sums, products,  # [N, chunks], from chunk_sums; not read where CHUNKS is 0
    size, chunks,
    CHUNKS: tl.constexpr,
    BLOCK: tl.constexpr,
):  # fmt: skip
    """``dx = rstd * (g - mean(g) - norm * mean(g * norm))``, ``dgamma = dy * norm``, with ``g = dy * gamma``."""
    blocks = tl.cdiv(size, BLOCK)
    sample, block = tl.program_id(0) // blocks, tl.program_id(0) % blocks
    i = block * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    i += sample.to(tl.int64) * size
    cotangent = tl.load(dy + i, mask=mask, other=0.0).to(tl.float32)
    g = cotangent * tl.load(gamma + i, mask=mask, other=0.0).to(tl.float32)
    scale = tl.load(rstd + sample)
    norm = (tl.load(x + i, mask=mask, other=0.0).to(tl.float32) - tl.load(mean + sample)) * scale
    if CHUNKS == 0:
        total, along = tl.sum(g), tl.sum(g * norm)
    else:
        chunk = tl.arange(0, CHUNKS)
        first = sample * chunks
        total = tl.sum(tl.load(sums + first + chunk, mask=chunk < chunks, other=0.0))
        along = tl.sum(tl.load(products + first + chunk, mask=chunk < chunks, other=0.0))
    tl.store(dx + i, (scale * (g - total / size - norm * (along / size))).to(dx.dtype.element_ty), mask=mask)
    tl.store(dgamma + i, (cotangent * norm).to(dgamma.dtype.element_ty), mask=mask)


def forward(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    shift: Tensor | None = None,
    *,
    eps: float,
    key: Key,
    reference: Callable[[], tuple[Tensor, Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor]:
    """Result, means and reciprocal deviations; the tensors are dense, all in one memory format."""
    n, size, chunks = _extents(x)

    def launch(config: Config) -> tuple[Tensor, Tensor, Tensor]:
        y, mean, rstd = torch.empty_like(x), _statistics(x, n), _statistics(x, n)
        means, squares = _statistics(x, n * chunks), _statistics(x, n * chunks)
        if chunks:
            chunk_moments[(n * chunks,)](x, means, squares, size, chunks, **CHUNKING.kwargs)
        modulate[_grid(n, size, config)](
            x, gamma, beta, beta if shift is None else shift, y, means, squares, mean, rstd, size, chunks, eps,
            SHIFT=shift is not None, CHUNK=CHUNK, CHUNKS=_power_of_two(chunks), **config.kwargs
        )  # fmt: skip
        return y, mean, rstd

    return run("adaptive_norm", key, configs(size), launch, reference, x.device)


def backward(
    dy: Tensor,
    x: Tensor,
    gamma: Tensor,
    mean: Tensor,
    rstd: Tensor,
    *,
    reference: Callable[[], tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and gamma; dy, x and gamma are dense, all in one memory format."""
    n, size, chunks = _extents(x)

    def launch(config: Config) -> tuple[Tensor, Tensor]:
        dx, dgamma = torch.empty_like(x), torch.empty_like(x)
        sums, products = _statistics(x, n * chunks), _statistics(x, n * chunks)
        if chunks:
            chunk_sums[(n * chunks,)](dy, x, gamma, mean, rstd, sums, products, size, chunks, **CHUNKING.kwargs)
        modulate_grads[_grid(n, size, config)](
            dy, x, gamma, dx, dgamma, mean, rstd, sums, products, size, chunks,
            CHUNKS=_power_of_two(chunks), **config.kwargs
        )  # fmt: skip
        return dx, dgamma

    return run("adaptive_norm", ("backward", n, size, str(x.dtype)), configs(size), launch, reference, x.device)


def configs(size: int) -> tuple[Config, ...]:
    """The candidates for samples of ``size`` elements."""
    if size <= CHUNK:
        block = max(_power_of_two(size), 32)
        return tuple(Config(warps, 1, (("BLOCK", block),)) for warps in (4, 1, 8))
    return tuple(Config(warps, 1, (("BLOCK", block),)) for warps, block in ((4, 1024), (4, 2048), (8, 2048), (8, 4096)))


def _extents(x: Tensor) -> tuple[int, int, int]:
    """Samples, elements of each, chunks of each."""
    size = x[:1].numel()
    return x.shape[0], size, _chunks(size)


def _chunks(size: int) -> int:
    """0 where one program holds a sample."""
    return 0 if size <= CHUNK else -(-size // CHUNK)


def _power_of_two(n: int) -> int:
    """The smallest that is not less than ``n``; 0 for 0."""
    return 1 << (n - 1).bit_length() if n else 0


def _grid(n: int, size: int, config: Config) -> tuple[int]:
    return (n * -(-size // config.kwargs["BLOCK"]),)


def _statistics(x: Tensor, count: int) -> Tensor:
    return x.new_empty(count, dtype=torch.float32)


def specimens(capability: int) -> Iterator[Specimen]:
    """Every kernel and configuration in float16, the first configuration in the other dtypes too."""
    for sample, size in (("code", 512), ("map", 64 * 128 * 128)):
        chunks = _chunks(size)
        for i, config in enumerate(configs(size)):
            for dtype in ("fp16", "bf16", "fp32") if i == 0 else ("fp16",):
                name = f"{sample} {dtype}"
                if i == 0 and chunks:
                    yield _specimen(name, chunk_moments, dtype, {}, CHUNKING)
                    yield _specimen(name, chunk_sums, dtype, {}, CHUNKING)
                constexprs = {"SHIFT": size > CHUNK, "CHUNK": CHUNK, "CHUNKS": _power_of_two(chunks)}
                yield _specimen(name, modulate, dtype, constexprs, config)
                yield _specimen(name, modulate_grads, dtype, {"CHUNKS": _power_of_two(chunks)}, config)


def _specimen(name: str, fn: Any, dtype: str, constexprs: dict[str, Any], config: Config) -> Specimen:
    maps = ("x", "gamma", "beta", "shift", "y", "dy", "dx", "dgamma")
    numbers = {"size": "i32", "chunks": "i32", "eps": "fp32"}
    rest = [arg for arg in fn.arg_names if arg not in constexprs and arg not in config.kwargs]
    types = {arg: f"*{dtype}" if arg in maps else numbers.get(arg, "*fp32") for arg in rest}
    aligned = tuple(arg for arg in rest if arg in (*maps, "size"))
    return Specimen(f"{fn.__name__} {name}", fn, types, constexprs, config, aligned)
