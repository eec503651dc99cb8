"""Gated mask-aware attention in plain PyTorch: forward and backward, whole matrices of scores."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor

from mmif.ops._common import in_own_dtype, wide_dtype


@in_own_dtype
def gated_mask_attention_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    residual: Tensor | None,
    patch_sizes: Sequence[int],
    mode: str,
    stats: list[Tensor] | None = None,
) -> Tensor:
    """Plain PyTorch, differentiable: the first output of the registered op; the second is appended to ``stats``."""
    outputs = []
    for q_, k_, v_, g, p in _heads(q, k, v, gate, patch_sizes):
        if mode == "value" and g is not None:
            v_ = v_ * g
        scores, token_gate = _scores(q_, k_, g, p, mode)
        alpha = _weights(scores, token_gate, mode)[0].to(q.dtype)
        outputs.append(merge_patches(alpha @ split_patches(v_, p), p, (q.shape[2], q.shape[3])))
        if stats is not None:
            stats.append(_stats(scores, token_gate, mode))
    y = torch.cat(outputs, dim=1)
    return y if residual is None else residual + y


def gated_mask_attention_saved_ref(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    residual: Tensor | None,
    patch_sizes: Sequence[int],
    mode: str,
) -> tuple[Tensor, Tensor]:
    """Both outputs: with ``stats`` [N, 1 or 2, T], T the tokens of all heads, from which weights can be rebuilt."""
    stats: list[Tensor] = []
    y = gated_mask_attention_ref(q, k, v, gate, residual, patch_sizes, mode, stats)
    return y, torch.cat(stats, 2)


@in_own_dtype
def gated_mask_attention_bwd_ref(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, patch_sizes: Sequence[int], mode: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    """Gradients with respect to q, k, v and the gate (empty without a gate); the weights are recomputed."""
    parts = []
    for (q_, k_, v_, g, p), dy_ in zip(_heads(q, k, v, gate, patch_sizes), dy.chunk(len(patch_sizes), 1), strict=True):
        parts.append(_head_bwd(dy_, q_, k_, v_, g, p, mode))
    dq, dk, dv = (torch.cat([part[i] for part in parts], 1) for i in range(3))
    dgate = q.new_empty(0) if gate is None else torch.cat([part[3] for part in parts], 1)
    return dq, dk, dv, dgate


def _head_bwd(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, g: Tensor | None, p: int, mode: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    size = (q.shape[2], q.shape[3])
    scores, token_gate = _scores(q, k, g, p, mode)
    gated_v = v * g if mode == "value" and g is not None else v
    queries, keys, values, out_grad = (split_patches(t, p).to(scores.dtype) for t in (q, k, gated_v, dy))
    alpha, ungated = _weights(scores, token_gate, mode)
    dalpha = out_grad @ values.transpose(1, 2)
    dscores, dtoken = _weights_bwd(dalpha, scores, alpha, ungated, token_gate, mode)
    scale = 1.0 / math.sqrt(queries.shape[2])
    dq = merge_patches(dscores @ keys * scale, p, size)
    dk = merge_patches(dscores.transpose(1, 2) @ queries * scale, p, size)
    dv = merge_patches(alpha.transpose(1, 2) @ out_grad, p, size)
    if mode == "value" and g is not None:
        return dq, dk, dv * g, (dv * v).sum(1, keepdim=True)
    if dtoken is None:
        return dq, dk, dv, q.new_empty(0)
    if mode == "map":
        return dq, dk, dv, dtoken[:, None]
    spread = (dtoken / (p * p))[:, :, None].expand(-1, -1, p * p)
    return dq, dk, dv, merge_patches(spread, p, size)


def split_patches(x: Tensor, p: int) -> Tensor:
    """``[N, C, H, W]`` to tokens ``[N, (H/p)(W/p), C p p]``."""
    n, c, h, w = x.shape
    return x.reshape(n, c, h // p, p, w // p, p).permute(0, 2, 4, 1, 3, 5).reshape(n, (h // p) * (w // p), c * p * p)


def merge_patches(tokens: Tensor, p: int, size: tuple[int, int]) -> Tensor:
    """Inverse of :func:`split_patches` for an image of ``size`` (H, W)."""
    n, _, d = tokens.shape
    h, w = size
    x = tokens.reshape(n, h // p, w // p, d // (p * p), p, p).permute(0, 3, 1, 4, 2, 5)
    return x.reshape(n, d // (p * p), h, w)


def _heads(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, patch_sizes: Sequence[int]
) -> Iterator[tuple[Tensor, Tensor, Tensor, Tensor | None, int]]:
    """Yield (q, k, v, gate, patch size) of every head."""
    heads = len(patch_sizes)
    gates = [None] * heads if gate is None else gate.split(1, dim=1)
    return zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), gates, patch_sizes, strict=True)


def _scores(q: Tensor, k: Tensor, g: Tensor | None, p: int, mode: str) -> tuple[Tensor, Tensor | None]:
    """Scaled scores ``[N, L, L]`` and the gate per key ``[N, 1, L]`` or per pair, in float32 at least."""
    acc = wide_dtype(q)
    queries, keys = split_patches(q, p), split_patches(k, p)
    queries = queries / math.sqrt(queries.shape[2])  # before the product, which may leave the range of float16
    scores = (queries @ keys.transpose(1, 2)).to(acc)
    if g is None or mode in ("none", "value"):
        return scores, None
    return scores, g[:, 0].to(acc) if mode == "map" else split_patches(g, p).to(acc).mean(-1)[:, None, :]


def _weights(scores: Tensor, gate: Tensor | None, mode: str) -> tuple[Tensor, Tensor]:
    """Attention weights, and the same before the factor ``gate`` (equal where the gate is no factor)."""
    if gate is None:
        alpha = scores.softmax(-1)
        return alpha, alpha
    if mode in ("post", "map"):
        soft = scores.softmax(-1)
        return soft * gate, soft
    if mode == "logit":
        alpha = (scores * gate).softmax(-1)
        return alpha, alpha
    # Shift by the largest open score, so that closed keys cannot push the open ones into underflow. A closed key above
    # it is capped: its weight is 0 all the same, and the gradient of its gate stays finite.
    top = scores.masked_fill(gate == 0, -math.inf).amax(-1, keepdim=True).detach()
    e = torch.exp((scores - top.masked_fill(top == -math.inf, 0.0)).clamp(max=0.0))
    total = (gate * e).sum(-1, keepdim=True)
    empty = total == 0  # not <= 0: what is not a number stays so
    ungated = torch.where(empty, 0.0, e / torch.where(empty, 1.0, total))
    return ungated * gate, ungated


@torch.no_grad()
def _stats(scores: Tensor, gate: Tensor | None, mode: str) -> Tensor:
    """The log of each row's normaliser, and in mode ``log`` the largest open score: ``[N, 1 or 2, L]``."""
    if gate is None or mode != "log":
        return (scores * gate if gate is not None and mode == "logit" else scores).logsumexp(-1)[:, None]
    closed = (gate == 0).all(-1)
    top = scores.masked_fill(gate == 0, -math.inf).amax(-1).masked_fill(closed, 0.0)
    return torch.stack([(scores + gate.log()).logsumexp(-1).masked_fill(closed, math.inf), top], 1)


def _weights_bwd(
    dalpha: Tensor, scores: Tensor, alpha: Tensor, ungated: Tensor, gate: Tensor | None, mode: str
) -> tuple[Tensor, Tensor | None]:
    """Gradients of :func:`_weights` with respect to the scores and the gate per key ``[N, L]`` or per pair."""
    if mode in ("post", "map") and gate is not None:
        gated = dalpha * gate
        dscores = ungated * (gated - (ungated * gated).sum(-1, keepdim=True))
        dgate = ungated * dalpha
        return dscores, dgate if mode == "map" else dgate.sum(1)
    centred = dalpha - (alpha * dalpha).sum(-1, keepdim=True)
    if gate is None:
        return alpha * centred, None
    if mode == "logit":
        dlogits = alpha * centred
        return dlogits * gate, (dlogits * scores).sum(1)
    return alpha * centred, (ungated * centred).sum(1)
