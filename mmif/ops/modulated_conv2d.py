"""StyleGAN2's modulated convolution with one weight shared by the batch.

Per-sample weights are never formed: with styles ``s`` and weight ``W``, modulating the weight by ``s`` and
demodulating it is the same as ``d * conv(x * s, W)`` with ``d = rsqrt(s^2 @ (sum_kk W^2)^T + eps)``. The sum and the
reciprocal root are taken in float32 (float64 for float64 inputs): in float16 they overflow.

Gradients: any order; the backward pass is written with operators that are differentiable themselves and keeps only the
inputs and, for the demodulation, the output. Layouts: any; channels_last is kept.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _extension, dispatch
from mmif.ops._common import empty_like_format, format_of, in_own_dtype, largest, scale_channels, to_autocast
from mmif.ops.conv_epilogue import BLUR_PADDING, conv_epilogue
from mmif.ops.demodulate import EPS
from mmif.ops.upfirdn2d import upfirdn2d_ref


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    *,
    up: int = 1,
    demodulate: bool = True,
    resample_filter: Tensor | None = None,
    backend: str | None = None,
) -> Tensor:
    """Convolve every sample with ``weight`` scaled by that sample's ``styles``, optionally upsampling by two.

    1. Scale the channels of ``x`` by ``styles``.
    2. Convolve with the shared ``weight`` ("same" padding); for ``up=2`` transposed with stride two, the weight taken
       as stored in StyleGAN2 checkpoints, then filter with ``resample_filter``.
    3. Scale the output channels so that, for unit variance in, the variance out is one (``demodulate``).

    Args:
        x: ``[N, I, H, W]``.
        weight: ``[O, I, k, k]``, k odd, dtype of ``x``.
        styles: ``[N, I]``, floating point; float32 is best at any dtype of ``x``.
        up: 1 or 2.
        demodulate: step 3; off in toRGB layers.
        resample_filter: float32 ``[taps]`` or ``[taps, taps]`` that adds up to one; needed for ``up=2``.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        ``[N, O, H*up, W*up]`` in the dtype of ``x``, or of autocast where it is on.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    x, weight = to_autocast(x, weight)
    _check(x, weight, styles, up, resample_filter)
    f = resample_filter if up == 2 else None
    if dispatch.choose("modulated_conv2d", x, weight, styles, backend=backend) == "reference":
        return modulated_conv2d_ref(x, weight, styles, f, up, demodulate)
    return torch.ops.mmif.modulated_conv2d(x, weight, styles, f, up, demodulate)


@in_own_dtype
def modulated_conv2d_ref(
    x: Tensor, weight: Tensor, styles: Tensor, f: Tensor | None, up: int, demodulate: bool
) -> Tensor:
    """Plain PyTorch, differentiable to any order. Same arguments as ``mmif::modulated_conv2d``."""
    styles = _prepare_styles(styles, x.dtype, demodulate)
    y = _shared_conv(scale_channels(x, styles), weight, f, up)
    return scale_channels(y, demodulation_ref(weight, styles)) if demodulate else y


@in_own_dtype
def demodulation_ref(weight: Tensor, styles: Tensor) -> Tensor:
    """Return ``rsqrt(styles^2 @ (sum_kk weight^2)^T + eps)``: ``[O, I, k, k]`` and ``[N, I]`` give ``[N, O]``."""
    w2 = weight.to(styles.dtype).square().sum(dim=(2, 3))
    return torch.rsqrt(styles.square() @ w2.t() + EPS)


def _prepare_styles(styles: Tensor, dtype: torch.dtype, demodulate: bool) -> Tensor:
    if dtype not in (torch.float16, torch.bfloat16):
        return styles.to(dtype)
    styles = styles.float()
    if not demodulate:
        return styles
    # A constant per sample cancels in the demodulation: keep x * styles inside the range of float16.
    return styles / largest(styles, 1)


