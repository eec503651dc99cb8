"""Gated mask-aware attention, backward, first launch: blocks of queries.

The weights are rebuilt from q, k and the statistics of the forward. A program makes dq, in mode ``map`` the gradient of
the gate, and for each query ``delta = sum_d dy_d y_d``: in every mode the mean, under the weights, of their gradients.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

from typing import NamedTuple

import triton
import triton.language as tl
from torch import Tensor

from .patches import (
    INF,
    LN2,
    LOG2E,
    divides,
    gate_of,
    image_of,
    load_gate,
    load_tokens,
    pairs,
    part,
    row_of,
    run_head,
    store_tokens,
)


class QueryInputs(NamedTuple):
    """What :func:`attention_queries` reads."""

    q: Tensor  # [N, C, H, W], as are k and v, of the same strides
    k: Tensor
    v: Tensor
    gate: Tensor | None  # [N, P, H, W], or [N, P, L, L] in mode map
    dy: Tensor  # [N, C, H, W], as are y and the gradients, of the same strides
    y: Tensor
    stats: Tensor  # [N, S, T], dense


class QueryOutputs(NamedTuple):
    """What it writes."""

    dq: Tensor
    dgate: Tensor | None  # like gate; written here in mode map, else by attention_keys
    delta: Tensor  # [N, 1, T], dense


@triton.jit
def derivatives(scores, dp, g, lse, top, delta, HEAD: tl.constexpr):
    """The weights, and the gradients of the scores and of the gate; any orientation. ``dp`` is dy v^T.

    ``scores``, ``lse`` and ``top`` are times log2(e). Weights without the factor gate are 0 where lse is infinite.
    """
    if HEAD.mode == "logit":
        weights = tl.exp2(scores * g - lse)
        dlogits = weights * (dp - delta)
        return weights, dlogits * g, dlogits * scores * LN2
    elif HEAD.mode == "log":
        soft = tl.exp2(tl.minimum(scores, top) - lse)
        weights, centred = soft * g, dp - delta
        return weights, weights * centred, soft * centred
    else:
        soft = tl.exp2(scores - lse)
        return soft * g, soft * (g * dp - delta), soft * dp


@triton.jit
def load_stats(stats, queries, HEAD: tl.constexpr):
    """Log of each query's normaliser and, for mode ``log``, its largest open score, both times log2(e)."""
    inside = queries < HEAD.tokens
    lse = tl.load(stats + queries, mask=inside, other=INF) * LOG2E
    if HEAD.mode == "log":
        return lse, tl.load(stats + HEAD.tokens_of_all + queries, mask=inside, other=0.0) * LOG2E
    else:
        return lse, lse


@triton.jit
def _store_pair_gradient(dgate, value, queries, keys, strides, HEAD: tl.constexpr):
    offsets, mask = pairs(queries, keys, strides, HEAD)
    tl.store(dgate + offsets, value.to(dgate.dtype.element_ty), mask=mask)


@triton.jit
def _queries_stream_keys(block, inputs, outputs, strides, HEAD: tl.constexpr):
    q, k, v, gate, dy, y, stats = inputs
    dq, dgate, delta = outputs
    in_strides, out_strides, gate_strides = strides
    M: tl.constexpr = HEAD.held
    N: tl.constexpr = HEAD.at_once
    D: tl.constexpr = HEAD.all_features
    queries, d = block * M + tl.arange(0, M), tl.arange(0, D)
    held = load_tokens(q, queries, d, in_strides, HEAD)
    held_dy = load_tokens(dy, queries, d, out_strides, HEAD)
    out = load_tokens(y, queries, d, out_strides, HEAD)
    mean = tl.sum(held_dy.to(tl.float32) * out.to(tl.float32), 1)
    tl.store(delta + queries, mean, mask=queries < HEAD.tokens)
    lse, top = load_stats(stats, queries, HEAD)
    sums = tl.zeros([M, D], tl.float32)
    for first in range(0, HEAD.tokens, N):
        keys = first + tl.arange(0, N)
        others = load_tokens(k, keys, d, in_strides, HEAD)
        values = load_tokens(v, keys, d, in_strides, HEAD)
        scores = tl.dot(held, tl.trans(others), input_precision=HEAD.precision) * (HEAD.scale * LOG2E)
        dp = tl.dot(held_dy, tl.trans(values), input_precision=HEAD.precision)
        g = load_gate(gate, queries, keys, gate_strides, HEAD)
        _, ds, dg = derivatives(scores, dp, g, lse[:, None], top[:, None], mean[:, None], HEAD)
        if not divides(N, HEAD.tokens):
            ds = tl.where((keys < HEAD.tokens)[None], ds, 0.0)  # what is no key has a score of 0: any weight
        if HEAD.mode == "map":
            _store_pair_gradient(dgate, dg, queries, keys, gate_strides, HEAD)
        sums = tl.dot(ds.to(others.dtype), others, sums, input_precision=HEAD.precision)
    store_tokens(dq, sums * HEAD.scale, queries, d, out_strides, HEAD)


