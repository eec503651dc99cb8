"""Which backend serves each op on a device, and does it agree with the reference there: what ``mmif-doctor`` asks."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from types import MappingProxyType
from typing import Any, NamedTuple

import torch
from torch import Tensor

from mmif import ops
from mmif.ops import _triton, dispatch

CURE = "use MMIF_BACKEND=reference"
REBUILD = "build the extension again, or "
TOLERANCE = 1e-3  # float32 with whatever the device makes of it: a broken build is far off, a rounding is not


class Example(NamedTuple):
    """An op on small tensors: the call as a function of the backend, and what it asks :func:`dispatch.choose` with."""

    call: Callable[[str], Tensor]
    tensors: tuple[Tensor, ...]
    facts: Mapping[str, Any] = MappingProxyType({})


def run(device: str) -> tuple[dict[str, str], list[str]]:
    """Return op -> backend, and one line for each compiled body that fails or is wrong on a small example."""
    serving: dict[str, str] = {}
    problems = []
    for op, example in _examples(device).items():
        name = serving[op] = dispatch.choose(op, *example.tensors, **example.facts)
        if name == "reference":
            continue
        try:
            with _first_configuration(name):
                found = example.call(name)
            agrees = torch.allclose(found, example.call("reference"), rtol=TOLERANCE, atol=TOLERANCE)
            trouble = None if agrees else "does not agree with the reference"
        except Exception as error:  # whatever a compiler or a launch raises is what the report is for
            trouble = f"fails ({' '.join(str(error).split())})"
        if trouble:
            problems.append(f"{op}: the {name} body {trouble}; {'' if name == 'triton' else REBUILD}{CURE}")
    return serving, problems


def _first_configuration(backend: str) -> AbstractContextManager[None]:
    """Triton kernels as they are by default: nothing is tuned at such a size."""
    return _triton.kernels("tuning").forced(0) if backend == "triton" else contextlib.nullcontext()


def _examples(device: str) -> dict[str, Example]:
    make = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=make).to(device)

    x, vector, row = randn(2, 8, 8, 8), randn(8), randn(2, 8)
    f = ops.setup_filter([1, 3, 3, 1]).to(device)
    acb = (randn(2, 16, 8, 8), randn(1, 8, 8, 3, 3), randn(1, 8), randn(8, 24, 3, 3), vector, randn(8, 8), vector)
    half, filters = (randn(*shape).mul(0.1).half() for shape in ((2, 16, 8, 8), (16, 16, 3, 3)))
    weight, w2, one_row = randn(8, 8, 3, 3), randn(1, 8, 8).square(), randn(1, 8)
    heads = {"patch_sizes": (2, 4), "mode": "none"}
    return {
        "bias_act": Example(lambda name: ops.bias_act(x, vector, act="lrelu", backend=name), (x,)),
        "upfirdn2d": Example(lambda name: ops.upfirdn2d(x, f, up=2, padding=(2, 1, 2, 1), backend=name), (x,)),
        "modulated_conv2d": Example(lambda name: ops.modulated_conv2d(x, weight, row, backend=name), (x,)),
        "conv_epilogue": Example(
            lambda name: ops.conv_epilogue(x, demod=row, bias=vector, act="lrelu", backend=name)[0], (x,)
        ),
        "demodulate": Example(lambda name: ops.demodulate(row[None], w2, backend=name)[1], (row,)),
        "narrow_conv3x3": Example(
            lambda name: ops.narrow_conv3x3(half, filters, act="lrelu", backend=name)[0], (half, filters)
        ),
        "gated_mask_attention": Example(
            lambda name: ops.gated_mask_attention(x, x, x, **heads, backend=name), (x, x, x), heads
        ),
        "acb_fusion": Example(lambda name: ops.acb_fusion(x, *acb, dilations=[1], backend=name), (x, *acb)),
        "acb_fusion_code": Example(
            lambda name: ops.acb_fusion_code(x, x, x, *acb[1:5], one_row, dilations=[1], backend=name), (x, *acb)
        ),
        "adaptive_norm": Example(lambda name: ops.adaptive_norm(x, x, x, backend=name), (x,)),
        "gated_residual": Example(lambda name: ops.gated_residual(x, x, x, backend=name), (x,)),
    }
