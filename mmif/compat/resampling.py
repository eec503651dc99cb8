"""NVlabs' ``torch_utils.ops.upfirdn2d``: filters and resampling with their paddings."""

from __future__ import annotations

from collections.abc import Sequence
from numbers import Integral
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmif import ops

Numbers = int | Sequence[int]


class Sides(NamedTuple):
    """Padding in pixels; negative crops."""

    left: int
    right: int
    top: int
    bottom: int


_BACKENDS = {"cuda": None, "ref": "reference"}  # None: what mmif.ops.dispatch has in force


def setup_filter(
    f: Any,
    device: torch.device | str = "cpu",
    normalize: bool = True,
    flip_filter: bool = False,
    gain: float = 1,
    separable: bool | None = None,
) -> Tensor:
    """Return a float32 filter for the functions below.

    Args:
        f: number, list or matrix of taps; None: identity.
        device: where the filter goes.
        normalize: divide by the sum of the taps.
        flip_filter: reverse the taps.
        gain: factor on the filtered image.
        separable: True: ``[taps]``, to be applied along both axes; False: a matrix; None: a list from eight taps on.

    Raises:
        ValueError: no taps, more than two dimensions, a matrix as separable, or a negative gain of a separable filter.
    """
    f = torch.as_tensor(1 if f is None else f, dtype=torch.float32)
    if f.ndim > 2 or f.numel() == 0:
        raise ValueError(f"setup_filter: f must be a number, a list or a matrix of taps, got shape {tuple(f.shape)}")
    f = f.reshape(1) if f.ndim == 0 else f
    if separable is None:
        separable = f.ndim == 1 and f.numel() >= 8
    if separable and (f.ndim == 2 or gain < 0):
        raise ValueError(
            f"setup_filter: a separable f must be a list of taps with gain >= 0, got {tuple(f.shape)}, gain {gain}"
        )
    if f.ndim == 1 and not separable:
        f = torch.outer(f, f)
    if normalize:
        f = f / f.sum()
    if flip_filter:
        f = f.flip(tuple(range(f.ndim)))
    return (f * gain ** (f.ndim / 2)).to(device)  # a separable filter is applied twice


def upfirdn2d(
    x: Tensor,
    f: Tensor | None,
    up: Numbers = 1,
    down: Numbers = 1,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """Upsample, pad, filter and downsample; ``f=None`` is the identity; see :func:`mmif.ops.upfirdn2d`."""
    return ops.upfirdn2d(
        x,
        filter_or_identity(f, x),
        up=pair("upfirdn2d", "up", up),
        down=pair("upfirdn2d", "down", down),
        padding=sides("upfirdn2d", padding),
        flip_filter=flip_filter,
        gain=float(gain),
        backend=backend("upfirdn2d", impl),
    )


def filter2d(
    x: Tensor, f: Tensor | None, padding: Numbers = 0, flip_filter: bool = False, gain: float = 1, impl: str = "cuda"
) -> Tensor:
    """Filter at the same size; ``padding`` comes on top."""
    pads = add(sides("filter2d", padding), up_padding(f, 1, 1))
    return upfirdn2d(x, f, padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def upsample2d(
    x: Tensor,
    f: Tensor | None,
    up: Numbers = 2,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """Upsample to ``up`` times the size at the same brightness; ``padding``, in pixels of the output, comes on top."""
    upx, upy = pair("upsample2d", "up", up)
    pads = add(sides("upsample2d", padding), up_padding(f, upx, upy))
    return upfirdn2d(x, f, up=(upx, upy), padding=pads, flip_filter=flip_filter, gain=gain * upx * upy, impl=impl)


def downsample2d(
    x: Tensor,
    f: Tensor | None,
    down: Numbers = 2,
    padding: Numbers = 0,
    flip_filter: bool = False,
    gain: float = 1,
    impl: str = "cuda",
) -> Tensor:
    """Downsample to a ``down``-th of the size; ``padding``, in pixels of the input, comes on top."""
    downx, downy = pair("downsample2d", "down", down)
    pads = add(sides("downsample2d", padding), down_padding(f, downx, downy))
    return upfirdn2d(x, f, down=(downx, downy), padding=pads, flip_filter=flip_filter, gain=gain, impl=impl)


def up_padding(f: Tensor | None, upx: int, upy: int) -> Sides:
    """Padding after which ``up`` times the size is left; the longer side makes up for the zeros behind each pixel."""
    fw, fh = filter_size(f)
    return Sides((fw + upx - 1) // 2, (fw - upx) // 2, (fh + upy - 1) // 2, (fh - upy) // 2)


def down_padding(f: Tensor | None, downx: int, downy: int) -> Sides:
    """Padding after which a ``down``-th of the size is left."""
    fw, fh = filter_size(f)
    return Sides((fw - downx + 1) // 2, (fw - downx) // 2, (fh - downy + 1) // 2, (fh - downy) // 2)


def add(a: Sides, b: Sides) -> Sides:
    """Return the sums side by side."""
    return Sides(*(i + j for i, j in zip(a, b, strict=True)))


def pair(op: str, name: str, value: Numbers) -> tuple[int, int]:
    """Return a number or ``(x, y)`` as ``(x, y)``."""
    values = _integers(value)
    if len(values) not in (1, 2):
        raise ValueError(f"{op}: {name} must be one or two integers, got {value}")
    return values[0], values[-1]


def sides(op: str, padding: Numbers) -> Sides:
    """Return a number, ``(x, y)`` or ``(left, right, top, bottom)`` as the last."""
    values = _integers(padding)
    if len(values) not in (1, 2, 4):
        raise ValueError(f"{op}: padding must be 1, 2 or 4 integers, got {padding}")
    return Sides(*(values if len(values) == 4 else (values[0], values[0], values[-1], values[-1])))


def filter_size(f: Tensor | None) -> tuple[int, int]:
    """Return the width and height of a filter."""
    if f is not None and f.ndim not in (1, 2):
        raise ValueError(f"upfirdn2d: f must be None, [taps] or [fh, fw], got shape {tuple(f.shape)}; see setup_filter")
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def filter_or_identity(f: Tensor | None, x: Tensor) -> Tensor:
    """Return the filter as float32 (``module.half()`` rounds buffers too), or one tap of one."""
    return torch.ones(1, device=x.device) if f is None else f.float()


def backend(op: str, impl: str) -> str | None:
    """Return the op backend that ``impl`` means."""
    if impl not in _BACKENDS:
        raise ValueError(f"{op}: impl must be 'cuda' or 'ref', got {impl!r}")
    return _BACKENDS[impl]


def _integers(value: Numbers) -> tuple[int, ...]:
    """Return the numbers, NumPy's too, or nothing where one is not an integer."""
    values = tuple(value) if isinstance(value, Sequence) else (value,)
    return tuple(map(int, values)) if all(isinstance(v, Integral) for v in values) else ()
