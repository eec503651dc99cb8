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
``map``     ``alpha_ij = softmax_j(s_ij) G_ij``: a gate for every pair of patches
==========  =====================================================================

A row whose keys are all gated off in mode ``log`` gives output 0 and gradient 0. Per patch the gate is the mean of its
pixels. Gradients: first order. Layouts: any. Backends: reference, triton (``kernels/attention/``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmif.ops import _triton, dispatch
from mmif.ops._attention_ref import (
    gated_mask_attention_bwd_ref,
    gated_mask_attention_ref,
    gated_mask_attention_saved_ref,
)
from mmif.ops._common import empty_like_format, to_autocast, wide_dtype

MODES = ("post", "logit", "value", "log", "none", "map")
# What the kernels take: heads of few features stream any number of tokens, wide ones keep a row of scores on chip.
STREAMED_FEATURES, MAX_FEATURES, MAX_TOKENS = 512, 4096, 1024
MAX_BATCH = 65535  # the second axis of a grid


def gated_mask_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None = None,
    *,
    residual: Tensor | None = None,
    patch_sizes: Sequence[int] = (2, 4),
    mode: str = "post",
    backend: str | None = None,
) -> Tensor:
    """Attend between image patches, with a gate on the keys.

    Args:
        q: ``[N, C, H, W]``; the softmax runs in float32 at least.
        k: like ``q``.
        v: like ``q``.
        gate: ``[N, P, H, W]`` in [0, 1] in the dtype of ``q``, one map per head; None only for mode ``none``; for mode
            ``map`` ``[N, P, L, L]``, query by key, with L = H W / (p p).
        residual: ``[N, C, H, W]`` that is added to the attention, or None; another dtype promotes as ``+`` does.
        patch_sizes: the P patch sides; each must divide H and W, and P must divide C. Mode ``map``: P times the same.
        mode: place of the gate, one of ``post logit value log none map``.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``q``, or of autocast where it is on.

    Raises:
        ValueError: shapes or dtypes that do not fit, an unknown mode, or a gate that is missing or superfluous.
    """
    sizes = tuple(patch_sizes)
    q, k, v, gate = to_autocast(q, k, v, gate)
    _check(q, k, v, gate, residual, sizes, mode)
    chosen = dispatch.choose(
        "gated_mask_attention", q, k, v, gate, residual, backend=backend, patch_sizes=sizes, mode=mode
    )
    if chosen == "reference":
        return gated_mask_attention_ref(q, k, v, gate, residual, sizes, mode)
    # The backward pass needs the attention by itself, so the kernel adds the residual only where none will come.
    trained = torch.is_grad_enabled() and any(t is not None and t.requires_grad for t in (q, k, v, gate, residual))
    inside = residual if residual is not None and residual.dtype == q.dtype and not trained else None
    y, _ = torch.ops.mmif.gated_mask_attention(q, k, v, gate, inside, sizes, mode, chosen)
    return y if inside is residual else residual + y


def _check(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    residual: Tensor | None,
    sizes: tuple[int, ...],
    mode: str,
) -> None:
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
    if residual is not None and (residual.shape != q.shape or not residual.is_floating_point()):
        raise ValueError(
            f"{name}: residual must be floating of shape {tuple(q.shape)}, got {residual.dtype} {tuple(residual.shape)}"
        )
    if 0 in q.shape[1:]:
        raise ValueError(f"{name}: q must have a channel and a pixel or more, got {tuple(q.shape)}")
    if not all(isinstance(p, int) for p in sizes):
        raise ValueError(f"{name}: patch_sizes must be integers, got {sizes}")
    if not sizes or q.shape[1] % len(sizes) or any(p < 1 or q.shape[2] % p or q.shape[3] % p for p in sizes):
        raise ValueError(
            f"{name}: patch_sizes must divide H and W and their number must divide C, got {sizes} for {tuple(q.shape)}"
        )
    if mode == "map" and len(set(sizes)) > 1:
        raise ValueError(f"{name}: patch_sizes must be equal in mode 'map', whose gate is [N, P, L, L]; got {sizes}")
    if (gate is None) != (mode == "none"):
        came = "no gate" if gate is None else "a gate"
        raise ValueError(f"{name}: a gate goes with every mode but 'none', got mode {mode!r} and {came}")
    n, _, h, w = q.shape
    shape = (n, len(sizes), *_tokens(h, w, sizes[:1]) * 2) if mode == "map" else (n, len(sizes), h, w)
    if gate is not None and (gate.shape != shape or gate.dtype != q.dtype):
        raise ValueError(f"{name}: gate must be {q.dtype} of shape {shape}, got {gate.dtype} {tuple(gate.shape)}")


