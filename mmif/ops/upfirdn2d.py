"""Pad, upsample, filter and downsample a batch of images: StyleGAN2's resampling primitive.

Gradients: any order (the adjoint of ``upfirdn2d`` is ``upfirdn2d`` with the factors exchanged and the filter
flipped). Layouts: any; the output is contiguous in the input's memory format.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _extension, dispatch
from mmif.ops._common import empty_like_format, in_own_dtype


def upfirdn2d(
    x: Tensor,
    f: Tensor,
    *,
    up: int | Sequence[int] = 1,
    down: int | Sequence[int] = 1,
    padding: int | Sequence[int] = 0,
    flip_filter: bool = False,
    gain: float = 1.0,
    backend: str | None = None,
) -> Tensor:
    """Upsample, filter and downsample every channel of ``x``, as :func:`scipy.signal.upfirdn` does along both axes.

    1. Insert ``up - 1`` zeros after every pixel.
    2. Pad with zeros; a negative padding crops.
    3. Convolve with ``f`` (correlate if ``flip_filter``), keep the valid part, multiply by ``gain``.
    4. Keep every ``down``-th pixel, starting with the first.

    Args:
        x: ``[N, C, H, W]``, floating point.
        f: FIR filter, ``[fh, fw]``, or ``[taps]`` for a separable one; float32; not differentiable.
        up: factor, or ``(x, y)``.
        down: factor, or ``(x, y)``.
        padding: pixels of the upsampled image: one number, ``(x, y)`` or ``(left, right, top, bottom)``.
        flip_filter: correlate instead of convolve.
        gain: factor on the output.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        ``[N, C, (H*up + top + bottom - fh) // down + 1, ...]`` in the dtype and memory format of ``x``.

    Raises:
        ValueError: wrong rank, factor < 1, or a filter larger than the padded image.
    """
    factors = (*_pair("up", up), *_pair("down", down))
    pads = _padding(padding)
    _check(x, f, factors, pads)
    if dispatch.choose("upfirdn2d", x, f, backend=backend) == "reference":
        return upfirdn2d_ref(x, f, factors, pads, flip_filter, gain)
    return torch.ops.mmif.upfirdn2d(x, f, factors, pads, flip_filter, gain)


def setup_filter(taps: Sequence[float] | Sequence[Sequence[float]]) -> Tensor:
    """Return ``taps`` as a float32 filter whose elements add up to one: 1-D stays separable."""
    f = torch.as_tensor(taps, dtype=torch.float32)
    if f.ndim not in (1, 2) or f.numel() == 0:
        raise ValueError(f"setup_filter: taps must be a non-empty list or matrix, got shape {tuple(f.shape)}")
    return f / f.sum()


@in_own_dtype
def upfirdn2d_ref(
    x: Tensor, f: Tensor, factors: Sequence[int], pads: Sequence[int], flip_filter: bool, gain: float
) -> Tensor:
    """Plain PyTorch: depthwise (transposed) convolutions. Same arguments as ``mmif::upfirdn2d``."""
    upx, upy, downx, downy = factors
    f = f.to(torch.promote_types(f.dtype, x.dtype))  # the outer product at float32 or better
    f2 = ((torch.outer(f, f) if f.ndim == 1 else f) * gain).to(x.dtype)
    fh, fw = f2.shape
    channels = x.shape[1]
    height, width = _full_size(x, f2, factors, pads)
    if channels == 0:  # no convolution of nothing
        height, width = _out_size(x, f2, factors, pads)
        return F.pad(x, (0, width - x.shape[3], 0, height - x.shape[2]))
    if upx == 1 and upy == 1:
        kernel = (f2 if flip_filter else f2.flip(0, 1)).expand(channels, 1, fh, fw)
        y = F.conv2d(_pad(x, pads), kernel, stride=(downy, downx), groups=channels)
        return y
    # A transposed convolution is the full convolution of the zero-inserted image; the padding turns into a crop.
    kernel = (f2.flip(0, 1) if flip_filter else f2).expand(channels, 1, fh, fw)
    full = F.conv_transpose2d(x, kernel, stride=(upy, upx), groups=channels)
    left, top = pads[0] - (fw - 1), pads[2] - (fh - 1)
    right, bottom = width - full.shape[3] - left, height - full.shape[2] - top
    y = _pad(full, (left, right, top, bottom))
    return y if downx == downy == 1 else y[:, :, ::downy, ::downx]


def _pad(x: Tensor, pads: Sequence[int]) -> Tensor:
    """Pad, then crop: in this order what is cropped on one side may be more than the image itself."""
    if any(p > 0 for p in pads):
        x = F.pad(x, [max(p, 0) for p in pads])
    if any(p < 0 for p in pads):
        x = F.pad(x, [min(p, 0) for p in pads])
    return x


def _filter_size(f: Tensor) -> tuple[int, int]:
    return (f.shape[0], f.shape[0]) if f.ndim == 1 else (f.shape[0], f.shape[1])


def _full_size(x: Tensor, f: Tensor, factors: Sequence[int], pads: Sequence[int]) -> tuple[int, int]:
    """Height and width after step 3, before decimation."""
    fh, fw = _filter_size(f)
    height = x.shape[2] * factors[1] + pads[2] + pads[3] - fh + 1
    width = x.shape[3] * factors[0] + pads[0] + pads[1] - fw + 1
    return height, width


def _out_size(x: Tensor, f: Tensor, factors: Sequence[int], pads: Sequence[int]) -> tuple[int, int]:
    height, width = _full_size(x, f, factors, pads)
    return (height - 1) // factors[3] + 1, (width - 1) // factors[2] + 1


def _pair(name: str, value: int | Sequence[int]) -> tuple[int, int]:
    pair = (value, value) if isinstance(value, int) else tuple(value)
    if len(pair) != 2 or min(pair) < 1:
        raise ValueError(f"upfirdn2d: {name} must be one or two integers >= 1, got {value}")
    return pair


def _padding(padding: int | Sequence[int]) -> tuple[int, int, int, int]:
    pads = (padding,) * 4 if isinstance(padding, int) else tuple(padding)
    if len(pads) == 2:
        pads = (pads[0], pads[0], pads[1], pads[1])
    if len(pads) != 4:
        raise ValueError(f"upfirdn2d: padding must be 1, 2 or 4 integers, got {padding}")
    return pads


def _check(x: Tensor, f: Tensor, factors: Sequence[int], pads: Sequence[int]) -> None:
    if x.ndim != 4 or not x.is_floating_point() or 0 in x.shape[2:]:
        raise ValueError(
            f"upfirdn2d: x must be floating point [N, C, H, W] with a pixel or more, got {x.dtype} {tuple(x.shape)}"
        )
    if f.ndim not in (1, 2) or f.dtype != torch.float32 or f.numel() == 0:
        raise ValueError(f"upfirdn2d: f must be float32 [taps] or [fh, fw], got {f.dtype} {tuple(f.shape)}")
    if f.requires_grad:
        raise ValueError("upfirdn2d: f must not require a gradient; filters are constants")
    if min(_full_size(x, f, factors, pads)) < 1:
        raise ValueError(
            f"upfirdn2d: the padded image must be at least as large as the filter {_filter_size(f)}, "
            f"got {tuple(x.shape[2:])} with up={factors[:2]} and padding={tuple(pads)}"
        )


@torch.library.custom_op("mmif::upfirdn2d", mutates_args=())
def _upfirdn2d(
    x: Tensor, f: Tensor, factors: Sequence[int], pads: Sequence[int], flip_filter: bool, gain: float
) -> Tensor:
    y = upfirdn2d_ref(x, f, factors, pads, flip_filter, gain)
    return empty_like_format(x, y.shape).copy_(y)


@_upfirdn2d.register_fake
def _fake(x: Tensor, f: Tensor, factors: Sequence[int], pads: Sequence[int], flip_filter: bool, gain: float) -> Tensor:
    return empty_like_format(x, (x.shape[0], x.shape[1], *_out_size(x, f, factors, pads)))


def _setup_context(ctx, inputs, output) -> None:
    x, f, ctx.factors, ctx.pads, ctx.flip_filter, ctx.gain = inputs
    ctx.in_size = x.shape[2:]
    ctx.save_for_backward(f)


def _backward(ctx, dy: Tensor):
    (f,) = ctx.saved_tensors
    upx, upy, downx, downy = ctx.factors
    fh, fw = _filter_size(f)
    height, width = ctx.in_size
    left, _, top, _ = ctx.pads
    pads = (
        fw - left - 1,
        width * upx - dy.shape[3] * downx + left - upx + 1,
        fh - top - 1,
        height * upy - dy.shape[2] * downy + top - upy + 1,
    )
    dx = torch.ops.mmif.upfirdn2d(dy, f, (downx, downy, upx, upy), pads, not ctx.flip_filter, ctx.gain)
    return dx, None, None, None, None, None


_upfirdn2d.register_autograd(_backward, setup_context=_setup_context)
_extension.announce("upfirdn2d", "cpu")
_extension.announce("upfirdn2d", "cuda")
