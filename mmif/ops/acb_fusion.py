"""Adaptive contextual bottleneck: dilated paths, a gate vector per path, softmax over the paths (paper Eq. 1).

Written out, with ``;`` for concatenation, ``g`` the current and ``g'`` the previous gate map::

    f_r = relu(conv3x3_dilated_r(f))                      every path r, reflect padding
    z_r = conv3x3([f_r ; g ; g'])                         768 -> 256 channels in the paper
    a_r = sigmoid(fc(mean_hw(z_r)) + fc(max_hw(z_r)))
    out = sum_r softmax_r(a_r) f_r + f

and in the variant that the predecessor released, one weight per path for the whole image::

    z   = conv3x3([f ; h ; g'])                           h the gate map before its sigmoid g
    p   = softmax_r(tanh(fc(mean_hw(z))))
    out = f (1 - g) + g sum_r p_r f_r

Exact identities take most of the work out of z: see :mod:`mmif.ops.acb_pool`. The registered ops, with first-order
gradients, are in ``acb_paths.py``, ``acb_pool.py`` and ``acb_mix.py``. Layouts: any.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _triton, dispatch
from mmif.ops._common import to_autocast
from mmif.ops.acb_mix import acb_mix_ref
from mmif.ops.acb_paths import acb_blend_ref, acb_paths_ref
from mmif.ops.acb_pool import acb_pool_ref, mean_of_conv3x3

MAX_PATHS = 8  # the Triton kernels hold a number per path in every thread
MAX_PIXELS = 128 * 128  # one program reduces what all tiles of an image found
MAX_IMAGES = 65535  # programs along the second axis of a grid


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
    scale: Tensor | None = None,
    shift: Tensor | None = None,
    slope: float = 1.0,
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
        scale: ``[C]`` in float32, with ``shift``: return ``leaky_relu(scale out + shift, slope)``, without gradients
            in the compiled bodies. It stands for a batch norm in evaluation.
        shift: like ``scale``.
        slope: of the leaky ReLU below zero.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``x``, or of autocast where it is on.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    x, gates, *parameters = to_autocast(x, gates, path_weight, path_bias, fuse_weight, fuse_bias, fc_weight, fc_bias)
    path_weight, path_bias, fuse_weight, fuse_bias, fc_weight, fc_bias = parameters
    if x.ndim != 4 or gates.shape != (x.shape[0], 2 * x.shape[1], *x.shape[2:]):
        raise ValueError(
            f"acb_fusion: x must be [N, C, H, W] and gates [N, 2C, H, W], got {tuple(x.shape)} and {tuple(gates.shape)}"
        )
    c, r = x.shape[1], len(dilations)
    _check(x, (gates, *parameters), dilations)
    _check_shapes(
        path_weight=(path_weight, (r, c, c, 3, 3)),
        path_bias=(path_bias, (r, c)),
        fuse_weight=(fuse_weight, (c, 3 * c, 3, 3)),
        fuse_bias=(fuse_bias, (c,)),
        fc_weight=(fc_weight, (c, c)),
        fc_bias=(fc_bias, (c,)),
    )
    if (scale is None) != (shift is None):
        raise ValueError("acb_fusion: scale and shift must be given together, got one of them")
    _check_shapes(scale=(scale, (c,)), shift=(shift, (c,)))
    native = dispatch.choose("acb_fusion", x, gates, *parameters, scale, shift, backend=backend, paths=r)
    ops, reference = torch.ops.mmif, native == "reference"
    if reference:
        paths = acb_paths_ref(x, path_weight, path_bias, dilations)
    else:
        paths = ops.acb_paths(x, path_weight, path_bias, dilations, native)
    if reference and not _wants_gradients(paths, gates, fuse_weight, fuse_bias):
        mean, peak, _ = acb_pool_ref(paths, gates, fuse_weight, fuse_bias)
    else:  # also for the reference: its backward pass does without the convolutions that autograd would run
        mean, peak, _ = ops.acb_pool(paths, gates, fuse_weight, fuse_bias, native)
    logits = torch.sigmoid(F.linear(mean + peak, fc_weight, 2 * fc_bias))  # fc(mean) + fc(peak)
    if reference:
        return acb_mix_ref(paths, logits, x, scale, shift, slope)
    return ops.acb_mix(paths, logits, x, scale, shift, slope, native)


def acb_fusion_code(
    x: Tensor,
    raw_gate: Tensor,
    gate_prev: Tensor,
    path_weight: Tensor,
    path_bias: Tensor,
    fuse_weight: Tensor,
    fuse_bias: Tensor,
    fc_weight: Tensor,
    *,
    dilations: Sequence[int],
    backend: str | None = None,
) -> Tensor:
    """Run one bottleneck in the form that the predecessor released, all but the convolution that makes ``raw_gate``.

    Args:
        x: feature f, ``[N, C, H, W]``.
        raw_gate: current gate map before its sigmoid, like ``x``.
        gate_prev: previous gate map, like ``x``.
        path_weight: ``[R, C, C, 3, 3]``, one dilated convolution per path.
        path_bias: ``[R, C]``.
        fuse_weight: ``[C, 3C, 3, 3]``; input order x, raw_gate, gate_prev.
        fuse_bias: ``[C]``.
        fc_weight: ``[R, C]``; the released code has no bias here.
        dilations: R dilations, each smaller than H and W.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        ``[N, C, H, W]`` in the dtype of ``x``, or of autocast where it is on.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    x, raw_gate, gate_prev, *parameters = to_autocast(
        x, raw_gate, gate_prev, path_weight, path_bias, fuse_weight, fuse_bias, fc_weight
    )
    path_weight, path_bias, fuse_weight, fuse_bias, fc_weight = parameters
    if x.ndim != 4 or raw_gate.shape != x.shape or gate_prev.shape != x.shape:
        shapes = ", ".join(str(tuple(t.shape)) for t in (x, raw_gate, gate_prev))
        raise ValueError(f"acb_fusion: x, raw_gate and gate_prev must share a shape [N, C, H, W], got {shapes}")
    c, r = x.shape[1], len(dilations)
    _check(x, (raw_gate, gate_prev, *parameters), dilations)
    _check_shapes(
        path_weight=(path_weight, (r, c, c, 3, 3)),
        path_bias=(path_bias, (r, c)),
        fuse_weight=(fuse_weight, (c, 3 * c, 3, 3)),
        fuse_bias=(fuse_bias, (c,)),
        fc_weight=(fc_weight, (r, c)),
    )
    native = dispatch.choose("acb_fusion_code", x, raw_gate, gate_prev, *parameters, backend=backend, paths=r)
    pooled = mean_of_conv3x3(torch.cat([x, raw_gate, gate_prev], dim=1), fuse_weight, fuse_bias)
    mix = torch.tanh(F.linear(pooled, fc_weight)).softmax(1).to(x.dtype)  # autocast makes it float32
    gate = torch.sigmoid(raw_gate)
    if native == "reference":
        return acb_blend_ref(x, path_weight, path_bias, mix, gate, dilations)
    return torch.ops.mmif.acb_blend(x, path_weight, path_bias, mix, gate, dilations, native)


