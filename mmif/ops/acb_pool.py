"""The gating features of the adaptive contextual bottleneck: mean and maximum of a 3x3 convolution over the image.

``z_r = conv3x3([f_r ; g ; g'])`` is wanted only as its mean and its maximum. Its weight is shared over the paths, so
``conv([f_r ; g ; g']) = conv_f(f_r) + conv_g([g ; g'])`` and the second term is computed once.

The gradient with respect to ``z_r`` is one number for the whole image, from the mean, and one more at the pixel of the
maximum. So the backward needs no convolution either: the first part meets nine window sums, the second nine
neighbours, which make a sparse matrix.

Registered ops: ``acb_pool``, ``acb_pool_bwd``. Gradients: first order. Layouts: any.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _triton
from mmif.ops._common import in_own_dtype, wide_dtype
from mmif.ops.acb_paths import channels_last, empty_channels_last


@in_own_dtype
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
    sums = _window_sums(x.movedim(1, -1))
    weight_t = weight.permute(2, 3, 1, 0).to(sums.dtype)  # [3, 3, I, O]
    mean = (torch.einsum("nyxi,yxio->no", sums, weight_t) / (x.shape[2] * x.shape[3])).to(x.dtype)
    return mean if bias is None else mean + bias


def _window_sums(x: Tensor) -> Tensor:
    """What each tap of a zero-padded 3x3 window sees in all: ``[N, H, W, C]`` to ``[N, 3, 3, C]``."""
    acc = wide_dtype(x)  # the sums leave the range of float16
    rows = torch.stack([t.sum(1, dtype=acc) for t in (x[:, :-1], x, x[:, 1:])], dim=1)
    return torch.stack([rows[:, :, :-1].sum(2), rows.sum(2), rows[:, :, 1:].sum(2)], dim=2)


def _spread(taps: Tensor, size: int) -> Tensor:
    """The transpose of the window sums along one axis: ``[N, 3, ...]`` to ``[N, size, ...]``."""
    out = taps.sum(1, keepdim=True).repeat(1, size, *[1] * (taps.ndim - 2))
    out[:, 0] -= taps[:, 2]  # the tap that looks ahead never sees the first pixel,
    out[:, -1] -= taps[:, 0]  # nor the one that looks back the last
    return out


@in_own_dtype
def acb_pool_ref(paths: Tensor, gates: Tensor, weight: Tensor, bias: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Mean and maximum over the image of ``z_r = conv3x3([f_r ; gates], weight) + bias``, and where the maximum lies.

    Args:
        paths: ``f_r``, ``[N, R, C, H, W]``.
        gates: ``[N, G, H, W]``, which all paths have in common.
        weight: ``[O, C + G, 3, 3]``.
        bias: ``[O]``.

    Returns:
        Mean ``[N, R, O]``, maximum ``[N, R, O]``, its flat position ``[N, R, O]`` (int64).
    """
    return _pool(paths, _shared(gates, weight, bias), weight[:, : paths.shape[2]])


