"""A 3x3 convolution of few channels and all that follows it in StyleGAN2's synthesis network, in one kernel.

``narrow_conv3x3(x, weight, ...)`` is ``conv_epilogue(conv2d(x, weight, padding=1), ...)``; a compiled body does not
round the convolution's result, and no memory ever holds it.

Gradients: none (inference); training uses the ops one by one. Layout: channels_last, whatever comes in.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif import backends
from mmif.ops._common import in_own_dtype
from mmif.ops.bias_act import ACTIVATIONS
from mmif.ops.conv_epilogue import ToRGB, _check, conv_epilogue_ref


def narrow_conv3x3(
    x: Tensor,
    weight: Tensor,
    *,
    demod: Tensor | None = None,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    bias: Tensor | None = None,
    skip: Tensor | None = None,
    next_styles: Tensor | None = None,
    to_rgb: ToRGB | None = None,
    resample_filter: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Convolve with stride 1 and padding 1, then run the epilogue of the layer; whatever is None is left out.

    Args:
        x: ``[N, I, H, W]``.
        weight: ``[O, I, 3, 3]`` in the dtype of ``x``.
        demod: as in :func:`mmif.ops.conv_epilogue` with the convolution's result ``[N, O, H, W]`` as ``y``, and so are
            all arguments below.
        noise: see there.
        noise_strength: see there.
        bias: see there.
        skip: see there.
        next_styles: see there.
        to_rgb: see there.
        resample_filter: see there; only ``to_rgb.prev`` needs it.
        act: see there.
        alpha: see there.
        gain: see there.
        clamp: see there.
        backend: op backend; see :mod:`mmif.backends`. Compiled bodies take float16 and bfloat16 and 16, 32, 48 or 64
            channels on either side.

    Returns:
        As :func:`mmif.ops.conv_epilogue`.

    Raises:
        ValueError: shapes, dtypes or options that do not fit together.
    """
    spec = ACTIVATIONS.get(act)
    if spec is None or not spec.piecewise_linear:
        raise ValueError(f"narrow_conv3x3: act must be linear, relu or lrelu, got {act!r}")
    if x.ndim != 4 or 0 in x.shape[2:] or weight.ndim != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(
            f"narrow_conv3x3: x must be [N, I, H, W] with a pixel or more and weight [O, I, 3, 3], "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if not x.is_floating_point() or weight.dtype != x.dtype:
        raise ValueError(f"narrow_conv3x3: x and weight must share a floating dtype, got {x.dtype} and {weight.dtype}")
    weights, styles, rgb_bias, prev = to_rgb[:4] if to_rgb else (None,) * 4
    tensors = (x, weight, demod, noise, noise_strength, bias, skip, next_styles)
    tensors = (*tensors, weights, styles, rgb_bias, prev, resample_filter)
    y = x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]), device="meta")
    _check(y, (y, *tensors[2:]), False, to_rgb)
    options = (
        act,
        spec.alpha if alpha is None else float(alpha),
        spec.gain if gain is None else float(gain),
        -1.0 if clamp is None else float(clamp),
        -1.0 if to_rgb is None or to_rgb.clamp is None else float(to_rgb.clamp),
        to_rgb is not None and to_rgb.last,
    )
    native = backends.choose("narrow_conv3x3", *tensors, backend=backend) != "reference"
    out, image = (torch.ops.mmif.narrow_conv3x3 if native else narrow_conv3x3_ref)(*tensors, *options)
    return out, image if to_rgb else None


@in_own_dtype
def narrow_conv3x3_ref(
    x: Tensor,
    weight: Tensor,
    demod: Tensor | None,
    noise: Tensor | None,
    strength: Tensor | None,
    bias: Tensor | None,
    skip: Tensor | None,
    next_styles: Tensor | None,
    rgb_weight: Tensor | None,
    rgb_styles: Tensor | None,
    rgb_bias: Tensor | None,
    rgb_prev: Tensor | None,
    f: Tensor | None,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    rgb_clamp: float,
    rgb_only: bool,
) -> tuple[Tensor, Tensor]:
    """Plain PyTorch. Same arguments as ``mmif::narrow_conv3x3``."""
    small = (demod, noise, strength, bias, skip, next_styles, rgb_weight, rgb_styles, rgb_bias, rgb_prev, f)
    y = F.conv2d(x, weight, padding=1)
    return conv_epilogue_ref(y, *small, False, act, alpha, gain, clamp, rgb_clamp, rgb_only)


@torch.library.custom_op("mmif::narrow_conv3x3", mutates_args=())
def _narrow_conv3x3(
    x: Tensor,
    weight: Tensor,
    demod: Tensor | None,
    noise: Tensor | None,
    strength: Tensor | None,
    bias: Tensor | None,
    skip: Tensor | None,
    next_styles: Tensor | None,
    rgb_weight: Tensor | None,
    rgb_styles: Tensor | None,
    rgb_bias: Tensor | None,
    rgb_prev: Tensor | None,
    f: Tensor | None,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    rgb_clamp: float,
    rgb_only: bool,
) -> tuple[Tensor, Tensor]:
    small = (demod, noise, strength, bias, skip, next_styles, rgb_weight, rgb_styles, rgb_bias, rgb_prev, f)
    out, image = narrow_conv3x3_ref(x, weight, *small, act, alpha, gain, clamp, rgb_clamp, rgb_only)
    return (out if rgb_only else out.contiguous(memory_format=torch.channels_last)), image.contiguous()


@_narrow_conv3x3.register_fake
def _fake(
    x,
    weight,
    demod,
    noise,
    strength,
    bias,
    skip,
    next_styles,
    rgb_weight,
    rgb_styles,
    rgb_bias,
    rgb_prev,
    f,
    act,
    alpha,
    gain,
    clamp,
    rgb_clamp,
    rgb_only,
) -> tuple[Tensor, Tensor]:
    n, c, height, width = x.shape[0], weight.shape[0], x.shape[2], x.shape[3]
    small = torch.promote_types(x.dtype, torch.float32)
    image = x.new_empty((n, 3, height, width) if rgb_weight is not None else (0,), dtype=small)
    if rgb_only:
        return x.new_empty(0), image
    out = torch.empty((n, c, height, width), dtype=x.dtype, device=x.device, memory_format=torch.channels_last)
    return out, image
