"""Which backend serves each op on a device, and does it agree with the reference there: what ``mmif-doctor`` asks."""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor

from mmif import backends, ops

CURE = "build the extension again, or use MMIF_BACKEND=reference"
TOLERANCE = 1e-3  # float32 with whatever the device makes of it: a broken build is far off, a rounding is not


def run(device: str) -> tuple[dict[str, str], list[str]]:
    """Return op -> backend, and one line for each compiled body that fails or is wrong on a small example."""
    serving: dict[str, str] = {}
    problems = []
    for op, call in _calls(device).items():
        serving[op] = backends.choose(op, torch.empty(0, device=device))
        if serving[op] == "reference":
            continue
        try:
            agrees = torch.allclose(call(serving[op]), call("reference"), rtol=TOLERANCE, atol=TOLERANCE)
            trouble = None if agrees else "does not agree with the reference"
        except RuntimeError as error:  # what a launch on an unsupported device raises
            trouble = f"fails ({' '.join(str(error).split())})"
        if trouble:
            problems.append(f"{op}: the {serving[op]} body {trouble}; {CURE}")
    return serving, problems


def _calls(device: str) -> dict[str, Callable[[str], Tensor]]:
    """Each op on a small example, as a function of the backend."""
    make = torch.Generator().manual_seed(0)

    def randn(*shape: int) -> Tensor:
        return torch.randn(shape, generator=make).to(device)

    x, vector, row = randn(2, 8, 8, 8), randn(8), randn(2, 8)
    f = ops.setup_filter([1, 3, 3, 1]).to(device)
    acb = (randn(2, 16, 8, 8), randn(1, 8, 8, 3, 3), randn(1, 8), randn(8, 24, 3, 3), vector, randn(8, 8), vector)
    narrow, filters = (randn(*shape).mul(0.1).half() for shape in ((2, 16, 8, 8), (16, 16, 3, 3)))
    weight, w2 = randn(8, 8, 3, 3), randn(1, 8, 8).square()
    return {
        "bias_act": lambda name: ops.bias_act(x, vector, act="lrelu", backend=name),
        "upfirdn2d": lambda name: ops.upfirdn2d(x, f, up=2, padding=(2, 1, 2, 1), backend=name),
        "modulated_conv2d": lambda name: ops.modulated_conv2d(x, weight, row, backend=name),
        "conv_epilogue": lambda name: ops.conv_epilogue(x, demod=row, bias=vector, act="lrelu", backend=name)[0],
        "demodulate": lambda name: ops.demodulate(row[None], w2, backend=name)[1],
        "narrow_conv3x3": lambda name: ops.narrow_conv3x3(narrow, filters, act="lrelu", backend=name)[0],
        "gated_mask_attention": lambda name: ops.gated_mask_attention(x, x, x, mode="none", backend=name),
        "acb_fusion": lambda name: ops.acb_fusion(x, *acb, dilations=[1], backend=name),
    }
