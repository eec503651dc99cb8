"""Gated mask-aware attention, forward: softmax(q k^T) v over image patches, two patch sizes in one launch.

A program serves a block of queries of one head of one sample. Up to 512 features the queries and the sums stay on chip
while the keys stream past (online softmax). Beyond, rows of scores are what stays: the features stream past twice, once
into the scores and once from the weights to the output. Nothing of size L x L is ever stored, nothing is copied.

Scores are kept times log2(e), for ``exp2``. Mode ``log`` adds log2 of the gate to them, so that a closed key is -inf.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import NamedTuple

import torch
import triton
import triton.language as tl
from torch import Tensor

from ..tuning import Config, Specimen, capability, run
from .heads import (
    LARGE,
    Head,
    Strides,
    aligned,
    by_heads,
    config_of,
    dense_format,
    features_at_once,
    heads_of,
    key_of,
    launches,
    specimens_of,
)
from .patches import (
    INF,
    LN2,
    LOG2E,
    divides,
    gate_of,
    image_of,
    load_gate,
    load_tokens,
    part,
    row_of,
    run_head,
    store_tokens,
)


class Inputs(NamedTuple):
    """What :func:`attention_forward` reads."""

    q: Tensor  # [N, C, H, W], as are k and v, of the same strides
    k: Tensor
    v: Tensor
    gate: Tensor | None  # [N, P, H, W], or [N, P, L, L] in mode map
    residual: Tensor | None  # like y


class Outputs(NamedTuple):
    """What it writes."""

    y: Tensor  # [N, C, H, W]
    stats: Tensor  # [N, S, T], dense


@triton.jit
def _softmax_step(scores, g, keys, highest, HEAD: tl.constexpr):
    """Weights of a block of keys, the same with the gate as a factor, the new maximum, the factor for earlier sums."""
    if HEAD.mode == "logit":
        scores = scores * g
    if HEAD.mode == "log":
        scores += tl.log2(g)
    if not divides(keys.shape[0], HEAD.tokens):
        scores = tl.where((keys < HEAD.tokens)[None], scores, -INF)
    new = tl.maximum(highest, tl.max(scores, 1))
    shift = tl.where(new == -INF, 0.0, new)  # all keys so far may be closed, or have scores of -inf
    weights = tl.exp2(scores - shift[:, None])
    gated = weights * g if HEAD.mode == "post" or HEAD.mode == "map" else weights
    return weights, gated, new, tl.exp2(highest - shift)


@triton.jit
def _highest_open(scores, g):
    return tl.max(tl.where(g > 0, scores, -INF), 1)


@triton.jit
def _divisor(total, HEAD: tl.constexpr):
    """What the sums are divided by: in mode log 1 for a row without an open key, which so becomes 0."""
    return tl.where(total == 0, 1.0, total) if HEAD.mode == "log" else total


@triton.jit
def _store_stats(stats, queries, highest, total, peak, HEAD: tl.constexpr):
    lse = (highest + tl.log2(total)) * LN2
    inside = queries < HEAD.tokens
    if HEAD.mode == "log":
        lse = tl.where(total > 0, lse, INF)
        tl.store(stats + HEAD.tokens_of_all + queries, tl.where(total > 0, peak * LN2, 0.0), mask=inside)
    tl.store(stats + queries, lse, mask=inside)


@triton.jit
def _store_output(y, residual, value, queries, d, strides, HEAD: tl.constexpr):
    if residual is not None:
        value += load_tokens(residual, queries, d, strides, HEAD).to(tl.float32)
    store_tokens(y, value, queries, d, strides, HEAD)


@triton.jit
def _stream_keys(block, inputs, outputs, strides, HEAD: tl.constexpr):
    """A block of M queries against N keys at a time."""
    q, k, v, gate, residual = inputs
    y, stats = outputs
    in_strides, out_strides, gate_strides = strides
    M: tl.constexpr = HEAD.held
    N: tl.constexpr = HEAD.at_once
    D: tl.constexpr = HEAD.all_features
    queries, d = block * M + tl.arange(0, M), tl.arange(0, D)
    held = load_tokens(q, queries, d, in_strides, HEAD)
    highest, peak = tl.full([M], -INF, tl.float32), tl.full([M], -INF, tl.float32)
    total, sums = tl.zeros([M], tl.float32), tl.zeros([M, D], tl.float32)
    for first in range(0, HEAD.tokens, N):
        keys = first + tl.arange(0, N)
        scores = tl.dot(held, tl.trans(load_tokens(k, keys, d, in_strides, HEAD)), input_precision=HEAD.precision)
        scores *= HEAD.scale * LOG2E
        g = load_gate(gate, queries, keys, gate_strides, HEAD)
        if HEAD.mode == "log":
            peak = tl.maximum(peak, _highest_open(scores, g))
        weights, gated, highest, rescale = _softmax_step(scores, g, keys, highest, HEAD)
        total = total * rescale + tl.sum(weights, 1)
        values = load_tokens(v, keys, d, in_strides, HEAD)
        sums = tl.dot(gated.to(values.dtype), values, sums * rescale[:, None], input_precision=HEAD.precision)
    out = sums / _divisor(total, HEAD)[:, None]
    _store_output(y, residual, out, queries, d, out_strides, HEAD)
    _store_stats(stats, queries, highest, total, peak, HEAD)


@triton.jit
def _stream_features(block, inputs, outputs, strides, HEAD: tl.constexpr):
    """A block of M queries against all keys, N features at a time; it makes one part in SPLITS of the output."""
    q, k, v, gate, residual = inputs
    y, stats = outputs
    in_strides, out_strides, gate_strides = strides
    M: tl.constexpr = HEAD.held
    N: tl.constexpr = HEAD.at_once
    L: tl.constexpr = HEAD.all_tokens
    queries, keys = block // HEAD.splits * M + tl.arange(0, M), tl.arange(0, L)
    scores = tl.zeros([M, L], tl.float32)
    for first in range(0, HEAD.features, N):
        d = first + tl.arange(0, N)
        some = load_tokens(q, queries, d, in_strides, HEAD)
        others = load_tokens(k, keys, d, in_strides, HEAD)
        scores = tl.dot(some, tl.trans(others), scores, input_precision=HEAD.precision)
    scores *= HEAD.scale * LOG2E
    g = load_gate(gate, queries, keys, gate_strides, HEAD)
    weights, gated, highest, _ = _softmax_step(scores, g, keys, tl.full([M], -INF, tl.float32), HEAD)
    total = tl.sum(weights, 1)
    if block % HEAD.splits == 0:
        _store_stats(stats, queries, highest, total, _highest_open(scores, g), HEAD)
    inverse = 1.0 / _divisor(total, HEAD)[:, None]
    gated = gated.to(v.dtype.element_ty)
    start, end = part(block, HEAD)
    for first in range(start, end, N):
        d = first + tl.arange(0, N)
        values = load_tokens(v, keys, d, in_strides, HEAD)
        out = tl.dot(gated, values, input_precision=HEAD.precision) * inverse
        _store_output(y, residual, out, queries, d, out_strides, HEAD)


@triton.jit
def _body(block, inputs, outputs, strides, HEAD: tl.constexpr):
    q, k, v, gate, residual = inputs
    y, stats = outputs
    in_strides, out_strides, gate_strides = strides
    if gate is not None:
        gate = gate_of(gate, gate_strides, HEAD)
    if residual is not None:
        residual = image_of(residual, out_strides, HEAD)
    inputs = (
        image_of(q, in_strides, HEAD),
        image_of(k, in_strides, HEAD),
        image_of(v, in_strides, HEAD),
        gate,
        residual,
    )
    outputs = (image_of(y, out_strides, HEAD), row_of(stats, HEAD.rows, HEAD))
    if HEAD.streams_keys:
        _stream_keys(block, inputs, outputs, strides, HEAD)
    else:
        _stream_features(block, inputs, outputs, strides, HEAD)


@triton.jit
def attention_forward(inputs, outputs, strides, HEAD: tl.constexpr, SECOND: tl.constexpr):
    """Attention of one head or two over all samples: programs (blocks of the heads, samples)."""
    run_head(_body, inputs, outputs, strides, HEAD, SECOND)


def forward(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    residual: Tensor | None,
    patch_sizes: tuple[int, ...],
    mode: str,
    reference: Callable[..., tuple[Tensor, Tensor]],
) -> tuple[Tensor, Tensor]:
    """Output and statistics of ``mmif::gated_mask_attention``; ``reference`` takes the arguments before it."""
    if mode == "value" and gate is not None:  # exact: the gate is a factor of the values
        return forward(q, k, by_heads(v, gate), None, residual, patch_sizes, "none", reference)
    heads = heads_of(q, patch_sizes, mode)
    return run(
        "gated_mask_attention",
        key_of(q, patch_sizes, mode),
        configs(capability(q.device), q.dtype, heads),
        lambda config: _launch(config, heads, Inputs(q, k, v, gate, residual)),
        lambda: reference(q, k, v, gate, residual, patch_sizes, mode),
        q.device,
    )


def _launch(config: Config, heads: Sequence[Head], inputs: Inputs) -> Outputs:
    q, k, v, gate, residual = inputs
    q, k, v = aligned(q, k, v)
    y = torch.empty(q.shape, dtype=q.dtype, device=q.device, memory_format=dense_format(q))
    if residual is not None:
        _, residual = aligned(y, residual)
    stats = torch.empty((q.shape[0], heads[0].rows, heads[0].tokens_of_all), dtype=torch.float32, device=q.device)
    inputs, outputs = Inputs(q, k, v, gate, residual), Outputs(y, stats)
    strides = Strides(q.stride(), y.stride(), None if gate is None else gate.stride())
    for grid, known in launches(heads, config, q.shape[0]):
        attention_forward[grid](inputs, outputs, strides, **known)
    return outputs


def configs(capability: int, dtype: torch.dtype, heads: Sequence[Head]) -> list[Config]:
    """The candidates, the smallest first: in float16 it fits every device at the sizes of the model."""
    d = features_at_once(heads, dtype)
    if dtype == torch.float32:
        return [config_of(8, 1, (32, 32), (16, 16), (16, d), 1)]
    found = [config_of(8, 2, (64, 32), (32, 16), (16, d), 1)]
    if capability in LARGE:
        found.append(config_of(8, 2, (64, 64), (32, 32), (16, d), 4))  # more programs, for a small batch
        found.append(config_of(8, 2, (128, 64), (64, 32), (32, d), 2))
    if capability in (80, 90):
        found.append(config_of(8, 3, (128, 32), (64, 16), (64, max(16, d // 2)), 1))
    return found


def specimens(capability: int) -> Iterator[Specimen]:
    """What is compiled ahead of time."""
    return specimens_of(attention_forward, {"inputs": Inputs, "outputs": Outputs}, configs, capability)
