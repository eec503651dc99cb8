"""Gated mask-aware attention, backward, second launch, blocks of keys, and the host side of both.

A program makes dk, dv and the gradient of its keys' gates. As in the forward, it either holds its block and streams the
other side past it or, for heads of many features, holds a block of all scores and streams the features twice. No sum is
shared between programs: the order of summation is fixed.
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
from .bwd_queries import QueryInputs, QueryOutputs, attention_queries, derivatives, load_stats
from .heads import (
    LARGE,
    Head,
    Strides,
    aligned,
    by_heads,
    config_of,
    features_at_once,
    heads_of,
    key_of,
    launches,
    specimens_of,
)
from .patches import (
    LOG2E,
    gate_of,
    image_of,
    load_gate,
    load_tokens,
    part,
    row_of,
    run_head,
    store_gate_gradient,
    store_tokens,
)


class KeyInputs(NamedTuple):
    """What :func:`attention_keys` reads; all as for :func:`.bwd_queries.attention_queries`, which wrote ``delta``."""

    q: Tensor
    k: Tensor
    v: Tensor
    gate: Tensor | None
    dy: Tensor
    stats: Tensor
    delta: Tensor


class KeyOutputs(NamedTuple):
    """What it writes."""

    dk: Tensor
    dv: Tensor
    dgate: Tensor | None


@triton.jit
def _keys_stream_queries(block, inputs, outputs, strides, HEAD: tl.constexpr):
    q, k, v, gate, dy, stats, delta = inputs
    dk, dv, dgate = outputs
    in_strides, out_strides, gate_strides = strides
    M: tl.constexpr = HEAD.held
    N: tl.constexpr = HEAD.at_once
    D: tl.constexpr = HEAD.all_features
    keys, d = block * M + tl.arange(0, M), tl.arange(0, D)
    held = load_tokens(k, keys, d, in_strides, HEAD)
    held_v = load_tokens(v, keys, d, in_strides, HEAD)
    sums, sums_v = tl.zeros([M, D], tl.float32), tl.zeros([M, D], tl.float32)
    gate_sums = tl.zeros([M], tl.float32)
    key_gate = tl.trans(load_gate(gate, tl.arange(0, 1), keys, gate_strides, HEAD))
    for first in range(0, HEAD.tokens, N):
        queries = first + tl.arange(0, N)
        others = load_tokens(q, queries, d, in_strides, HEAD)
        other_dy = load_tokens(dy, queries, d, out_strides, HEAD)
        scores = tl.dot(held, tl.trans(others), input_precision=HEAD.precision) * (HEAD.scale * LOG2E)
        dp = tl.dot(held_v, tl.trans(other_dy), input_precision=HEAD.precision)
        lse, top = load_stats(stats, queries, HEAD)
        mean = tl.load(delta + queries, mask=queries < HEAD.tokens, other=0.0)
        if HEAD.mode == "map":
            g = tl.trans(load_gate(gate, queries, keys, gate_strides, HEAD))
        else:
            g = key_gate
        weights, ds, dg = derivatives(scores, dp, g, lse[None], top[None], mean[None], HEAD)
        sums_v = tl.dot(weights.to(other_dy.dtype), other_dy, sums_v, input_precision=HEAD.precision)
        sums = tl.dot(ds.to(others.dtype), others, sums, input_precision=HEAD.precision)
        if HEAD.gates_keys:
            gate_sums += tl.sum(dg, 1)
    store_tokens(dk, sums * HEAD.scale, keys, d, out_strides, HEAD)
    store_tokens(dv, sums_v, keys, d, out_strides, HEAD)
    if HEAD.gates_keys:
        store_gate_gradient(dgate, gate_sums, keys, gate_strides, HEAD)


@triton.jit
def _keys_stream_features(block, inputs, outputs, strides, HEAD: tl.constexpr):
    q, k, v, gate, dy, stats, delta = inputs
    dk, dv, dgate = outputs
    in_strides, out_strides, gate_strides = strides
    M: tl.constexpr = HEAD.held
    N: tl.constexpr = HEAD.at_once
    L: tl.constexpr = HEAD.all_tokens
    keys, queries = block // HEAD.splits * M + tl.arange(0, M), tl.arange(0, L)
    scores, dp = tl.zeros([M, L], tl.float32), tl.zeros([M, L], tl.float32)
    for first in range(0, HEAD.features, N):
        d = first + tl.arange(0, N)
        some = load_tokens(k, keys, d, in_strides, HEAD)
        others = load_tokens(q, queries, d, in_strides, HEAD)
        scores = tl.dot(some, tl.trans(others), scores, input_precision=HEAD.precision)
        some_v = load_tokens(v, keys, d, in_strides, HEAD)
        other_dy = load_tokens(dy, queries, d, out_strides, HEAD)
        dp = tl.dot(some_v, tl.trans(other_dy), dp, input_precision=HEAD.precision)
    lse, top = load_stats(stats, queries, HEAD)
    mean = tl.load(delta + queries, mask=queries < HEAD.tokens, other=0.0)
    g = tl.trans(load_gate(gate, queries, keys, gate_strides, HEAD))
    scores *= HEAD.scale * LOG2E
    weights, ds, dg = derivatives(scores, dp, g, lse[None], top[None], mean[None], HEAD)
    if HEAD.gates_keys:
        store_gate_gradient(dgate, tl.sum(dg, 1), keys, gate_strides, HEAD)
    weights, ds = weights.to(dy.dtype.element_ty), ds.to(q.dtype.element_ty)
    start, end = part(block, HEAD)
    for first in range(start, end, N):
        d = first + tl.arange(0, N)
        sums_v = tl.dot(weights, load_tokens(dy, queries, d, out_strides, HEAD), input_precision=HEAD.precision)
        store_tokens(dv, sums_v, keys, d, out_strides, HEAD)
        sums = tl.dot(ds, load_tokens(q, queries, d, in_strides, HEAD), input_precision=HEAD.precision)
        store_tokens(dk, sums * HEAD.scale, keys, d, out_strides, HEAD)


@triton.jit
def _keys_body(block, inputs, outputs, strides, HEAD: tl.constexpr):
    q, k, v, gate, dy, stats, delta = inputs
    dk, dv, dgate = outputs
    in_strides, out_strides, gate_strides = strides
    if gate is not None:
        gate, dgate = gate_of(gate, gate_strides, HEAD), gate_of(dgate, gate_strides, HEAD)
    inputs = (
        image_of(q, in_strides, HEAD),
        image_of(k, in_strides, HEAD),
        image_of(v, in_strides, HEAD),
        gate,
        image_of(dy, out_strides, HEAD),
        row_of(stats, HEAD.rows, HEAD),
        row_of(delta, 1, HEAD),
    )
    outputs = (image_of(dk, out_strides, HEAD), image_of(dv, out_strides, HEAD), dgate)
    if HEAD.streams_keys:
        _keys_stream_queries(block, inputs, outputs, strides, HEAD)
    else:
        _keys_stream_features(block, inputs, outputs, strides, HEAD)


@triton.jit
def attention_keys(inputs, outputs, strides, HEAD: tl.constexpr, SECOND: tl.constexpr):
    """Gradients of k, v and of gates per key: programs (blocks of the heads, samples)."""
    run_head(_keys_body, inputs, outputs, strides, HEAD, SECOND)


def backward(
    dy: Tensor,
    y: Tensor,
    stats: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    patch_sizes: tuple[int, ...],
    mode: str,
    reference: Callable[..., tuple[Tensor, Tensor, Tensor, Tensor]],
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients of q, k, v and the gate; ``reference`` takes (dy, q, k, v, gate, patch_sizes, mode)."""
    if mode == "value" and gate is not None:  # exact: the gate is a factor of the values
        gated = by_heads(v, gate)
        dq, dk, dgated, _ = backward(dy, y, stats, q, k, gated, None, patch_sizes, "none", reference)
        dgate = (dgated.float() * v).unflatten(1, (len(patch_sizes), -1)).sum(2).to(gate.dtype)
        return dq, dk, by_heads(dgated, gate), dgate
    heads = heads_of(q, patch_sizes, mode)
    return run(
        "gated_mask_attention_bwd",
        key_of(q, patch_sizes, mode),
        configs(capability(q.device), q.dtype, heads),
        lambda config: _launch(config, heads, QueryInputs(q, k, v, gate, dy, y, stats)),
        lambda: reference(dy, q, k, v, gate, patch_sizes, mode),
        q.device,
    )


