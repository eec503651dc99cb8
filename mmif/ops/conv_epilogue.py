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

from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmif.ops import dispatch
from mmif.ops._common import in_own_dtype
from mmif.ops.bias_act import ACTIVATIONS, bias_act_ref
from mmif.ops.upfirdn2d import upfirdn2d_ref

UP_PADDING = (2, 1, 2, 1)  # of an upsampling by two with four taps
BLUR_PADDING = (1, 1, 1, 1)  # from the 2H + 1 rows of a transposed 3x3 convolution to 2H

# What every op with this epilogue has in its schema, behind what it reads.
TENSORS = (
    "Tensor? demod, Tensor? noise, Tensor? strength, Tensor? bias, Tensor? skip, Tensor? next_styles, "
    "Tensor? rgb_weight, Tensor? rgb_styles, Tensor? rgb_bias, Tensor? rgb_prev, Tensor? f"
)
OPTIONS = "str act, float alpha, float gain, float clamp, float rgb_clamp, bool rgb_only"


class ToRGB(NamedTuple):
    """The toRGB layer that reads the epilogue's result, and the image of the resolution below."""

    weight: Tensor  # [3, C]
    styles: Tensor  # [N, C], with the weight's own scale
    bias: Tensor  # [3]
    prev: Tensor | None  # [N, 3, H / 2, W / 2]
    clamp: float | None = None
    last: bool = False  # nothing reads the epilogue's own output: it is not written


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
    small = (demod, noise, noise_strength, bias, skip, next_styles, *rgb_tensors(to_rgb), resample_filter)
    options = checked_options("conv_epilogue", act, alpha, gain, clamp, to_rgb)
    check_epilogue("conv_epilogue", y, small, blur)
    native = dispatch.choose("conv_epilogue", y, *small, backend=backend) != "reference"
    arguments: list[Any] = [y, *small, blur, *options]
    out, image = (torch.ops.mmif.conv_epilogue if native else conv_epilogue_ref)(*arguments)
    return out, image if to_rgb else None


def fuses_epilogue(*tensors: Tensor) -> bool:
    """True if the fused epilogue is worth planning for: a backend has it, no gradient and no graph is wanted."""
    if torch.compiler.is_compiling() or dispatch.exporting():
        return False
    if torch.is_grad_enabled() and any(t.requires_grad for t in tensors):
        return False
    return dispatch.choose("conv_epilogue", tensors[0]) != "reference"


@in_own_dtype
def conv_epilogue_ref(
    y: Tensor,
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
    blur: bool,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    rgb_clamp: float,
    rgb_only: bool,
) -> tuple[Tensor, Tensor]:
    """Plain PyTorch. Same arguments as ``mmif::conv_epilogue``."""
    if blur:
        assert f is not None  # checked by the public function
        y = upfirdn2d_ref(y, f, (1, 1, 1, 1), BLUR_PADDING, False, 4.0)
    if demod is not None:
        y = y * demod.to(y.dtype)[:, :, None, None]
    if noise is not None and strength is not None:
        y = y + (noise * strength).to(y.dtype)
    a = bias_act_ref(y, None if bias is None else bias.to(y.dtype), 1, act, alpha, gain, clamp)
    a = a if skip is None else a + skip
    out = a if next_styles is None else a * next_styles.to(a.dtype)[:, :, None, None]
    if rgb_weight is None or rgb_styles is None:
        return out, y.new_empty(0, dtype=_small(y))
    weight = (rgb_styles[:, None] * rgb_weight).to(a.dtype)  # [N, 3, C]
    image = bias_act_ref(
        (weight @ a.flatten(2)).unflatten(2, a.shape[2:]).to(_small(y)), rgb_bias, 1, "linear", 0.0, 1.0, rgb_clamp
    )
    if rgb_prev is not None and f is not None:
        image = image + upfirdn2d_ref(rgb_prev, f, (2, 2, 1, 1), UP_PADDING, False, 4.0)
    return (y.new_empty(0) if rgb_only else out), image


def _small(y: Tensor) -> torch.dtype:
    """The dtype of the small tensors."""
    return torch.promote_types(y.dtype, torch.float32)


