"""Which calls the Triton kernels of ``mmif.kernels`` take. Asking imports neither Triton nor a kernel.

An op that has such a kernel announces it with :func:`announce`, asks :func:`mmif.ops.dispatch.choose` as any op does,
and hands the answer to its registered op, whose body imports the kernel when it first runs.
"""

from __future__ import annotations

import functools
import importlib
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmif.ops import dispatch

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def announce(
    op: str,
    limits: Callable[..., str | None] | None = None,
    key: Callable[..., tuple[str | int, ...] | None] | None = None,
) -> None:
    """Tell :mod:`mmif.ops.dispatch` of a Triton body of ``op``.

    Args:
        op: name of the op, also the one that its forward is tuned under.
        limits: ``limits(*tensors, **facts)`` adds reasons of its own to pass the body over.
        key: ``key(*tensors, **facts)`` is what its forward is tuned by, or None: where the reference was measured to be
            faster, the body is passed over.
    """
    if not dispatch.installed("triton"):
        dispatch.register_absence("triton", "triton is not installed (pip install triton)")
        return
    dispatch.register_body(op, "triton", functools.partial(_supports, limits), functools.partial(_advice, op, key))


def kernels(module: str) -> Any:
    """A module of ``mmif.kernels``. By name: that package is the folder ``kernels/``, and Triton is optional."""
    return importlib.import_module(f"mmif.kernels.{module}")


def _supports(limits: Callable[..., str | None] | None, *tensors: Tensor | None, **facts: Any) -> str | None:
    given = [t for t in tensors if t is not None]
    device = given[0].device
    if any(t.device != device for t in given):
        return f"tensors must share a device, got {', '.join(sorted({str(t.device) for t in given}))}"
    if device.type != "cuda" and not dispatch.interpreted():
        return f"this backend needs tensors on cuda; one is on {device}"
    other = [t.dtype for t in given if t.is_floating_point() and t.dtype not in DTYPES]
    if other:
        return f"tensors must be float16, bfloat16 or float32, got {other[0]}"
    if any(t.numel() == 0 for t in given):
        return "a tensor is empty"
    if any((t[:1] if t.ndim else t).numel() >= 2**31 for t in given):
        return "a sample has 2^31 elements or more"
    reason = limits(*tensors, **facts) if limits else None
    if reason is None and device.type == "cuda" and not torch.compiler.is_compiling():
        reason = _device(device)
    return reason


@functools.cache
def _device(device: torch.device) -> str | None:
    capability = torch.cuda.get_device_capability(device)
    return None if capability >= (8, 0) else f"compute capability must be 8.0 or higher, got {capability}"


def _advice(
    op: str, key: Callable[..., tuple[str | int, ...] | None] | None, *tensors: Tensor | None, **facts: Any
) -> str | None:
    """What was measured here: whether the reference is faster."""
    device = next(t.device for t in tensors if t is not None)
    if key is None or device.type != "cuda" or torch.compiler.is_compiling():
        return None
    found = key(*tensors, **facts)
    return None if found is None else kernels("tuning").verdict(op, found, device)