def _launch(config: Config, heads: Sequence[Head], inputs: QueryInputs) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    q, k, v, gate, dy, y, stats = inputs
    q, k, v = aligned(q, k, v)
    y, dy = aligned(y, dy)
    dq, dk, dv = (torch.empty_like(y) for _ in range(3))
    dgate = None
    if gate is not None:
        dgate, gate = aligned(torch.empty_like(gate), gate)
    delta = torch.empty_like(stats[:, :1])
    strides = Strides(q.stride(), y.stride(), None if gate is None else gate.stride())
    for_queries = QueryInputs(q, k, v, gate, dy, y, stats), QueryOutputs(dq, dgate, delta)
    for_keys = KeyInputs(q, k, v, gate, dy, stats, delta), KeyOutputs(dk, dv, dgate)
    for grid, known in launches(heads, config, q.shape[0]):
        attention_queries[grid](*for_queries, strides, **known)
        attention_keys[grid](*for_keys, strides, **known)
    return dq, dk, dv, q.new_empty(0) if dgate is None else dgate


def configs(capability: int, dtype: torch.dtype, heads: Sequence[Head]) -> list[Config]:
    """The candidates, the smallest first: in float16 it fits every device at the sizes of the model."""
    d = features_at_once(heads, dtype)
    if dtype == torch.float32:
        return [config_of(8, 1, (32, 16), (16, 16), (16, d), 1)]
    found = [config_of(8, 2, (32, 16), (16, 16), (16, d), 1)]
    if capability in LARGE:
        found.append(config_of(8, 2, (64, 32), (32, 16), (16, d), 2))
        narrow = (128, 32) if heads[0].features <= 128 else (64, 16)  # two sums of 128 x 256 would not fit
        found.append(config_of(8, 2, narrow, (32, 32), (32, d), 1))
    return found


def specimens(capability: int) -> Iterator[Specimen]:
    """What is compiled ahead of time."""
    queries = {"inputs": QueryInputs, "outputs": QueryOutputs}
    keys = {"inputs": KeyInputs, "outputs": KeyOutputs}
    yield from specimens_of(attention_queries, queries, configs, capability)
    yield from specimens_of(attention_keys, keys, configs, capability)