def rgb_tensors(to_rgb: ToRGB | None) -> tuple[Tensor | None, ...]:
    """Weight, styles, bias and the image below, as the schema wants them."""
    return (to_rgb.weight, to_rgb.styles, to_rgb.bias, to_rgb.prev) if to_rgb else (None,) * 4


def checked_options(
    op: str, act: str, alpha: float | None, gain: float | None, clamp: float | None, to_rgb: ToRGB | None
) -> tuple[Any, ...]:
    """The values of ``OPTIONS``; no clamp is -1."""
    spec = ACTIVATIONS.get(act)
    if spec is None or not spec.piecewise_linear:
        raise ValueError(f"{op}: act must be linear, relu or lrelu, got {act!r}")
    return (
        act,
        spec.alpha if alpha is None else float(alpha),
        spec.gain if gain is None else float(gain),
        -1.0 if clamp is None else float(clamp),
        -1.0 if to_rgb is None or to_rgb.clamp is None else float(to_rgb.clamp),
        to_rgb is not None and to_rgb.last,
    )


def check_epilogue(op: str, y: Tensor, small: tuple[Tensor | None, ...], blur: bool) -> None:
    """Raise ValueError unless ``small``, the values of ``TENSORS``, fit ``y``."""
    if y.ndim != 4 or not y.is_floating_point():
        raise ValueError(f"{op}: y must be floating point [N, C, H, W], got {y.dtype} {tuple(y.shape)}")
    n, c, height, width = y.shape[0], y.shape[1], y.shape[2] - blur, y.shape[3] - blur
    if min(height, width) < 1:
        raise ValueError(f"{op}: y must be at least 2x2 to be filtered, got {tuple(y.shape)}")
    noise, strength, prev, f = small[1], small[2], small[9], small[10]
    if (noise is None) != (strength is None):
        raise ValueError(f"{op}: noise and noise_strength must be given together")
    if (blur or prev is not None) and f is None:
        raise ValueError(f"{op}: a resample_filter must be given where something is filtered")
    noise_n = 1 if noise is not None and noise.ndim == 4 and noise.shape[0] == 1 else n
    expected = (
        ("demod", (n, c)),
        ("noise", (noise_n, 1, height, width)),
        ("noise_strength", ()),
        ("bias", (c,)),
        ("skip", (n, c, height, width)),
        ("next_styles", (n, c)),
        ("to_rgb.weight", (3, c)),
        ("to_rgb.styles", (n, c)),
        ("to_rgb.bias", (3,)),
        ("to_rgb.prev", (n, 3, height / 2, width / 2)),
        ("resample_filter", (4,)),
    )
    for (name, shape), t in zip(expected, small, strict=True):
        dtype = y.dtype if name == "skip" else torch.float32 if name == "resample_filter" else _small(y)
        if t is not None and (t.shape != shape or t.dtype != dtype):
            raise ValueError(f"{op}: {name} must be {dtype} {shape}, got {t.dtype} {tuple(t.shape)}")


def empty_outputs(
    y: Tensor, shape: tuple[int, ...], rgb_weight: Tensor | None, rgb_only: bool
) -> tuple[Tensor, Tensor]:
    """Empty ``out`` of ``shape``, channels_last, and image, in the dtypes that belong to ``y``."""
    n, _, height, width = shape
    image = y.new_empty((n, 3, height, width) if rgb_weight is not None else (0,), dtype=_small(y))
    if rgb_only:
        return y.new_empty(0), image
    return torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last), image


@torch.library.custom_op(
    "mmif::conv_epilogue",
    mutates_args=(),
    schema=f"(Tensor y, {TENSORS}, bool blur, {OPTIONS}) -> (Tensor, Tensor)",
)
def _conv_epilogue(y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    out, image = conv_epilogue_ref(y, *rest)
    # A copy in any case: an op must not return its input.
    return (out if rest[-1] else out.clone(memory_format=torch.channels_last)), image.contiguous()


@_conv_epilogue.register_fake
def _fake(y: Tensor, *rest: Any) -> tuple[Tensor, Tensor]:
    blur = int(rest[11])  # a bool cannot be subtracted from a symbolic size
    shape = (y.shape[0], y.shape[1], y.shape[2] - blur, y.shape[3] - blur)
    return empty_outputs(y, shape, rest[6], rest[-1])
