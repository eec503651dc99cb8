"""Gated mask-aware attention, backward, first launch: blocks of queries.

The weights are rebuilt from q, k and the statistics of the forward. A program makes dq, in mode ``map`` the gradient of
the gate, and for each query ``delta = sum_d dy_d y_d``: in every mode the mean, under the weights, of their gradients.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false

from __future__ import annotations

import triton
import triton.language as tl

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
def _queries_stream_keys(block, inputs, outputs, strides, HEAD: tl.constexpr, M: tl.constexpr, N: tl.constexpr):
    q, k, v, gate, dy, y, stats = inputs
    dq, dgate, delta = outputs
    in_strides, out_strides, gate_strides = strides
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
def _queries_stream_features(
    block, inputs, outputs, strides, HEAD: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SPLITS: tl.constexpr
):
    q, k, v, gate, dy, y, stats = inputs
    dq, dgate, delta = outputs
    in_strides, out_strides, gate_strides = strides
    L: tl.constexpr = HEAD.all_tokens
    queries, keys = block // SPLITS * M + tl.arange(0, M), tl.arange(0, L)
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
    start, end = part(block, N, SPLITS, HEAD)
    for first in range(start, end, N):
        d = first + tl.arange(0, N)
        sums = tl.dot(ds, load_tokens(k, keys, d, in_strides, HEAD), input_precision=HEAD.precision)
        store_tokens(dq, sums * HEAD.scale, queries, d, out_strides, HEAD)


@triton.jit
def _queries_body(
    block, inputs, outputs, strides, HEAD: tl.constexpr, M: tl.constexpr, N: tl.constexpr, SPLITS: tl.constexpr
):
    q, k, v, gate, dy, y, stats = inputs
    dq, dgate, delta = outputs
    if gate is not None:
        gate, dgate = gate_of(gate, strides[2], HEAD), gate_of(dgate, strides[2], HEAD)
    inputs = (
        image_of(q, strides[0], HEAD),
        image_of(k, strides[0], HEAD),
        image_of(v, strides[0], HEAD),
        gate,
        image_of(dy, strides[1], HEAD),
        image_of(y, strides[1], HEAD),
        row_of(stats, HEAD.rows, HEAD),
    )
    outputs = (image_of(dq, strides[1], HEAD), dgate, row_of(delta, 1, HEAD))
    if HEAD.streams_keys:
        _queries_stream_keys(block, inputs, outputs, strides, HEAD, M, N)
    else:
        _queries_stream_features(block, inputs, outputs, strides, HEAD, M, N, SPLITS)


@triton.jit
def attention_queries(
    q,  # [N, C, H, W], as are k and v, of the same strides
    k,
    v,
    gate,  # [N, P, H, W], or [N, P, L, L] in mode map, or None
    dy,  # [N, C, H, W], as are y and the gradients, of the same strides
    y,
    stats,  # [N, S, T], dense
    dq,
    dgate,  # like gate; mode map: written here, else in the second launch
    delta,  # [N, 1, T], dense
    q_n,
    q_c,
    q_h,
    q_w,
    y_n,
    y_c,
    y_h,
    y_w,
    gate_n,
    gate_p,
    gate_h,
    gate_w,
    HEAD: tl.constexpr,
    SECOND: tl.constexpr,  # another head, or None
    BLOCK_M: tl.constexpr,  # narrow heads: queries and keys of a block
    BLOCK_N: tl.constexpr,
    MID_M: tl.constexpr,  # the same for heads of more features
    MID_N: tl.constexpr,
    WIDE_M: tl.constexpr,  # heads whose features stream: queries and features of a block
    WIDE_D: tl.constexpr,
    SPLITS: tl.constexpr,  # programs that share the features of such a block's gradient
):
    """Gradient of q, and of gates per pair: programs (blocks of the heads, samples)."""
    strides = ((q_n, q_c, q_h, q_w), (y_n, y_c, y_h, y_w), (gate_n, gate_p, gate_h, gate_w))
    run_head(
        _queries_body,
        (q, k, v, gate, dy, y, stats),
        (dq, dgate, delta),
        strides,
        HEAD,
        SECOND,
        BLOCK_M,
        BLOCK_N,
        MID_M,
        MID_N,
        WIDE_M,
        WIDE_D,
        SPLITS,
    )
