"""What the tests on a device share: arguments that live there, the names of the kernels that ran, a clean end."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest
import torch
from torch import Tensor


def _offset(t: Tensor) -> Tensor:
    """One element into its storage: no 16-byte access is aligned."""
    return t.new_empty(t.numel() + 1)[1:].view(t.shape).copy_(t)


def _offset_channels_last(t: Tensor) -> Tensor:
    storage = _offset(t.movedim(-3, -1).contiguous())
    return storage.movedim(-1, -3)


MISALIGNED = {"offset": _offset, "offset_channels_last": _offset_channels_last}


@pytest.fixture(autouse=True)
def _finish(request: pytest.FixtureRequest) -> Iterator[None]:
    """An error that a kernel raises late belongs to the test that launched it; after one nothing can run any more."""
    yield
    try:
        torch.cuda.synchronize()
    except RuntimeError as error:
        pytest.exit(f"the device is lost after {request.node.nodeid}: {error}", returncode=1)


@pytest.fixture
def arguments() -> Callable[..., tuple[Any, ...]]:
    """``cases.make`` on a device. The layout is made there: a copy from elsewhere would be dense.

    ``offset`` applies to every tensor, the other layouts to images and weights.
    """
    from ops.cases import LAYOUTS, make  # not before pytest has read --extension: it loads the library

    def arguments(
        op: str, sample: str, dtype: torch.dtype, layout: str = "contiguous", device: str = "cuda"
    ) -> tuple[Any, ...]:
        change = (LAYOUTS | MISALIGNED)[layout]
        values = [v.to(device) if isinstance(v, Tensor) else v for v in make(op, sample, dtype)]
        return tuple(change(v) if isinstance(v, Tensor) and (v.ndim >= 4 or layout == "offset") else v for v in values)

    return arguments


@pytest.fixture
def kernels() -> Callable[[Callable[[], object]], list[str]]:
    """Names of the kernels that a call launches, copies and fills by the driver left out."""

    def kernels(call: Callable[[], object]) -> list[str]:
        call()  # what a first call adds is no part of it
        torch.cuda.synchronize()
        activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
        with torch.profiler.profile(activities=activities) as profile:
            call()
            torch.cuda.synchronize()
        on_device = [e.name for e in profile.events() or [] if e.device_type == torch.autograd.DeviceType.CUDA]
        return [name for name in on_device if not name.startswith(("Memcpy", "Memset"))]

    return kernels
