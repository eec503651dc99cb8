"""Gated mask-aware attention over image patches, one head per patch size (paper section 3.2, Eq. 3).

Head i takes ``C / P`` channels, cuts them into patches of ``p_i x p_i`` pixels, and lets the patches attend to each
other: ``O_i = sum_j alpha_ij V_j`` with ``alpha`` from ``softmax(Q_i K_j^T / sqrt(p p C / P))`` and a gate G in [0, 1]
that tells how far a patch may be trusted. The place of the gate is not printed in the paper; ``mode`` names it:

==========  =====================================================================
``post``    ``alpha_ij = softmax_j(s_ij) G_j``: the same as gating V per patch
``logit``   ``alpha_ij = softmax_j(G_j s_ij)``: the same as gating K per patch
``value``   plain attention over ``G * V``, gated per pixel
``log``     ``alpha_ij = G_j exp(s_ij) / sum_k G_k exp(s_ik)``: rows add up to one
``none``    plain attention
==========  =====================================================================

A row whose keys are all gated off in mode ``log`` gives output 0 and gradient 0. Per patch the gate is the mean of its
pixels. Gradients: first order. Layouts: any.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import torch
from torch import Tensor

from mmif import backends
from mmif.ops._common import empty_like_format, in_own_dtype, to_autocast

MODES = ("post", "logit", "value", "log", "none")


def gated_mask_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None = None,
    *,
    patch_sizes: Sequence[int] = (2, 4),
    mode: str = "post",
    backend: str | None = None,
) -> Tensor:
    """Attend between image patches, with a gate on the keys.

    Args:
        q: ``[N, C, H, W]``; the softmax runs in float32 at least.
        k: like ``q``.
        v: like ``q``.
        gate: ``[N, P, H, W]`` in [0, 1] in the dtype of ``q``, one map per head; None only for mode ``none``.
        patch_sizes: the P patch sides; each must divide H and W, and P must divide C.
        mode: place of the gate, one of ``post logit value log none``.
        backend: op backend; see :mod:`mmif.backends`.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``q``, or of autocast where it is on.

    Raises:
        ValueError: shapes or dtypes that do not fit, an unknown mode, or a gate that is missing or superfluous.
    """
    sizes = tuple(patch_sizes)
    q, k, v, gate = to_autocast(q, k, v, gate)
    _check(q, k, v, gate, sizes, mode)
    if backends.choose("gated_mask_attention", q, k, v, gate, backend=backend) == "reference":
        return gated_mask_attention_ref(q, k, v, gate, sizes, mode)
    return torch.ops.mmif.gated_mask_attention(q, k, v, gate, sizes, mode)


@in_own_dtype
def gated_mask_attention_ref(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, patch_sizes: Sequence[int], mode: str
) -> Tensor:
    """Plain PyTorch, differentiable. Same arguments as ``mmif::gated_mask_attention``."""
    heads = []
    for q_, k_, v_, g, p in _heads(q, k, v, gate, patch_sizes):
        if mode == "value" and g is not None:
            v_ = v_ * g
        scores, token_gate = _scores(q_, k_, g, p, mode)
        alpha = _weights(scores, token_gate, mode)[0].to(q.dtype)
        heads.append(merge_patches(alpha @ split_patches(v_, p), p, (q.shape[2], q.shape[3])))
    return torch.cat(heads, dim=1)


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


def _heads(q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, patch_sizes: Sequence[int]):
    """Yield (q, k, v, gate, patch size) of every head."""
    heads = len(patch_sizes)
    gates = [None] * heads if gate is None else gate.split(1, dim=1)
    return zip(q.chunk(heads, 1), k.chunk(heads, 1), v.chunk(heads, 1), gates, patch_sizes, strict=True)


def _scores(q: Tensor, k: Tensor, g: Tensor | None, p: int, mode: str) -> tuple[Tensor, Tensor | None]:
    """Scaled scores ``[N, L, L]`` and the gate per key ``[N, 1, L]``, in float32 at least."""
    acc = torch.float64 if q.dtype == torch.float64 else torch.float32
    queries, keys = split_patches(q, p), split_patches(k, p)
    queries = queries / math.sqrt(queries.shape[2])  # before the product, which may leave the range of float16
    scores = (queries @ keys.transpose(1, 2)).to(acc)
    if g is None or mode in ("none", "value"):
        return scores, None
    return scores, split_patches(g, p).to(acc).mean(-1)[:, None, :]


def _weights(scores: Tensor, gate: Tensor | None, mode: str) -> tuple[Tensor, Tensor]:
    """Attention weights, and the same before the factor ``gate`` (equal where the gate is no factor)."""
    if gate is None:
        alpha = scores.softmax(-1)
        return alpha, alpha
    if mode == "post":
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
    ungated = torch.where(total > 0, e / torch.where(total > 0, total, 1.0), 0.0)
    return ungated * gate, ungated


def _weights_bwd(
    dalpha: Tensor, scores: Tensor, alpha: Tensor, ungated: Tensor, gate: Tensor | None, mode: str
) -> tuple[Tensor, Tensor | None]:
    """Gradients of :func:`_weights` with respect to the scores and the gate per key ``[N, L]``."""
    if mode == "post" and gate is not None:
        gated = dalpha * gate
        dscores = ungated * (gated - (ungated * gated).sum(-1, keepdim=True))
        return dscores, (ungated * dalpha).sum(1)
    centred = dalpha - (alpha * dalpha).sum(-1, keepdim=True)
    if gate is None:
        return alpha * centred, None
    if mode == "logit":
        dlogits = alpha * centred
        return dlogits * gate, (dlogits * scores).sum(1)
    return alpha * centred, (ungated * centred).sum(1)


def _check(q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, sizes: tuple[int, ...], mode: str) -> None:
    name = "gated_mask_attention"
    if mode not in MODES:
        raise ValueError(f"{name}: mode must be one of {', '.join(MODES)}; got {mode!r}")
    if q.ndim != 4 or k.shape != q.shape or v.shape != q.shape:
        raise ValueError(
            f"{name}: q, k, v must be [N, C, H, W] of one shape, "
            f"got {tuple(q.shape)}, {tuple(k.shape)}, {tuple(v.shape)}"
        )
    if len({t.dtype for t in (q, k, v)}) > 1 or not q.is_floating_point():
        raise ValueError(f"{name}: q, k, v must share a floating dtype, got {q.dtype}, {k.dtype}, {v.dtype}")
    if not sizes or q.shape[1] % len(sizes) or any(p < 1 or q.shape[2] % p or q.shape[3] % p for p in sizes):
        raise ValueError(
            f"{name}: patch_sizes must divide H and W and their number must divide C, got {sizes} for {tuple(q.shape)}"
        )
    if (gate is None) != (mode == "none"):
        came = "no gate" if gate is None else "a gate"
        raise ValueError(f"{name}: a gate goes with every mode but 'none', got mode {mode!r} and {came}")
    shape = (q.shape[0], len(sizes), *q.shape[2:])
    if gate is not None and (gate.shape != shape or gate.dtype != q.dtype):
        raise ValueError(f"{name}: gate must be {q.dtype} of shape {shape}, got {gate.dtype} {tuple(gate.shape)}")


@torch.library.custom_op("mmif::gated_mask_attention", mutates_args=())
def _gated_mask_attention(
    q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, patch_sizes: Sequence[int], mode: str
) -> Tensor:
    y = gated_mask_attention_ref(q, k, v, gate, patch_sizes, mode)
    return empty_like_format(q, q.shape).copy_(y)


@_gated_mask_attention.register_fake
def _fake(q, k, v, gate, patch_sizes, mode) -> Tensor:
    return empty_like_format(q, q.shape)


@torch.library.custom_op("mmif::gated_mask_attention_bwd", mutates_args=())
def _gated_mask_attention_bwd(
    dy: Tensor, q: Tensor, k: Tensor, v: Tensor, gate: Tensor | None, patch_sizes: Sequence[int], mode: str
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    grads = gated_mask_attention_bwd_ref(dy, q, k, v, gate, patch_sizes, mode)
    like = (q, k, v, gate if gate is not None else q.new_empty(0))
    return tuple(_dense_like(t).copy_(g) for t, g in zip(like, grads, strict=True))  # pyright: ignore[reportReturnType]


@_gated_mask_attention_bwd.register_fake
def _bwd_fake(dy, q, k, v, gate, patch_sizes, mode) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    like = (q, k, v, gate if gate is not None else q.new_empty(0))
    return tuple(_dense_like(t) for t in like)  # pyright: ignore[reportReturnType]


def _dense_like(t: Tensor) -> Tensor:
    return empty_like_format(t, t.shape)


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, gate, ctx.patch_sizes, ctx.mode = inputs
    ctx.save_for_backward(q, k, v, gate)


def _backward(ctx, dy: Tensor):
    q, k, v, gate = ctx.saved_tensors
    dq, dk, dv, dgate = torch.ops.mmif.gated_mask_attention_bwd(dy, q, k, v, gate, ctx.patch_sizes, ctx.mode)
    return dq, dk, dv, None if gate is None else dgate, None, None


_gated_mask_attention.register_autograd(_backward, setup_context=_setup_context)
