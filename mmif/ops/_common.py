"""Small helpers shared by the ops."""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from typing import Any, ParamSpec, TypeVar

import torch
from torch import Tensor

P = ParamSpec("P")
R = TypeVar("R")

TINY = 1e-12


def format_of(x: Tensor) -> torch.memory_format:
    """channels_last if the 4-D tensor ``x`` is so and has more than one channel, else contiguous."""
    channels_last = x.ndim == 4 and x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if channels_last else torch.contiguous_format


def empty_like_format(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an empty tensor of ``shape`` in the dtype, device and memory format (dense) of the 4-D tensor ``x``."""
    return torch.empty(tuple(shape), dtype=x.dtype, device=x.device, memory_format=format_of(x))


def wide_dtype(x: Tensor) -> torch.dtype:
    """The dtype to compute in: float32, or float64 for a float64 ``x``."""
    return torch.promote_types(x.dtype, torch.float32)


def scale_channels(x: Tensor, factor: Tensor) -> Tensor:
    """``x`` [N, C, H, W] times ``factor`` [N, C], in the dtype of ``x``."""
    return x * factor.to(x.dtype)[:, :, None, None]


def largest(x: Tensor, dim: int) -> Tensor:
    """The largest magnitude along ``dim``, which stays with one element; never zero, so that it can be divided by."""
    if x.shape[dim] == 0:  # no maximum of nothing
        return x.new_full([1 if i == dim else size for i, size in enumerate(x.shape)], TINY)
    return x.abs().amax(dim=dim, keepdim=True).clamp(min=TINY)


def dense(like: Tensor, *tensors: Tensor) -> tuple[Tensor, ...]:
    """The tensors in the memory format of ``like``, so that equal positions in memory are equal elements."""
    return tuple(t.contiguous(memory_format=format_of(like)) for t in tensors)


# Devices such as ``meta`` do not know autocast. Asked here, since the dynamo of torch 2.11 cannot trace the question.
_KNOWS_AUTOCAST = frozenset(
    device for device in ("cpu", "cuda", "xpu", "mps", "hpu", "mtia") if torch.amp.is_autocast_available(device)
)


def _autocasts(device: str) -> bool:
    return device in _KNOWS_AUTOCAST and torch.is_autocast_enabled(device)


def autocast_dtype(x: Tensor) -> torch.dtype | None:
    """The dtype that autocast asks for on the device of ``x``, or None where autocast is off."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if _autocasts(device) else None


def to_autocast(*tensors: Tensor | None) -> tuple[Any, ...]:
    """Cast floating tensors (None stays) to autocast's dtype, all of them or, where it is off, none."""
    first = next(t for t in tensors if t is not None)
    dtype = autocast_dtype(first)
    if dtype is None or first.dtype == torch.float64:
        return tensors
    return tuple(None if t is None else t.to(dtype) for t in tensors)


def in_own_dtype(function: Callable[P, R]) -> Callable[P, R]:
    """Decorate a reference: what it is made of computes in the dtype of its tensors, whatever autocast says.

    Its first argument is a tensor. The registered bodies behave so by themselves.
    """

    @functools.wraps(function)
    def wrapper(*args: P.args, **kwargs: P.kwargs) -> R:
        device = args[0].device.type  # pyright: ignore[reportAttributeAccessIssue] - P cannot say
        if not _autocasts(device):
            return function(*args, **kwargs)
        with torch.autocast(device, enabled=False):
            return function(*args, **kwargs)

    return wrapper
