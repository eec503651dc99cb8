"""Adaptive contextual bottleneck: dilated paths, a gate vector per path, softmax over the paths (paper Eq. 1).

Written out, with ``;`` for concatenation, ``g`` the current and ``g'`` the previous gate map::

    f_r = relu(conv3x3_dilated_r(f))                      every path r, reflect padding
    z_r = conv3x3([f_r ; g ; g'])                         768 -> 256 channels in the paper
    a_r = sigmoid(fc(mean_hw(z_r)) + fc(max_hw(z_r)))
    out = sum_r softmax_r(a_r) f_r + f

Two exact identities take most of the work out of ``z_r``. Its weight is shared over the paths, so
``conv([f_r ; g ; g']) = conv_f(f_r) + conv_g([g ; g'])`` and the second term is computed once. And the mean of a
zero-padded 3x3 convolution is its weight applied to nine window sums (:func:`mean_of_conv3x3`), so where only the mean
is wanted (the predecessor's released variant) the convolution disappears.

Three registered ops with first-order gradients: ``acb_paths``, ``acb_pool``, ``acb_mix``. Layouts: any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif import backends
from mmif.ops._common import in_own_dtype, to_autocast


def acb_fusion(
    x: Tensor,
    gates: Tensor,
    path_weight: Tensor,
    path_bias: Tensor,
    fuse_weight: Tensor,
    fuse_bias: Tensor,
    fc_weight: Tensor,
    fc_bias: Tensor,
    *,
    dilations: Sequence[int],
    backend: str | None = None,
) -> Tensor:
    """Run one bottleneck in the form of the paper's Eq. 1, all but the gate convolution that makes ``gates``.

    Args:
        x: feature f, ``[N, C, H, W]``.
        gates: ``[g ; g']``, current and previous gate map, ``[N, 2C, H, W]``.
        path_weight: ``[R, C, C, 3, 3]``, one dilated convolution per path.
        path_bias: ``[R, C]``.
        fuse_weight: ``[C, 3C, 3, 3]``, shared by the paths; input order f_r, g, g'.
        fuse_bias: ``[C]``.
        fc_weight: ``[C, C]``, shared by the mean and the maximum.
        fc_bias: ``[C]``.
        dilations: R dilations, each smaller than H and W.
        backend: op backend; see :mod:`mmif.backends`.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``x``, or of autocast where it is on.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    x, gates, *parameters = to_autocast(x, gates, path_weight, path_bias, fuse_weight, fuse_bias, fc_weight, fc_bias)
    path_weight, path_bias, fuse_weight, fuse_bias, fc_weight, fc_bias = parameters
    _check(x, gates, parameters, dilations)
    channels = x.shape[1]
    native = backends.choose("acb_fusion", x, backend=backend) != "reference"
    paths_fn, pool_fn, mix_fn = _registered() if native else (acb_paths_ref, acb_pool_ref, acb_mix_ref)
    paths = paths_fn(x, path_weight, path_bias, list(dilations))
    shared = F.conv2d(gates, fuse_weight[:, channels:], fuse_bias, padding=1)
    mean, peak, _ = pool_fn(paths, shared, fuse_weight[:, :channels])
    logits = torch.sigmoid(F.linear(mean, fc_weight, fc_bias) + F.linear(peak, fc_weight, fc_bias))
    return mix_fn(paths, logits, x)


def mean_of_conv3x3(x: Tensor, weight: Tensor, bias: Tensor | None = None) -> Tensor:
    """Return ``conv2d(x, weight, bias, padding=1).mean((2, 3))`` without the convolution.

    Each tap of a zero-padded 3x3 window sees the whole image but for one border row, one border column and their
    corner; nine such sums per channel are all that the mean needs.

    Args:
        x: ``[N, I, H, W]``.
        weight: ``[O, I, 3, 3]``.
        bias: ``[O]`` or None.

    Returns:
        ``[N, O]``.
    """
    acc = torch.promote_types(x.dtype, torch.float32)  # the sums leave the range of float16
    rows = torch.stack([t.sum(2, dtype=acc) for t in (x[:, :, :-1], x, x[:, :, 1:])], dim=2)  # [N, I, 3, W]
    taps = torch.stack([rows[..., :-1].sum(3), rows.sum(3), rows[..., 1:].sum(3)], dim=3)  # [N, I, 3, 3]
    mean = (torch.einsum("niyx,oiyx->no", taps, weight.to(acc)) / (x.shape[2] * x.shape[3])).to(x.dtype)
    return mean if bias is None else mean + bias


@in_own_dtype
def acb_paths_ref(x: Tensor, weight: Tensor, bias: Tensor, dilations: Sequence[int]) -> Tensor:
    """ReLU of R dilated 3x3 convolutions with reflect padding: ``[N, C, H, W]`` to ``[N, R, O, H, W]``."""
    paths = [
        F.relu(F.conv2d(F.pad(x, (d, d, d, d), mode="reflect"), w, b, dilation=d))
        for w, b, d in zip(weight.unbind(0), bias.unbind(0), dilations, strict=True)
    ]
    return torch.stack(paths, dim=1)


@in_own_dtype
def acb_pool_ref(paths: Tensor, shared: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and maximum over the image of ``z_r = conv3x3(f_r, weight) + shared``, and where the maximum lies.

    Args:
        paths: ``[N, R, C, H, W]``.
        shared: ``[N, O, H, W]``, the term that all paths have in common.
        weight: ``[O, C, 3, 3]``.

    Returns:
        Mean ``[N, R, O]``, maximum ``[N, R, O]``, its flat position ``[N, R, O]`` (int64).
    """
    n, r = paths.shape[:2]
    z = F.conv2d(paths.flatten(0, 1), weight, padding=1).unflatten(0, (n, r)) + shared[:, None]
    flat = z.flatten(3)
    peak, where = flat.max(dim=3)
    return flat.mean(3), peak, where


@in_own_dtype
def acb_mix_ref(paths: Tensor, logits: Tensor, x: Tensor) -> Tensor:
    """Return ``sum_r softmax_r(logits) paths_r + x``: ``[N, R, C, H, W]``, ``[N, R, C]``, ``[N, C, H, W]``."""
    return (logits.softmax(1)[..., None, None] * paths).sum(1) + x


def _registered():
    ops = torch.ops.mmif
    return ops.acb_paths, ops.acb_pool, ops.acb_mix


def _check(x: Tensor, gates: Tensor, parameters: Sequence[Tensor], dilations: Sequence[int]) -> None:
    if x.ndim != 4 or gates.shape != (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
        raise ValueError(
            f"acb_fusion: x must be [N, C, H, W] and gates [N, 2C, H, W], got {tuple(x.shape)} and {tuple(gates.shape)}"
        )
    if not x.is_floating_point() or any(t.dtype != x.dtype for t in (gates, *parameters)):
        dtypes = ", ".join(str(t.dtype) for t in (x, gates, *parameters))
        raise ValueError(f"acb_fusion: all tensors must share a floating dtype, got {dtypes}")
    if not dilations or min(dilations) < 1 or min(x.shape[2:]) <= max(dilations):
        raise ValueError(
            f"acb_fusion: dilations must be >= 1 and smaller than the image {tuple(x.shape[2:])}, "
            f"got {tuple(dilations)}"
        )
    c, r = x.shape[1], len(dilations)
    names = ("path_weight", "path_bias", "fuse_weight", "fuse_bias", "fc_weight", "fc_bias")
    shapes = ((r, c, c, 3, 3), (r, c), (c, 3 * c, 3, 3), (c,), (c, c), (c,))
    for name, shape, parameter in zip(names, shapes, parameters, strict=True):
        if parameter.shape != shape:
            raise ValueError(f"acb_fusion: {name} must have the shape {shape}, got {tuple(parameter.shape)}")


@torch.library.custom_op("mmif::acb_paths", mutates_args=())
def _acb_paths(x: Tensor, weight: Tensor, bias: Tensor, dilations: Sequence[int]) -> Tensor:
    return acb_paths_ref(x, weight, bias, dilations).contiguous()


@_acb_paths.register_fake
def _acb_paths_fake(x, weight, bias, dilations) -> Tensor:
    return x.new_empty((x.shape[0], weight.shape[0], weight.shape[1], x.shape[2], x.shape[3]))


@torch.library.custom_op("mmif::acb_paths_bwd", mutates_args=())
def _acb_paths_bwd(
    dy: Tensor, y: Tensor, x: Tensor, weight: Tensor, dilations: Sequence[int]
) -> tuple[Tensor, Tensor, Tensor]:
    dx, dweight, dbias = torch.zeros_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[:2])
    for r, d in enumerate(dilations):
        dz = torch.where(y[:, r] > 0, dy[:, r], 0.0)
        padded = F.pad(x, (d, d, d, d), mode="reflect")
        dpadded, dweight[r], dbias[r] = torch.ops.aten.convolution_backward(
            dz, padded, weight[r], [weight.shape[1]], [1, 1], [0, 0], [d, d], False, [0, 0], 1, [True, True, True]
        )
        dx += torch.ops.aten.reflection_pad2d_backward(dpadded, x, [d, d, d, d])
    return dx, dweight, dbias


@_acb_paths_bwd.register_fake
def _acb_paths_bwd_fake(dy, y, x, weight, dilations) -> tuple[Tensor, Tensor, Tensor]:
    return torch.empty_like(x), torch.empty_like(weight), weight.new_empty(weight.shape[:2])


def _acb_paths_setup(ctx, inputs, output) -> None:
    x, weight, _, ctx.dilations = inputs
    ctx.save_for_backward(output, x, weight)


def _acb_paths_backward(ctx, dy: Tensor):
    return *torch.ops.mmif.acb_paths_bwd(dy, *ctx.saved_tensors, ctx.dilations), None


_acb_paths.register_autograd(_acb_paths_backward, setup_context=_acb_paths_setup)


@torch.library.custom_op("mmif::acb_pool", mutates_args=())
def _acb_pool(paths: Tensor, shared: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    return acb_pool_ref(paths, shared, weight)


@_acb_pool.register_fake
def _acb_pool_fake(paths, shared, weight) -> tuple[Tensor, Tensor, Tensor]:
    shape = (paths.shape[0], paths.shape[1], weight.shape[0])
    return paths.new_empty(shape), paths.new_empty(shape), paths.new_empty(shape, dtype=torch.int64)


@torch.library.custom_op("mmif::acb_pool_bwd", mutates_args=())
def _acb_pool_bwd(
    dmean: Tensor, dpeak: Tensor, where: Tensor, paths: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    n, r, _, h, w = paths.shape
    dz = (dmean / (h * w))[..., None].expand(n, r, -1, h * w)
    dz = dz.scatter_add(3, where[..., None], dpeak[..., None]).unflatten(3, (h, w))
    dpaths, dweight, _ = torch.ops.aten.convolution_backward(
        dz.flatten(0, 1), paths.flatten(0, 1), weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1,
        [True, True, False],
    )  # fmt: skip
    return dpaths.contiguous().view(paths.shape), dz.sum(1), dweight.contiguous()


@_acb_pool_bwd.register_fake
def _acb_pool_bwd_fake(dmean, dpeak, where, paths, weight) -> tuple[Tensor, Tensor, Tensor]:
    n, _, _, h, w = paths.shape
    return paths.new_empty(paths.shape), paths.new_empty((n, weight.shape[0], h, w)), weight.new_empty(weight.shape)


def _acb_pool_setup(ctx, inputs, output) -> None:
    paths, _, weight = inputs
    ctx.save_for_backward(output[2], paths, weight)


def _acb_pool_backward(ctx, dmean: Tensor, dpeak: Tensor, _dwhere: Tensor):
    return torch.ops.mmif.acb_pool_bwd(dmean, dpeak, *ctx.saved_tensors)


_acb_pool.register_autograd(_acb_pool_backward, setup_context=_acb_pool_setup)


@torch.library.custom_op("mmif::acb_mix", mutates_args=())
def _acb_mix(paths: Tensor, logits: Tensor, x: Tensor) -> Tensor:
    return acb_mix_ref(paths, logits, x).contiguous()


@_acb_mix.register_fake
def _acb_mix_fake(paths, logits, x) -> Tensor:
    return x.new_empty(x.shape)


@torch.library.custom_op("mmif::acb_mix_bwd", mutates_args=())
def _acb_mix_bwd(dy: Tensor, paths: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
    weights = logits.softmax(1)
    dpaths = weights[..., None, None] * dy[:, None]
    dweights = (paths * dy[:, None]).sum((3, 4))
    dlogits = weights * (dweights - (weights * dweights).sum(1, keepdim=True))
    return dpaths.contiguous(), dlogits.contiguous()


@_acb_mix_bwd.register_fake
def _acb_mix_bwd_fake(dy, paths, logits) -> tuple[Tensor, Tensor]:
    return paths.new_empty(paths.shape), logits.new_empty(logits.shape)


def _acb_mix_setup(ctx, inputs, output) -> None:
    paths, logits, _ = inputs
    ctx.save_for_backward(paths, logits)


def _acb_mix_backward(ctx, dy: Tensor):
    return *torch.ops.mmif.acb_mix_bwd(dy, *ctx.saved_tensors), dy


_acb_mix.register_autograd(_acb_mix_backward, setup_context=_acb_mix_setup)
