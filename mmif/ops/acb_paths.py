"""The dilated paths of the adaptive contextual bottleneck: ``f_r = relu(conv3x3_dilated_r(x))``, reflect padding.

``acb_paths`` returns all of them; ``acb_blend`` mixes them with a weight per path and blends the mix with ``x``, so
that a kernel need not write them at all. Images and paths come out with their channels last in memory, whatever
the layout of the input.

Registered ops: ``acb_paths``, ``acb_paths_bwd``, ``acb_blend``, ``acb_blend_bwd``. Gradients: first order.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _triton
from mmif.ops._common import in_own_dtype


def channels_last(t: Tensor) -> Tensor:
    """``[..., C, H, W]`` with C last in memory; a copy only where it is not so already."""
    return t.movedim(-3, -1).contiguous().movedim(-1, -3)


def empty_channels_last(like: Tensor, shape: Sequence[int]) -> Tensor:
    """An empty tensor of ``shape``, ``[..., C, H, W]``, with C last in memory."""
    *outer, c, h, w = shape
    return like.new_empty((*outer, h, w, c)).movedim(-1, -3)


@in_own_dtype
def acb_paths_ref(x: Tensor, weight: Tensor, bias: Tensor, dilations: Sequence[int]) -> Tensor:
    """ReLU of R dilated 3x3 convolutions with reflect padding: ``[N, C, H, W]`` to ``[N, R, O, H, W]``."""
    paths = [
        F.relu(F.conv2d(_pad(x, d), w, b, dilation=d))
        for w, b, d in zip(weight.unbind(0), bias.unbind(0), dilations, strict=True)
    ]
    return torch.stack(paths, dim=1)


@in_own_dtype
def acb_blend_ref(
    x: Tensor, weight: Tensor, bias: Tensor, mix: Tensor, gate: Tensor, dilations: Sequence[int]
) -> Tensor:
    """Return ``x (1 - gate) + gate sum_r mix_r f_r``, ``mix`` being ``[N, R]`` and ``gate`` like ``x``."""
    paths = acb_paths_ref(x, weight, bias, dilations)
    return x * (1 - gate) + gate * (mix[:, :, None, None, None] * paths).sum(1)


def _pad(x: Tensor, d: int) -> Tensor:
    return F.pad(x, (d, d, d, d), mode="reflect")


def _conv_bwd(
    dz: Tensor, x: Tensor, weight: Tensor, d: int, mask: tuple[bool, bool, bool]
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of the padded input, weight and bias of one path; those that ``mask`` leaves out are None."""
    return torch.ops.aten.convolution_backward(
        dz, _pad(x, d), weight, [weight.shape[0]], [1, 1], [0, 0], [d, d], False, [0, 0], 1, mask
    )


def _data_gradient(dz: Tensor, x: Tensor, weight: Tensor, dilations: Sequence[int]) -> Tensor:
    dx = torch.zeros_like(x)
    for r, d in enumerate(dilations):
        dpadded = _conv_bwd(dz[:, r], x, weight[r], d, (True, False, False))[0]
        dx += torch.ops.aten.reflection_pad2d_backward(dpadded, x, [d, d, d, d])
    return dx


@torch.library.custom_op("mmif::acb_paths", mutates_args=())
def _acb_paths(x: Tensor, weight: Tensor, bias: Tensor, dilations: Sequence[int], backend: str = "reference") -> Tensor:
    if backend != "triton":
        return channels_last(acb_paths_ref(x, weight, bias, dilations))
    return _triton.kernels("acb.paths").paths(x, weight, bias, tuple(dilations), acb_paths_ref)


@_acb_paths.register_fake
def _acb_paths_fake(x, weight, bias, dilations, backend="reference") -> Tensor:
    return empty_channels_last(x, (x.shape[0], *weight.shape[:2], *x.shape[2:]))