def _wants_gradients(*tensors: Tensor) -> bool:
    # An exported graph holds standard operators alone, and so does what torch.func transforms.
    if dispatch.exporting() or dispatch.not_followed(tensors):
        return False
    return torch.is_grad_enabled() and any(t.requires_grad for t in tensors)


def _check(x: Tensor, others: Sequence[Tensor], dilations: Sequence[int]) -> None:
    if not x.is_floating_point() or any(t.dtype != x.dtype for t in others):
        dtypes = ", ".join(str(t.dtype) for t in (x, *others))
        raise ValueError(f"acb_fusion: all tensors must share a floating dtype, got {dtypes}")
    if x.shape[1] == 0:
        raise ValueError(f"acb_fusion: x must have a channel or more, got {tuple(x.shape)}")
    if not all(isinstance(d, int) for d in dilations):
        raise ValueError(f"acb_fusion: dilations must be integers, got {tuple(dilations)}")
    if not dilations or min(dilations) < 1 or min(x.shape[2:]) <= max(dilations):
        raise ValueError(
            f"acb_fusion: dilations must be >= 1 and smaller than the image {tuple(x.shape[2:])}, "
            f"got {tuple(dilations)}"
        )


def _check_shapes(**expected: tuple[Tensor | None, tuple[int, ...]]) -> None:
    for name, (tensor, shape) in expected.items():
        if tensor is not None and tensor.shape != shape:
            raise ValueError(f"acb_fusion: {name} must have the shape {shape}, got {tuple(tensor.shape)}")


def _limits(x: Tensor, *_: Tensor | None, paths: int = 1) -> str | None:
    batch, pixels = x.shape[0], x.shape[2] * x.shape[3]
    if pixels > MAX_PIXELS:
        return f"H W must be <= {MAX_PIXELS}, got {pixels}"
    if paths > MAX_PATHS or paths * batch > MAX_IMAGES:
        return f"paths must be <= {MAX_PATHS}, and times the batch <= {MAX_IMAGES}, got {paths} and {paths * batch}"
    return None


_triton.announce("acb_fusion", _limits)
_triton.announce("acb_fusion_code", _limits)
