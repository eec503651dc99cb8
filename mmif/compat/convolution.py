"""NVlabs' ``conv2d_resample`` and ``modulated_conv2d``."""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif import ops
from mmif.compat.resampling import (
    Numbers,
    Sides,
    add,
    down_padding,
    filter_or_identity,
    filter_size,
    sides,
    up_padding,
    upfirdn2d,
)
from mmif.ops._common import largest, scale_channels, wide_dtype
from mmif.ops.modulated_conv2d import demodulation_ref


def conv2d_resample(
    x: Tensor,
    w: Tensor,
    f: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Numbers = 0,
    groups: int = 1,
    flip_weight: bool = True,
    flip_filter: bool = False,
) -> Tensor:
    """Upsample, convolve, downsample; the padding is made once, before all of it.

    Args:
        x: ``[N, I, H, W]``.
        w: ``[O, I // groups, kh, kw]``, dtype of ``x``.
        f: filter of the upsampling and of the downsampling; None: identity.
        up: factor before the convolution.
        down: factor after it.
        padding: pixels of the upsampled image, on top of those that keep the size with ``f``; negative crops.
        groups: as in :func:`torch.nn.functional.conv2d`.
        flip_weight: correlate, as :func:`torch.nn.functional.conv2d` does; False: convolve.
        flip_filter: correlate with ``f``; False: convolve.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    pads = sides("conv2d_resample", padding)
    _check_resample(x, w, up, down, groups)
    pads = add(pads, up_padding(f, up, up)) if up > 1 else pads
    pads = add(pads, down_padding(f, down, down)) if down > 1 else pads
    _check_size(x, w, f, up, down, pads)
    w = w if flip_weight else w.flip(2, 3)
    if up > 1:
        y = _upsample_convolve(x, w, f, up, pads, groups, flip_filter)
        return upfirdn2d(y, f, down=down, flip_filter=flip_filter) if down > 1 else y
    if down > 1:
        return _convolve_downsample(x, w, f, down, pads, groups, flip_filter)
    if pads.left == pads.right >= 0 and pads.top == pads.bottom >= 0:
        return F.conv2d(x, w, padding=(pads.top, pads.left), groups=groups)
    return F.conv2d(upfirdn2d(x, None, padding=pads), w, groups=groups)


def modulated_conv2d(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor | None = None,
    up: int = 1,
    down: int = 1,
    padding: Numbers = 0,
    resample_filter: Tensor | None = None,
    demodulate: bool = True,
    flip_weight: bool = True,
    fused_modconv: bool = True,
) -> Tensor:
    """Convolve every sample with ``weight`` scaled by its ``styles``, demodulate, add ``noise``.

    Args:
        x: ``[N, I, H, W]``.
        weight: ``[O, I, kh, kw]``, floating point; float32 is best at any dtype of ``x``.
        styles: ``[N, I]``, floating point; float32 is best at any dtype of ``x``.
        noise: added to the output; any shape that broadcasts to it.
        up: as in :func:`conv2d_resample`.
        down: likewise.
        padding: likewise.
        resample_filter: likewise its ``f``.
        demodulate: divide by the norm of every sample's weights.
        flip_weight: as in :func:`conv2d_resample`.
        fused_modconv: without effect: the batch always shares one weight, and weights per sample are never formed.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    _check_modulated(x, weight, styles)
    if demodulate and x.dtype == torch.float16:
        weight, styles = _into_range(weight, styles)
    weight = weight.to(x.dtype)
    if _op_can_serve(weight, up, down, sides("modulated_conv2d", padding), resample_filter):
        # Checkpoints hold the weights of upsampling layers ready for the transposed convolution; so does the op.
        w = weight if flip_weight == (up == 1) else weight.flip(2, 3)
        f = filter_or_identity(resample_filter, x) if up == 2 else None
        y = ops.modulated_conv2d(x, w, styles, up=up, demodulate=demodulate, resample_filter=f)
    else:
        styles = styles.to(wide_dtype(x))
        y = conv2d_resample(
            scale_channels(x, styles), weight, resample_filter, up, down, padding, flip_weight=flip_weight
        )
        y = scale_channels(y, demodulation_ref(weight, styles)) if demodulate else y
    return y if noise is None else y + noise.to(y.dtype)