@torch.library.custom_op("mmif::acb_paths_bwd", mutates_args=())
def _acb_paths_bwd(
    dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, dilations: Sequence[int], backend: str = "reference"
) -> tuple[Tensor, Tensor, Tensor]:
    dz = channels_last(torch.where(y > 0, dy, 0.0))
    if backend == "triton":
        dx = _triton.kernels("acb.paths_bwd").paths_data_gradient(dz, x, weight, tuple(dilations), _data_gradient)
    else:
        dx = channels_last(_data_gradient(dz, x, weight, dilations))
    dweight, dbias = empty_channels_last(weight, weight.shape), weight.new_empty(weight.shape[:2])
    for r, d in enumerate(dilations):
        _, dweight[r], dbias[r] = _conv_bwd(dz[:, r], x, weight[r], d, (False, True, True))
    return dx, dweight, dbias


@_acb_paths_bwd.register_fake
def _acb_paths_bwd_fake(dy, y, x, weight, dilations, backend="reference") -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight = (empty_channels_last(t, t.shape) for t in (x, weight))
    return dx, dweight, weight.new_empty(weight.shape[:2])


def _acb_paths_setup(ctx, inputs, output) -> None:
    x, weight, _, ctx.dilations, ctx.backend = inputs
    ctx.save_for_backward(output, x, weight)


def _acb_paths_backward(ctx, dy: Tensor):
    return *torch.ops.mmif.acb_paths_bwd(dy, *ctx.saved_tensors, ctx.dilations, ctx.backend), None, None


_acb_paths.register_autograd(_acb_paths_backward, setup_context=_acb_paths_setup)


@torch.library.custom_op("mmif::acb_blend", mutates_args=())
def _acb_blend(
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mix: Tensor,
    gate: Tensor,
    dilations: Sequence[int],
    backend: str = "reference",
) -> Tensor:
    if backend != "triton":
        return channels_last(acb_blend_ref(x, weight, bias, mix, gate, dilations))
    return _triton.kernels("acb.paths").blend(x, weight, bias, mix, gate, tuple(dilations), acb_blend_ref)


@_acb_blend.register_fake
def _acb_blend_fake(x, weight, bias, mix, gate, dilations, backend="reference") -> Tensor:
    return empty_channels_last(x, x.shape)


@torch.library.custom_op("mmif::acb_blend_bwd", mutates_args=())
def _acb_blend_bwd(
    dy: Tensor,
    x: Tensor,
    weight: Tensor,
    bias: Tensor,
    mix: Tensor,
    gate: Tensor,
    dilations: Sequence[int],
    backend: str = "reference",
) -> tuple[Tensor, Tensor, Tensor, Tensor, Tensor]:
    paths = _acb_paths(x, weight, bias, dilations, backend)  # made again: the forward never wrote them
    weights = mix[:, :, None, None, None]
    dmixed = dy * gate
    dgate = dy * ((weights * paths).sum(1) - x)
    dmix = (paths * dmixed[:, None]).sum((2, 3, 4))
    dx, dweight, dbias = _acb_paths_bwd(weights * dmixed[:, None], paths, x, weight, dilations, backend)
    return dx + channels_last(dy * (1 - gate)), dweight, dbias, dmix, channels_last(dgate)


@_acb_blend_bwd.register_fake
def _acb_blend_bwd_fake(dy, x, weight, bias, mix, gate, dilations, backend="reference"):
    dx, dweight, dgate = (empty_channels_last(t, t.shape) for t in (x, weight, gate))
    return dx, dweight, bias.new_empty(bias.shape), mix.new_empty(mix.shape), dgate


def _acb_blend_setup(ctx, inputs, output) -> None:
    *tensors, ctx.dilations, ctx.backend = inputs
    ctx.save_for_backward(*tensors)


def _acb_blend_backward(ctx, dy: Tensor):
    return *torch.ops.mmif.acb_blend_bwd(dy, *ctx.saved_tensors, ctx.dilations, ctx.backend), None, None


_acb_blend.register_autograd(_acb_blend_backward, setup_context=_acb_blend_setup)
