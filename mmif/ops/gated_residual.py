"""``z + body * sigmoid(gate)`` in one pass: the end of the gated feed-forward (paper section 3.2).

Gradients: first order. Layouts: any.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmif.ops import _triton, dispatch
from mmif.ops._common import autocast_dtype, dense, empty_like_format, in_own_dtype, wide_dtype


def gated_residual(z: Tensor, body: Tensor, gate: Tensor, *, backend: str | None = None) -> Tensor:
    """Return ``z + body * sigmoid(gate)``.

    Args:
        z: any shape, floating point.
        body: of the shape and dtype of ``z`` (under autocast of any dtype).
        gate: the same; before its sigmoid.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        Tensor like ``z``.

    Raises:
        ValueError: shapes or dtypes that differ.
    """
    if autocast_dtype(z) is not None:
        body, gate = body.to(z.dtype), gate.to(z.dtype)
    _check(z, body, gate)
    chosen = dispatch.choose("gated_residual", z, body, gate, backend=backend)
    if chosen == "reference":
        return gated_residual_ref(z, body, gate)
    return torch.ops.mmif.gated_residual(z, body, gate, chosen)


@in_own_dtype
def gated_residual_ref(z: Tensor, body: Tensor, gate: Tensor) -> Tensor:
    """Plain PyTorch, differentiable. Same arguments as ``mmif::gated_residual``."""
    return z + body * torch.sigmoid(gate)


@in_own_dtype
def gated_residual_bwd_ref(dy: Tensor, body: Tensor, gate: Tensor) -> tuple[Tensor, Tensor]:
    """Gradients with respect to body and gate; that of z is ``dy``."""
    wide_dy, wide_body, wide_gate = (t.to(wide_dtype(t)) for t in (dy, body, gate))
    opening = torch.sigmoid(wide_gate)
    dbody = wide_dy * opening
    return dbody.to(body.dtype), (dbody * wide_body * (1 - opening)).to(gate.dtype)


def _check(z: Tensor, body: Tensor, gate: Tensor) -> None:
    if not z.is_floating_point():
        raise ValueError(f"gated_residual: z must be floating point, got {z.dtype}")
    for name, t in (("body", body), ("gate", gate)):
        if t.shape != z.shape or t.dtype != z.dtype:
            raise ValueError(
                f"gated_residual: {name} must be {z.dtype} of the shape of z, {tuple(z.shape)}, "
                f"got {t.dtype} {tuple(t.shape)}"
            )


@torch.library.custom_op("mmif::gated_residual", mutates_args=())
def _gated_residual(z: Tensor, body: Tensor, gate: Tensor, backend: str = "reference") -> Tensor:
    def reference() -> Tensor:
        return empty_like_format(z, z.shape).copy_(gated_residual_ref(z, body, gate))

    if backend != "triton":
        return reference()
    return _triton.kernels("gated_residual").forward(*dense(z, z, body, gate), key=_key(z), reference=reference)


@_gated_residual.register_fake
def _fake(z, body, gate, backend="reference") -> Tensor:
    return empty_like_format(z, z.shape)


@torch.library.custom_op("mmif::gated_residual_bwd", mutates_args=())
def _gated_residual_bwd(dy: Tensor, body: Tensor, gate: Tensor, backend: str = "reference") -> tuple[Tensor, Tensor]:
    def reference() -> tuple[Tensor, Tensor]:
        dbody, dgate = gated_residual_bwd_ref(dy, body, gate)
        return empty_like_format(body, body.shape).copy_(dbody), empty_like_format(body, body.shape).copy_(dgate)

    if backend != "triton":
        return reference()
    return _triton.kernels("gated_residual").backward(*dense(body, dy, body, gate), reference=reference)


@_gated_residual_bwd.register_fake
def _bwd_fake(dy, body, gate, backend="reference") -> tuple[Tensor, Tensor]:
    return empty_like_format(body, body.shape), empty_like_format(body, body.shape)


def _setup_context(ctx, inputs, output) -> None:
    _, body, gate, ctx.backend = inputs
    ctx.save_for_backward(body, gate)


def _backward(ctx, dy: Tensor):
    dbody, dgate = torch.ops.mmif.gated_residual_bwd(dy, *ctx.saved_tensors, ctx.backend)
    return dy, dbody, dgate, None


_gated_residual.register_autograd(_backward, setup_context=_setup_context)


def _key(z: Tensor, *_: Tensor) -> tuple[str | int, ...]:
    """What the forward is tuned by."""
    return "forward", z.numel(), str(z.dtype)


_triton.announce("gated_residual", key=_key)