def _shared(gates: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """The term of ``z_r`` that does not depend on the path."""
    return F.conv2d(gates, weight[:, weight.shape[1] - gates.shape[1] :], bias, padding=1)


def _pool(paths: Tensor, shared: Tensor, weight: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    z = F.conv2d(paths.flatten(0, 1), weight, padding=1).unflatten(0, paths.shape[:2]) + shared[:, None]
    flat = z.flatten(3)
    peak, where = flat.max(dim=3)
    return flat.mean(3), peak, where


@torch.library.custom_op("mmif::acb_pool", mutates_args=())
def _acb_pool(
    paths: Tensor, gates: Tensor, weight: Tensor, bias: Tensor, backend: str = "reference"
) -> tuple[Tensor, Tensor, Tensor]:
    if backend != "triton":
        return acb_pool_ref(paths, gates, weight, bias)
    return _triton.kernels("acb.pool").pool(paths, _shared(gates, weight, bias), weight[:, : paths.shape[2]], _pool)


@_acb_pool.register_fake
def _acb_pool_fake(paths, gates, weight, bias, backend="reference") -> tuple[Tensor, Tensor, Tensor]:
    shape = (paths.shape[0], paths.shape[1], weight.shape[0])
    return paths.new_empty(shape), paths.new_empty(shape), paths.new_empty(shape, dtype=torch.int64)


@in_own_dtype
def _dense_bwd(
    dmean: Tensor, dpeak: Tensor, where: Tensor, paths: Tensor, gates: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """Gradients of paths, gates and weight by the convolutions that they are in general."""
    n, r, c, h, w = paths.shape
    dz = (dmean / (h * w))[..., None].expand(n, r, -1, h * w)
    dz = dz.scatter_add(3, where[..., None], dpeak[..., None]).unflatten(3, (h, w))
    dpaths, dweight = _conv3x3_bwd(dz.flatten(0, 1), paths.flatten(0, 1), weight[:, :c])
    dgates, dweight_gates = _conv3x3_bwd(dz.sum(1), gates, weight[:, c:])
    return dpaths.unflatten(0, (n, r)), dgates, torch.cat([dweight, dweight_gates], dim=1)


def _conv3x3_bwd(dz: Tensor, x: Tensor, weight: Tensor) -> tuple[Tensor, Tensor]:
    dx, dweight, _ = torch.ops.aten.convolution_backward(
        dz, x, weight, None, [1, 1], [1, 1], [1, 1], False, [0, 0], 1, [True, True, False]
    )
    return dx, dweight


@in_own_dtype
def _sparse_bwd(
    dmean: Tensor, dpeak: Tensor, where: Tensor, paths: Tensor, gates: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor]:
    """The same from the window sums and the neighbours of the maxima alone."""
    n, r, c, h, w = paths.shape
    acc = wide_dtype(paths)
    rows = weight.to(acc).permute(0, 2, 3, 1)
    everywhere, peak = dmean.to(acc) / (h * w), dpeak.to(acc)
    dgates, dweight_gates = _sparse_conv3x3_bwd(everywhere, peak, where, gates.movedim(1, -1).to(acc), rows[..., c:])
    everywhere, peak, where = (t.flatten(0, 1)[:, None] for t in (everywhere, peak, where))
    dpaths, dweight = _sparse_conv3x3_bwd(
        everywhere, peak, where, paths.flatten(0, 1).movedim(1, -1).to(acc), rows[..., :c]
    )
    dweight = torch.cat([dweight, dweight_gates], dim=3).movedim(3, 1)
    return dpaths.movedim(-1, 1).unflatten(0, (n, r)), dgates.movedim(-1, 1), dweight


def _sparse_conv3x3_bwd(
    everywhere: Tensor, peak: Tensor, where: Tensor, x: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor]:
    """Gradients of ``x`` and ``weight`` for gradients of ``conv3x3(x, weight)`` that are almost constant.

    Args:
        everywhere: gradient at all pixels, ``[M, J, O]``; J convolutions share an image.
        peak: gradient on top of it at one pixel, ``[M, J, O]``.
        where: that pixel's flat position, ``[M, J, O]``.
        x: ``[M, H, W, C]``.
        weight: ``[O, 3, 3, C]``.
    """
    m, h, w, c = x.shape
    o = weight.shape[0]
    weight = weight.contiguous().view(o * 9, c)
    everywhere = everywhere.sum(1)
    taps = (everywhere @ weight.view(o, 9 * c)).view(m, 3, 3, c)
    dx = _spread(_spread(taps.transpose(1, 2), w).transpose(1, 2), h).view(m * h * w, c)
    dweight = (everywhere.t() @ _window_sums(x).view(m, 9 * c)).view(o * 9, c)
    # Row: a pixel of x; column: an output channel and a tap; entry: how that pixel's share in the maximum counts.
    jacobian = _neighbours(peak, where, h, w)
    dx.addmm_(jacobian, weight)
    dweight.addmm_(jacobian.t(), x.reshape(m * h * w, c))
    return dx.view(m, h, w, c), dweight.view(o, 3, 3, c)


def _neighbours(peak: Tensor, where: Tensor, h: int, w: int) -> Tensor:
    """The sparse matrix ``[M H W, O 9]`` with ``peak`` at the neighbours of ``where``, 0 for those off the image."""
    m, j, o = where.shape
    step = torch.arange(-1, 2, device=where.device)
    y = (where // w)[..., None, None] + step[:, None]
    x = (where % w)[..., None, None] + step
    inside = (y >= 0) & (y < h) & (x >= 0) & (x < w)
    image = torch.arange(m, device=where.device).view(m, 1, 1, 1, 1)
    pixel = (image * h + y.clamp(0, h - 1)) * w + x.clamp(0, w - 1)
    tap = torch.arange(o * 9, device=where.device).view(o, 3, 3).expand(m, j, o, 3, 3)
    entries = peak[..., None, None] * inside
    return torch.sparse_coo_tensor(
        torch.stack([pixel.flatten(), tap.flatten()]), entries.flatten(), (m * h * w, o * 9), check_invariants=False
    )


@torch.library.custom_op("mmif::acb_pool_bwd", mutates_args=())
def _acb_pool_bwd(
    dmean: Tensor, dpeak: Tensor, where: Tensor, paths: Tensor, gates: Tensor, weight: Tensor
) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    # On a CPU the sparse form takes a fifth of the time, or less. On a GPU it would be some forty small launches, and
    # the dense one is four convolutions on tensor cores.
    backward = _sparse_bwd if paths.device.type == "cpu" else _dense_bwd
    gradients = backward(dmean, dpeak, where, paths, gates, weight)
    dpaths, dgates, dweight = (channels_last(t.to(paths.dtype)) for t in gradients)
    return dpaths, dgates, dweight, (dmean + dpeak).sum((0, 1))


@_acb_pool_bwd.register_fake
def _acb_pool_bwd_fake(dmean, dpeak, where, paths, gates, weight) -> tuple[Tensor, Tensor, Tensor, Tensor]:
    dpaths, dgates, dweight = (empty_channels_last(t, t.shape) for t in (paths, gates, weight))
    return dpaths, dgates, dweight, weight.new_empty(weight.shape[:1])


def _acb_pool_setup(ctx, inputs, output) -> None:
    paths, gates, weight, *_ = inputs
    ctx.save_for_backward(output[2], paths, gates, weight)


def _acb_pool_backward(ctx, dmean: Tensor, dpeak: Tensor, _dwhere: Tensor):
    return *torch.ops.mmif.acb_pool_bwd(dmean, dpeak, *ctx.saved_tensors), None


_acb_pool.register_autograd(_acb_pool_backward, setup_context=_acb_pool_setup)
