"""Normalise every sample and modulate it by maps of its own size: what ADN and pre-modulation share (Eqs. 2 and 4).

The norm runs over all dimensions but the first, without affine: for an image group norm with one group, for a vector
layer norm. Its statistics are float32 at least. Gradients: first order. Layouts: any.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor

from mmif.ops import _triton, dispatch
from mmif.ops._common import autocast_dtype, dense, empty_like_format, in_own_dtype, wide_dtype

MAX_SAMPLE = 2**24  # elements; a kernel keeps the statistics of all chunks of a sample in one block


def adaptive_norm(
    x: Tensor,
    gamma: Tensor,
    beta: Tensor,
    shift: Tensor | None = None,
    *,
    eps: float = 1e-5,
    backend: str | None = None,
) -> Tensor:
    """Return ``gamma * norm(x) + beta``, plus ``shift`` where the offset comes as two maps.

    The norm of a sample with one value, or with equal ones, is 0.

    Args:
        x: ``[N, C, ...]``, floating point.
        gamma: of the shape and dtype of ``x`` (under autocast of any dtype), as are the next two.
        beta: offset, or the first part of it.
        shift: second part of the offset, or None.
        eps: added to the variance, > 0.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        Tensor like ``x``.

    Raises:
        ValueError: shapes or dtypes that differ, fewer than two dimensions, or an eps that is not above zero.
    """
    if autocast_dtype(x) is not None:
        gamma, beta = gamma.to(x.dtype), beta.to(x.dtype)
        shift = None if shift is None else shift.to(x.dtype)
    _check(x, gamma, beta, shift, eps)
    chosen = dispatch.choose("adaptive_norm", x, gamma, beta, shift, backend=backend)
    if chosen == "reference":
        return adaptive_norm_ref(x, gamma, beta, shift, eps)
    return torch.ops.mmif.adaptive_norm(x, gamma, beta, shift, eps, chosen)[0]


@in_own_dtype
def adaptive_norm_ref(x: Tensor, gamma: Tensor, beta: Tensor, shift: Tensor | None, eps: float) -> Tensor:
    """Plain PyTorch, differentiable. Same arguments as ``mmif::adaptive_norm``, and its first output."""
    # Not F.group_norm: it refuses a sample of one value.
    return _modulate(torch.group_norm(x.to(wide_dtype(x)), 1, None, None, eps), gamma, beta, shift)


@in_own_dtype
def adaptive_norm_saved_ref(
    x: Tensor, gamma: Tensor, beta: Tensor, shift: Tensor | None, eps: float
) -> tuple[Tensor, Tensor, Tensor]:
    """All outputs of ``mmif::adaptive_norm``: the result, and what backward needs, mean and 1 / deviation ``[N]``."""
    (n, c), pixels = x.shape[:2], math.prod(x.shape[2:])
    normed, mean, rstd = torch.native_group_norm(x.to(wide_dtype(x)).contiguous(), None, None, n, c, pixels, 1, eps)
    return _modulate(normed, gamma, beta, shift), mean.detach().squeeze(1), rstd.detach().squeeze(1)


def _modulate(normed: Tensor, gamma: Tensor, beta: Tensor, shift: Tensor | None) -> Tensor:
    return torch.addcmul(beta if shift is None else beta + shift, gamma, normed.to(gamma.dtype))


@in_own_dtype
def adaptive_norm_bwd_ref(dy: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to x and gamma; those of the offsets are ``dy``."""
    column = (-1, *[1] * (x.ndim - 1))
    mean, rstd = mean.view(column), rstd.view(column)
    normed, wide_dy = (x.to(wide_dtype(x)) - mean) * rstd, dy.to(wide_dtype(dy))
    g = wide_dy * gamma
    rest = list(range(1, x.ndim))
    along = (g * normed).mean(rest, keepdim=True)
    dx = rstd * (g - g.mean(rest, keepdim=True) - normed * along)
    return dx.to(x.dtype), (wide_dy * normed).to(x.dtype)