def _shared_conv(x: Tensor, weight: Tensor, f: Tensor | None, up: int) -> Tensor:
    if up == 1:
        return F.conv2d(x, weight, padding=weight.shape[2] // 2)
    assert f is not None  # checked by the public function
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    return upfirdn2d_ref(y, f, (1, 1, 1, 1), _up_padding(f, weight), False, 4.0)


def _up_padding(f: Tensor, weight: Tensor) -> tuple[int, int, int, int]:
    """Padding that turns the 2H + k - 2 rows of the transposed convolution into 2H, centred."""
    taps, k = f.shape[0], weight.shape[2]
    before, after = k // 2 + (taps + 1) // 2 - (k - 1), k // 2 + (taps - 2) // 2 - (k - 2)
    return before, after, before, after


def _check(x: Tensor, weight: Tensor, styles: Tensor, up: int, f: Tensor | None) -> None:
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[2] != weight.shape[3] or weight.shape[2] % 2 == 0:
        raise ValueError(
            f"modulated_conv2d: x must be [N, I, H, W] and weight [O, I, k, k] with odd k, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if 0 in (*x.shape[1:], weight.shape[0]):
        raise ValueError(
            f"modulated_conv2d: x and weight must have a channel and a pixel or more, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if weight.shape[1] != x.shape[1] or styles.shape != (x.shape[0], x.shape[1]):
        raise ValueError(
            f"modulated_conv2d: weight must have {x.shape[1]} input channels and styles the shape "
            f"{(x.shape[0], x.shape[1])}, got {tuple(weight.shape)} and {tuple(styles.shape)}"
        )
    if weight.dtype != x.dtype or not x.is_floating_point() or not styles.is_floating_point():
        raise ValueError(
            f"modulated_conv2d: x and weight must share a floating dtype and styles be floating, "
            f"got {x.dtype}, {weight.dtype}, {styles.dtype}"
        )
    if up not in (1, 2) or (up == 2 and f is None):
        raise ValueError(f"modulated_conv2d: up must be 1, or 2 with a resample_filter, got up={up}")
    if f is not None and (f.dtype != torch.float32 or f.ndim not in (1, 2) or f.shape[0] != f.shape[-1]):
        raise ValueError(
            f"modulated_conv2d: resample_filter must be float32 [taps] or [taps, taps], got {f.dtype} {tuple(f.shape)}"
        )


@torch.library.custom_op("mmif::modulated_conv2d", mutates_args=())
def _modulated_conv2d(x: Tensor, weight: Tensor, styles: Tensor, f: Tensor | None, up: int, demodulate: bool) -> Tensor:
    y = modulated_conv2d_ref(x, weight, styles, f, up, demodulate)
    return empty_like_format(x, y.shape).copy_(y)


@_modulated_conv2d.register_fake
def _fake(x: Tensor, weight: Tensor, styles: Tensor, f: Tensor | None, up: int, demodulate: bool) -> Tensor:
    return empty_like_format(x, (x.shape[0], weight.shape[0], x.shape[2] * up, x.shape[3] * up))


@_modulated_conv2d.register_kernel("cuda")
@in_own_dtype
def _cuda_body(x: Tensor, weight: Tensor, styles: Tensor, f: Tensor | None, up: int, demodulate: bool) -> Tensor:
    """The same on a device: the library's convolution between two fused scalings, the filter inside the second."""
    memory_format = format_of(x)
    styles = _prepare_styles(styles, x.dtype, demodulate)
    d = demodulation_ref(weight, styles) if demodulate else None
    x = _fused_scale(x, styles)
    if up == 1:
        y = F.conv2d(x, weight, padding=weight.shape[2] // 2)
        return (y if d is None else _fused_scale(y, d)).contiguous(memory_format=memory_format)
    assert f is not None  # checked by the public function
    y = F.conv_transpose2d(x, weight.transpose(0, 1), stride=2)
    pads = _up_padding(f, weight)
    if f.shape == (4,) and pads == BLUR_PADDING and _takes_vectors(y):
        return conv_epilogue(y, demod=d, resample_filter=f, blur=True)[0]
    y = torch.ops.mmif.upfirdn2d(y, f, (1, 1, 1, 1), pads, False, 4.0)
    return (y if d is None else _fused_scale(y, d)).contiguous(memory_format=memory_format)


def _fused_scale(x: Tensor, factor: Tensor) -> Tensor:
    return conv_epilogue(x, next_styles=factor)[0] if _takes_vectors(x) else scale_channels(x, factor)


def _takes_vectors(x: Tensor) -> bool:
    """True if the fused epilogue would neither copy ``x`` nor turn it down."""
    return format_of(x) == torch.channels_last and x.shape[1] * x.element_size() % 16 == 0


def _setup_context(ctx, inputs, output) -> None:
    x, weight, styles, f, ctx.up, ctx.demodulate = inputs
    ctx.save_for_backward(x, weight, styles, f, output if ctx.demodulate else None)


def _backward(ctx, dy: Tensor):
    x, weight, styles, f, y = ctx.saved_tensors
    s = _prepare_styles(styles, x.dtype, ctx.demodulate)
    d = demodulation_ref(weight, s) if ctx.demodulate else None
    dz = dy if d is None else scale_channels(dy, d)
    xs = scale_channels(x, s)
    dxs, dweight = _conv_backward(dz, xs, weight, f, ctx.up)
    dx = scale_channels(dxs, s)
    ds = (dxs * x).sum((2, 3), dtype=s.dtype)
    if d is not None:
        # d = (s^2 W2^T + eps)^-1/2; sum_hw dy z = sum_hw dy y / d, so that the convolution is not repeated.
        dq = -0.5 * d.square() * (dy.to(d.dtype) * y.to(d.dtype)).sum((2, 3))
        w = weight.to(s.dtype)
        ds = ds + 2 * s * (dq @ w.square().sum((2, 3)))
        dweight = dweight + (2 * w * (dq.t() @ s.square())[:, :, None, None]).to(weight.dtype)
    dstyles = _styles_backward(ds, styles, x.dtype, ctx.demodulate)
    return dx, dweight, dstyles, None, None, None


def _conv_backward(dz: Tensor, xs: Tensor, weight: Tensor, f: Tensor | None, up: int) -> tuple[Tensor, Tensor]:
    """Gradients of ``_shared_conv`` with respect to its input and its weight."""
    if up == 1:
        pad = weight.shape[2] // 2
        dxs, dweight, _ = torch.ops.aten.convolution_backward(
            dz, xs, weight, None, [1, 1], [pad, pad], [1, 1], False, [0, 0], 1, [True, True, False]
        )
        return dxs, dweight
    assert f is not None
    before, after, _, _ = _up_padding(f, weight)
    pads = (f.shape[0] - 1 - before, f.shape[0] - 1 - after) * 2
    dconv = torch.ops.mmif.upfirdn2d(dz, f, (1, 1, 1, 1), pads, True, 4.0)
    dxs, dweight, _ = torch.ops.aten.convolution_backward(
        dconv, xs, weight.transpose(0, 1), None, [2, 2], [0, 0], [1, 1], True, [0, 0], 1, [True, True, False]
    )
    return dxs, dweight.transpose(0, 1)


def _styles_backward(ds: Tensor, styles: Tensor, dtype: torch.dtype, demodulate: bool) -> Tensor:
    """Chain through ``_prepare_styles``; its normalisation cancels, so only its scale remains."""
    if demodulate and dtype in (torch.float16, torch.bfloat16):
        ds = ds / largest(styles.float(), 1)
    return ds.to(styles.dtype)


_modulated_conv2d.register_autograd(_backward, setup_context=_setup_context)
# csrc has no file of this name: the body above is made of the library's convolution and of ops that have one.
_extension.announce("modulated_conv2d", "cuda")
