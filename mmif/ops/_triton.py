"""Which calls the Triton kernels of ``mmif.kernels`` take. Asking imports neither Triton nor a kernel.

An op that has such a kernel announces it with :func:`announce`, asks :func:`mmif.backends.choose` as any op does, and
hands the answer to its registered op, whose body imports the kernel when it first runs.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor

from mmif import backends

DTYPES = (torch.float16, torch.bfloat16, torch.float32)


def announce(op: str, limits: Callable[..., str | None] | None = None) -> None:
    """Tell :mod:`mmif.backends` of a Triton body of ``op``; ``limits(*tensors, **facts)`` adds reasons of its own."""
    if not backends.installed("triton"):
        backends.register_absence("triton", "triton is not installed (pip install triton)")
        return
    backends.register_body(op, "triton", functools.partial(_supports, limits))


def _supports(limits: Callable[..., str | None] | None, *tensors: Tensor | None, **facts: Any) -> str | None:
    given = [t for t in tensors if t is not None]
    device = given[0].device
    if any(t.device != device for t in given):
        return f"tensors must share a device, got {', '.join(sorted({str(t.device) for t in given}))}"
    if device.type != "cuda" and not backends.interpreted():
        return f"a tensor is on {device}"
    if any(t.dtype not in DTYPES for t in given if t.is_floating_point()):
        return f"tensors must be float16, bfloat16 or float32, got {given[0].dtype}"
    if any(t.numel() == 0 for t in given):
        return "a tensor is empty"
    if any(t[:1].numel() >= 2**31 for t in given):
        return "a sample has 2^31 elements or more"
    reason = limits(*tensors, **facts) if limits else None
    if reason is None and device.type == "cuda" and not torch.compiler.is_compiling():
        reason = _device(device)
    return reason


@functools.cache
def _device(device: torch.device) -> str | None:
    capability = torch.cuda.get_device_capability(device)
    return None if capability >= (8, 0) else f"compute capability must be 8.0 or higher, got {capability}"