@triton.jit
def _queries_stream_features(block, inputs, outputs, strides, HEAD: tl.constexpr):
    q, k, v, gate, dy, y, stats = inputs
    dq, dgate, delta = outputs
    in_strides, out_strides, gate_strides = strides
    M: tl.constexpr = HEAD.held
    N: tl.constexpr = HEAD.at_once
    L: tl.constexpr = HEAD.all_tokens
    queries, keys = block // HEAD.splits * M + tl.arange(0, M), tl.arange(0, L)
    scores, dp, mean = tl.zeros([M, L], tl.float32), tl.zeros([M, L], tl.float32), tl.zeros([M], tl.float32)
    for first in range(0, HEAD.features, N):
        d = first + tl.arange(0, N)
        some = load_tokens(q, queries, d, in_strides, HEAD)
        others = load_tokens(k, keys, d, in_strides, HEAD)
        scores = tl.dot(some, tl.trans(others), scores, input_precision=HEAD.precision)
        some_dy = load_tokens(dy, queries, d, out_strides, HEAD)
        values = load_tokens(v, keys, d, in_strides, HEAD)
        dp = tl.dot(some_dy, tl.trans(values), dp, input_precision=HEAD.precision)
        mean += tl.sum(some_dy.to(tl.float32) * load_tokens(y, queries, d, out_strides, HEAD).to(tl.float32), 1)
    tl.store(delta + queries, mean, mask=queries < HEAD.tokens)
    lse, top = load_stats(stats, queries, HEAD)
    g = load_gate(gate, queries, keys, gate_strides, HEAD)
    scores *= HEAD.scale * LOG2E
    _, ds, dg = derivatives(scores, dp, g, lse[:, None], top[:, None], mean[:, None], HEAD)
    if not divides(L, HEAD.tokens):
        ds = tl.where((keys < HEAD.tokens)[None], ds, 0.0)
    if HEAD.mode == "map":
        _store_pair_gradient(dgate, dg, queries, keys, gate_strides, HEAD)
    ds = ds.to(k.dtype.element_ty)
    start, end = part(block, HEAD)
    for first in range(start, end, N):
        d = first + tl.arange(0, N)
        sums = tl.dot(ds, load_tokens(k, keys, d, in_strides, HEAD), input_precision=HEAD.precision)
        store_tokens(dq, sums * HEAD.scale, queries, d, out_strides, HEAD)


@triton.jit
def _queries_body(block, inputs, outputs, strides, HEAD: tl.constexpr):
    q, k, v, gate, dy, y, stats = inputs
    dq, dgate, delta = outputs
    in_strides, out_strides, gate_strides = strides
    if gate is not None:
        gate, dgate = gate_of(gate, gate_strides, HEAD), gate_of(dgate, gate_strides, HEAD)
    inputs = (
        image_of(q, in_strides, HEAD),
        image_of(k, in_strides, HEAD),
        image_of(v, in_strides, HEAD),
        gate,
        image_of(dy, out_strides, HEAD),
        image_of(y, out_strides, HEAD),
        row_of(stats, HEAD.rows, HEAD),
    )
    outputs = (image_of(dq, out_strides, HEAD), dgate, row_of(delta, 1, HEAD))
    if HEAD.streams_keys:
        _queries_stream_keys(block, inputs, outputs, strides, HEAD)
    else:
        _queries_stream_features(block, inputs, outputs, strides, HEAD)


@triton.jit
def attention_queries(inputs, outputs, strides, HEAD: tl.constexpr, SECOND: tl.constexpr):
    """Gradient of q, and of gates per pair: programs (blocks of the heads, samples)."""
    run_head(_queries_body, inputs, outputs, strides, HEAD, SECOND)