def _upsample_convolve(
    x: Tensor, w: Tensor, f: Tensor | None, up: int, pads: Sides, groups: int, flip_filter: bool
) -> Tensor:
    """Convolve first: filter and convolution commute, and the transposed convolution skips the inserted zeros."""
    kh, kw = w.shape[2:]
    if kh == kw == 1:
        return upfirdn2d(F.conv2d(x, w, groups=groups), f, up, padding=pads, flip_filter=flip_filter, gain=up**2)
    transposed = w.unflatten(0, (groups, -1)).transpose(1, 2).flatten(0, 1).flip(2, 3)  # [I, O // groups, kh, kw]
    y = F.conv_transpose2d(x, transposed, stride=up, groups=groups)
    pads = add(pads, Sides(1 - kw, up - kw, 1 - kh, up - kh))  # the rows that the transposed convolution has added
    return upfirdn2d(y, f, padding=pads, flip_filter=flip_filter, gain=up**2)


def _convolve_downsample(
    x: Tensor, w: Tensor, f: Tensor | None, down: int, pads: Sides, groups: int, flip_filter: bool
) -> Tensor:
    """Filter first: only the pixels that stay are convolved."""
    if w.shape[2:] == (1, 1):
        return F.conv2d(upfirdn2d(x, f, down=down, padding=pads, flip_filter=flip_filter), w, groups=groups)
    return F.conv2d(upfirdn2d(x, f, padding=pads, flip_filter=flip_filter), w, stride=down, groups=groups)


def _op_can_serve(weight: Tensor, up: int, down: int, pads: Sides, f: Tensor | None) -> bool:
    """Whether the layer is one of the generator's: odd square kernel, same padding, at most upsampling by two."""
    kh, kw = weight.shape[2:]
    fw, fh = filter_size(f)
    return down == 1 and up in (1, 2) and kh == kw == 2 * pads.left + 1 and len(set(pads)) == 1 and fw == fh


def _into_range(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Scale what the demodulation scales back, so that no sum of the convolution can leave the range of float16."""
    weight, styles = weight.float(), styles.float()
    weight = weight / (weight[0].numel() ** 0.5 * weight.abs().amax((1, 2, 3), keepdim=True).clamp(min=1e-12))
    return weight, styles / largest(styles, 1)


def _check_resample(x: Tensor, w: Tensor, up: int, down: int, groups: int) -> None:
    if min(up, down, groups) < 1:
        raise ValueError(f"conv2d_resample: up, down and groups must be >= 1, got {up}, {down} and {groups}")
    if x.ndim != 4 or w.ndim != 4 or x.dtype != w.dtype or not x.is_floating_point():
        raise ValueError(
            f"conv2d_resample: x and w must be 4-D and share a floating dtype, "
            f"got {x.dtype} {tuple(x.shape)} and {w.dtype} {tuple(w.shape)}"
        )
    if x.shape[1] != w.shape[1] * groups or w.shape[0] % groups:
        raise ValueError(
            f"conv2d_resample: w must be [O, I // groups, kh, kw] with O a multiple of groups={groups}, "
            f"got {tuple(w.shape)} for x {tuple(x.shape)}"
        )


def _check_size(x: Tensor, w: Tensor, f: Tensor | None, up: int, down: int, pads: Sides) -> None:
    filters = (up > 1) + (down > 1)
    fw, fh = filter_size(f) if filters else (1, 1)
    height = x.shape[2] * up + pads.top + pads.bottom - filters * (fh - 1) - w.shape[2]
    width = x.shape[3] * up + pads.left + pads.right - filters * (fw - 1) - w.shape[3]
    if min(height, width) < 0:
        raise ValueError(
            f"conv2d_resample: the padded image must be at least as large as filters and kernel {tuple(w.shape[2:])}, "
            f"got {tuple(x.shape[2:])} with up={up} and {tuple(pads)} pixels of padding"
        )


def _check_modulated(x: Tensor, weight: Tensor, styles: Tensor) -> None:
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1] != x.shape[1] or styles.shape != x.shape[:2]:
        raise ValueError(
            f"modulated_conv2d: weight must be [O, I, kh, kw] and styles [N, I] for x [N, I, H, W], "
            f"got {tuple(weight.shape)}, {tuple(styles.shape)} and {tuple(x.shape)}"
        )
    if not (x.is_floating_point() and weight.is_floating_point() and styles.is_floating_point()):
        raise ValueError(
            f"modulated_conv2d: x, weight and styles must be floating, got {x.dtype}, {weight.dtype}, {styles.dtype}"
        )
