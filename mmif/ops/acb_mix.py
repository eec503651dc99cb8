"""The end of the adaptive contextual bottleneck: softmax over the paths, weighted sum, residual, optional affine.

Registered ops: ``acb_mix``, ``acb_mix_bwd``. Gradients: first order, and none with the affine map, which stands for a
batch norm in evaluation. Layouts: any; the output has the one of ``x``.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _triton
from mmif.ops._common import empty_like_format, format_of, in_own_dtype
from mmif.ops.acb_paths import channels_last, empty_channels_last


@in_own_dtype
def acb_mix_ref(
    paths: Tensor,
    logits: Tensor,
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    slope: float = 1.0,
) -> Tensor:
    """Return ``y = sum_r softmax_r(logits) paths_r + x``, or ``leaky_relu(scale y + shift, slope)`` with an affine map.

    Args:
        paths: ``[N, R, C, H, W]``.
        logits: ``[N, R, C]``.
        x: ``[N, C, H, W]``.
        scale: ``[C]``, float32 or wider, or None.
        shift: like ``scale``; None if and only if that is.
        slope: of the leaky ReLU below zero.
    """
    y = (logits.softmax(1)[..., None, None] * paths).sum(1) + x
    if scale is None or shift is None:
        return y
    return F.leaky_relu(y * scale[:, None, None] + shift[:, None, None], slope).to(x.dtype)


@torch.library.custom_op("mmif::acb_mix", mutates_args=())
def _acb_mix(
    paths: Tensor,
    logits: Tensor,
    x: Tensor,
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    slope: float = 1.0,
    backend: str = "reference",
) -> Tensor:
    if backend != "triton":
        return acb_mix_ref(paths, logits, x, scale, shift, slope).contiguous(memory_format=format_of(x))
    return _triton.kernels("acb.mix").mix(paths, logits, x, scale, shift, slope, acb_mix_ref)


@_acb_mix.register_fake
def _acb_mix_fake(paths, logits, x, scale=None, shift=None, slope=1.0, backend="reference") -> Tensor:
    return empty_like_format(x, x.shape)


@torch.library.custom_op("mmif::acb_mix_bwd", mutates_args=())
def _acb_mix_bwd(dy: Tensor, paths: Tensor, logits: Tensor, backend: str = "reference") -> tuple[Tensor, Tensor]:
    if backend != "triton":
        return _mix_bwd(dy, paths, logits)
    return _triton.kernels("acb.mix").mix_bwd(dy, paths, logits, _mix_bwd)


@in_own_dtype
def _mix_bwd(dy: Tensor, paths: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    weights = logits.softmax(1)
    dpaths = weights[..., None, None] * dy[:, None]
    dweights = (paths * dy[:, None]).sum((3, 4))
    dlogits = weights * (dweights - (weights * dweights).sum(1, keepdim=True))
    return channels_last(dpaths), dlogits.contiguous()


@_acb_mix_bwd.register_fake
def _acb_mix_bwd_fake(dy, paths, logits, backend="reference") -> tuple[Tensor, Tensor]:
    return empty_channels_last(paths, paths.shape), logits.new_empty(logits.shape)


def _acb_mix_setup(ctx, inputs, output) -> None:
    paths, logits, _, scale, _, _, ctx.backend = inputs
    ctx.affine = scale is not None
    ctx.save_for_backward(paths, logits)


def _acb_mix_backward(ctx, dy: Tensor):
    if ctx.affine:
        raise RuntimeError("acb_mix: no gradient goes through its affine map; call it without scale and shift")
    dpaths, dlogits = torch.ops.mmif.acb_mix_bwd(dy, *ctx.saved_tensors, ctx.backend)
    return dpaths, dlogits, dy, None, None, None, None


_acb_mix.register_autograd(_acb_mix_backward, setup_context=_acb_mix_setup)