def _check(x: Tensor, gamma: Tensor, beta: Tensor, shift: Tensor | None, eps: float) -> None:
    if x.ndim < 2 or not x.is_floating_point():
        raise ValueError(f"adaptive_norm: x must be a floating tensor [N, C, ...], got {x.dtype} {tuple(x.shape)}")
    for name, t in (("gamma", gamma), ("beta", beta), ("shift", shift)):
        if t is not None and (t.shape != x.shape or t.dtype != x.dtype):
            raise ValueError(
                f"adaptive_norm: {name} must be {x.dtype} of the shape of x, {tuple(x.shape)}, "
                f"got {t.dtype} {tuple(t.shape)}"
            )
    if not eps > 0:
        raise ValueError(f"adaptive_norm: eps must be > 0, got {eps}")


@torch.library.custom_op("mmif::adaptive_norm", mutates_args=())
def _adaptive_norm(
    x: Tensor, gamma: Tensor, beta: Tensor, shift: Tensor | None, eps: float, backend: str = "reference"
) -> tuple[Tensor, Tensor, Tensor]:
    def reference() -> tuple[Tensor, Tensor, Tensor]:
        y, mean, rstd = adaptive_norm_saved_ref(x, gamma, beta, shift, eps)
        return empty_like_format(x, x.shape).copy_(y), mean, rstd

    if backend != "triton":
        return reference()
    offsets = (beta,) if shift is None else (beta, shift)
    return _triton.kernels("adaptive_norm").forward(
        *dense(x, x, gamma, *offsets), eps=eps, key=_key(x, gamma, beta, shift), reference=reference
    )


@_adaptive_norm.register_fake
def _fake(x, gamma, beta, shift, eps, backend="reference") -> tuple[Tensor, Tensor, Tensor]:
    statistic = x.new_empty(x.shape[:1], dtype=wide_dtype(x))
    return empty_like_format(x, x.shape), statistic, torch.empty_like(statistic)


@torch.library.custom_op("mmif::adaptive_norm_bwd", mutates_args=())
def _adaptive_norm_bwd(
    dy: Tensor, x: Tensor, gamma: Tensor, mean: Tensor, rstd: Tensor, backend: str = "reference"
) -> tuple[Tensor, Tensor]:
    def reference() -> tuple[Tensor, Tensor]:
        dx, dgamma = adaptive_norm_bwd_ref(dy, x, gamma, mean, rstd)
        return empty_like_format(x, x.shape).copy_(dx), empty_like_format(x, x.shape).copy_(dgamma)

    if backend != "triton":
        return reference()
    return _triton.kernels("adaptive_norm").backward(*dense(x, dy, x, gamma), mean, rstd, reference=reference)


@_adaptive_norm_bwd.register_fake
def _bwd_fake(dy, x, gamma, mean, rstd, backend="reference") -> tuple[Tensor, Tensor]:
    return empty_like_format(x, x.shape), empty_like_format(x, x.shape)


def _setup_context(ctx, inputs, output) -> None:
    x, gamma, _, shift, _, ctx.backend = inputs
    _, mean, rstd = output
    ctx.shifted = shift is not None
    ctx.mark_non_differentiable(mean, rstd)
    ctx.save_for_backward(x, gamma, mean, rstd)


def _backward(ctx, dy: Tensor, _dmean: Tensor, _drstd: Tensor):
    dx, dgamma = torch.ops.mmif.adaptive_norm_bwd(dy, *ctx.saved_tensors, ctx.backend)
    return dx, dgamma, dy, dy if ctx.shifted else None, None, None


_adaptive_norm.register_autograd(_backward, setup_context=_setup_context)


def _limits(x: Tensor, *_: Tensor | None) -> str | None:
    size = x[:1].numel()
    return None if size <= MAX_SAMPLE else f"a sample must have at most {MAX_SAMPLE} elements, got {size}"


def _key(x: Tensor, gamma: Tensor, beta: Tensor, shift: Tensor | None = None) -> tuple[str | int, ...]:
    """What the forward is tuned by."""
    return "forward", x.shape[0], x[:1].numel(), str(x.dtype), int(shift is not None)


_triton.announce("adaptive_norm", _limits, _key)
