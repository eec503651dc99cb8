"""All that follows a convolution of StyleGAN2's synthesis network, in one pass over its output.

With y the convolution's output (behind an up-convolution: filtered first), a what the plain layers call the layer's
output, and s the styles of the next layer, by which the next modulated convolution would multiply its input::

    v   = y * demod + noise * noise_strength + bias
    a   = clamp(gain * act(v)) + skip
    out = a * s
    rgb = clamp(sum_c a * rgb.weight * rgb.styles + rgb.bias) + upsampled rgb.prev

Gradients: none (inference); training uses the ops one by one. Layout: channels_last, whatever comes in.
"""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from mmif.ops import _epilogue, _extension, dispatch
from mmif.ops._common import in_own_dtype, scale_channels, wide_dtype
from mmif.ops._epilogue import Epilogue, ToRGB
from mmif.ops.bias_act import bias_act_ref
from mmif.ops.upfirdn2d import upfirdn2d_ref

UP_PADDING = (2, 1, 2, 1)  # of an upsampling by two with four taps
BLUR_PADDING = (1, 1, 1, 1)  # from the 2H + 1 rows of a transposed 3x3 convolution to 2H


def conv_epilogue(
    y: Tensor,
    *,
    demod: Tensor | None = None,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    bias: Tensor | None = None,
    skip: Tensor | None = None,
    next_styles: Tensor | None = None,
    to_rgb: ToRGB | None = None,
    resample_filter: Tensor | None = None,
    blur: bool = False,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Run the epilogue of one layer; whatever is None is left out.

    Small tensors are float32, or float64 beside a float64 ``y``.

    Args:
        y: ``[N, C, H, W]``; with ``blur`` ``[N, C, H + 1, W + 1]``.
        demod: ``[N, C]``.
        noise: ``[N, 1, H, W]`` or ``[1, 1, H, W]``; needs ``noise_strength``.
        noise_strength: ``[]``.
        bias: ``[C]``.
        skip: ``[N, C, H, W]`` in the dtype of ``y``, added behind the activation.
        next_styles: ``[N, C]``.
        to_rgb: see :class:`ToRGB`; not together with ``blur``.
        resample_filter: float32 ``[4]``; needed by ``blur`` and by ``to_rgb.prev``, with a gain of four.
        blur: filter ``y`` first.
        act: ``linear``, ``relu`` or ``lrelu``.
        alpha: as in :func:`mmif.ops.bias_act`, and so are ``gain`` and ``clamp``.
        gain: factor on the activation.
        clamp: limit before ``skip`` is added.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        ``out`` ``[N, C, H, W]`` in the dtype of ``y``, channels_last, and the image ``[N, 3, H, W]`` in the dtype of
        the small tensors, or None without ``to_rgb``. With ``to_rgb.last``, ``out`` is ``[0]``.

    Raises:
        ValueError: shapes, dtypes or options that do not fit together.
    """
    if to_rgb is not None and blur:
        raise ValueError("conv_epilogue: to_rgb and blur must not be asked for together; filter first, then call again")
    epilogue = Epilogue(demod, noise, noise_strength, bias, skip, next_styles, f=resample_filter)
    epilogue = epilogue.with_activation("conv_epilogue", act, alpha, gain, clamp).with_to_rgb(to_rgb)
    epilogue.check("conv_epilogue", y, blur)
    native = dispatch.choose("conv_epilogue", y, *epilogue.tensors, backend=backend) != "reference"
    out, image = (torch.ops.mmif.conv_epilogue if native else conv_epilogue_ref)(y, blur, *epilogue)
    return out, image if to_rgb else None


def fuses_epilogue(*tensors: Tensor) -> bool:
    """True if the fused epilogue is worth planning for: a backend has it, no gradient and no graph is wanted."""
    if torch.compiler.is_compiling() or dispatch.exporting():
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    return dispatch.choose("conv_epilogue", tensors[0]) != "reference"


@in_own_dtype
def conv_epilogue_ref(y: Tensor, blur: bool, *epilogue: Any) -> tuple[Tensor, Tensor]:
    """Plain PyTorch. Same arguments as ``mmif::conv_epilogue``: ``epilogue`` holds the fields of :class:`Epilogue`."""
    e, small = Epilogue(*epilogue), wide_dtype(y)
    if blur:
        assert e.f is not None  # checked by the public function
        y = upfirdn2d_ref(y, e.f, (1, 1, 1, 1), BLUR_PADDING, False, 4.0)
    if e.demod is not None:
        y = scale_channels(y, e.demod)
    if e.noise is not None and e.strength is not None:
        y = y + (e.noise * e.strength).to(y.dtype)
    a = bias_act_ref(y, None if e.bias is None else e.bias.to(y.dtype), 1, e.act, e.alpha, e.gain, e.clamp)
    a = a if e.skip is None else a + e.skip
    out = a if e.next_styles is None else scale_channels(a, e.next_styles)
    if e.rgb_weight is None or e.rgb_styles is None:
        return out, y.new_empty(0, dtype=small)
    weight = (e.rgb_styles[:, None] * e.rgb_weight).to(a.dtype)  # [N, 3, C]
    image = (weight @ a.flatten(2)).unflatten(2, a.shape[2:]).to(small)
    image = bias_act_ref(image, e.rgb_bias, 1, "linear", 0.0, 1.0, e.rgb_clamp)
    if e.rgb_prev is not None and e.f is not None:
        image = image + upfirdn2d_ref(e.rgb_prev, e.f, (2, 2, 1, 1), UP_PADDING, False, 4.0)
    return (y.new_empty(0) if e.rgb_only else out), image


@torch.library.custom_op(
    "mmif::conv_epilogue",
    mutates_args=(),
    schema=f"(Tensor y, bool blur, {_epilogue.SCHEMA}) -> (Tensor, Tensor)",
)
def _conv_epilogue(y: Tensor, blur: bool, *epilogue: Any) -> tuple[Tensor, Tensor]:
    out, image = conv_epilogue_ref(y, blur, *epilogue)
    # A copy in any case: an op must not return its input.
    out = out if Epilogue(*epilogue).rgb_only else out.clone(memory_format=torch.channels_last)
    return out, image.contiguous()


@_conv_epilogue.register_fake
def _fake(y: Tensor, blur: bool, *epilogue: Any) -> tuple[Tensor, Tensor]:
    taken = int(blur)  # a bool cannot be subtracted from a symbolic size
    shape = (y.shape[0], y.shape[1], y.shape[2] - taken, y.shape[3] - taken)
    return Epilogue(*epilogue).empty_outputs(y, shape)


def _cuda_limits(y: Tensor, *_: Tensor | None) -> str | None:
    if y.ndim == 4 and y.shape[1] * y.element_size() % 16:
        return f"channels must fill vectors of 16 bytes, got {y.shape[1]} of {y.dtype}"
    return None


_extension.announce("conv_epilogue", "cuda", _cuda_limits)