def _tokens(h: int, w: int, patch_sizes: Sequence[int]) -> tuple[int, ...]:
    """Number of tokens of each head."""
    return tuple((h // p) * (w // p) for p in patch_sizes)


def _limits(*tensors: Tensor | None, patch_sizes: Sequence[int], mode: str) -> str | None:
    """Why the kernels cannot take a call, or None."""
    q = tensors[0]
    assert q is not None
    if q.shape[0] > MAX_BATCH:
        return f"batch must be <= {MAX_BATCH}, got {q.shape[0]}"
    for p, tokens in zip(patch_sizes, _tokens(q.shape[2], q.shape[3], patch_sizes), strict=True):
        features = q.shape[1] // len(patch_sizes) * p * p
        if features > MAX_FEATURES:
            return f"C / P * p * p must be <= {MAX_FEATURES}, got {features} with patches of {p}x{p}"
        if features > STREAMED_FEATURES and tokens > MAX_TOKENS:
            return (
                f"patches must be <= {MAX_TOKENS} where C / P * p * p is > {STREAMED_FEATURES}, "
                f"got {tokens} of {features} features with patches of {p}x{p}"
            )
    return None


def _key(*tensors: Tensor | None, patch_sizes: Sequence[int], mode: str) -> tuple[str | int, ...]:
    """What the kernels are tuned by."""
    return _triton.kernels("attention.heads").key_of(tensors[0], patch_sizes, mode)


@torch.library.custom_op("mmif::gated_mask_attention", mutates_args=())
def _gated_mask_attention(
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    residual: Tensor | None,
    patch_sizes: Sequence[int],
    mode: str,
    backend: str = "reference",
) -> tuple[Tensor, Tensor]:
    if backend == "triton":
        forward = _triton.kernels("attention.fwd").forward
        y, stats = forward(q, k, v, gate, residual, tuple(patch_sizes), mode, gated_mask_attention_saved_ref)
    else:
        y, stats = gated_mask_attention_saved_ref(q, k, v, gate, residual, patch_sizes, mode)
    return _laid_out(y, q), stats


@_gated_mask_attention.register_fake
def _fake(q, k, v, gate, residual, patch_sizes, mode, backend="reference") -> tuple[Tensor, Tensor]:
    n, _, h, w = q.shape
    dtype = wide_dtype(q)
    rows = 2 if mode == "log" else 1
    return _dense_like(q), q.new_empty((n, rows, sum(_tokens(h, w, patch_sizes))), dtype=dtype)


@torch.library.custom_op("mmif::gated_mask_attention_bwd", mutates_args=())
def _gated_mask_attention_bwd(
    dy: Tensor,
    y: Tensor,
    stats: Tensor,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor | None,
    patch_sizes: Sequence[int],
    mode: str,
    backend: str = "reference",
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    if backend == "triton":
        backward = _triton.kernels("attention.bwd").backward
        grads = backward(dy, y, stats, q, k, v, gate, tuple(patch_sizes), mode, gated_mask_attention_bwd_ref)
    else:  # the reference forms the weights again, it needs neither y nor stats
        grads = gated_mask_attention_bwd_ref(dy, q, k, v, gate, patch_sizes, mode)
    like = (q, k, v, gate if gate is not None else q.new_empty(0))
    dq, dk, dv, dgate = (_laid_out(g, t) for g, t in zip(grads, like, strict=True))
    return dq, dk, dv, dgate


@_gated_mask_attention_bwd.register_fake
def _bwd_fake(
    dy, y, stats, q, k, v, gate, patch_sizes, mode, backend="reference"
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    return _dense_like(q), _dense_like(k), _dense_like(v), q.new_empty(0) if gate is None else _dense_like(gate)


def _dense_like(t: Tensor) -> Tensor:
    return empty_like_format(t, t.shape)


def _laid_out(gradient: Tensor, t: Tensor) -> Tensor:
    """``gradient`` in the dtype and the dense layout of ``t``, copied if it is in another."""
    out = _dense_like(t)
    return gradient if (gradient.stride(), gradient.dtype) == (out.stride(), out.dtype) else out.copy_(gradient)


def _setup_context(ctx, inputs, output) -> None:
    q, k, v, gate, residual, ctx.patch_sizes, ctx.mode, ctx.backend = inputs
    y, stats = output
    if residual is not None and any(ctx.needs_input_grad[:5]):
        raise RuntimeError(
            "gated_mask_attention: residual must be None where a gradient is wanted, got a tensor; add it to the output"
        )
    ctx.mark_non_differentiable(stats)
    ctx.save_for_backward(q, k, v, gate, y, stats)


def _backward(ctx, dy: Tensor, _: Tensor):
    q, k, v, gate, y, stats = ctx.saved_tensors
    dq, dk, dv, dgate = torch.ops.mmif.gated_mask_attention_bwd(
        dy, y, stats, q, k, v, gate, ctx.patch_sizes, ctx.mode, ctx.backend
    )
    return dq, dk, dv, None if gate is None else dgate, None, None, None, None


_gated_mask_attention.register_autograd(_backward, setup_context=_setup_context)
_triton.announce("gated_mask_attention", _limits, _key)
