"""A size of zero in each dimension of each op: the reference's result by every body, or one line, from all the same."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor

from mmif import ops

FIR = ops.setup_filter([1, 3, 3, 1])
SIZES = {"n": 2, "c": 8, "o": 16, "h": 4, "w": 6}


def randn(*shape: int) -> Tensor:
    return torch.randn(shape)


def to_rgb(n: int, c: int, h: int, w: int) -> ops.ToRGB:
    return ops.ToRGB(randn(3, c), randn(n, c), randn(3), randn(n, 3, h // 2, w // 2), clamp=0.9)


def attention(name: str | None, n: int, c: int, o: int, h: int, w: int) -> Tensor:
    x = randn(n, c, h, w)
    return ops.gated_mask_attention(x, x, x, randn(n, 2, h, w).sigmoid(), patch_sizes=(1, 2), backend=name)


def acb(name: str | None, n: int, c: int, o: int, h: int, w: int) -> Tensor:
    weights = randn(1, c, c, 3, 3), randn(1, c), randn(c, 3 * c, 3, 3), randn(c), randn(c, c), randn(c)
    return ops.acb_fusion(randn(n, c, h, w), randn(n, 2 * c, h, w), *weights, dilations=[1], backend=name)


def acb_code(name: str | None, n: int, c: int, o: int, h: int, w: int) -> Tensor:
    x, weights = randn(n, c, h, w), (randn(1, c, c, 3, 3), randn(1, c), randn(c, 3 * c, 3, 3), randn(c), randn(1, c))
    return ops.acb_fusion_code(x, x, x, *weights, dilations=[1], backend=name)


# Calls as functions of the backend and of the sizes.
CALLS: dict[str, Callable[..., Any]] = {
    "bias_act": lambda name, n, c, o, h, w: ops.bias_act(randn(n, c, h, w), randn(c), act="lrelu", backend=name),
    "upfirdn2d": lambda name, n, c, o, h, w: ops.upfirdn2d(
        randn(n, c, h, w), FIR, up=2, padding=(2, 1, 2, 1), backend=name
    ),
    "upfirdn2d_down": lambda name, n, c, o, h, w: ops.upfirdn2d(
        randn(n, c, h, w), FIR, down=2, padding=2, backend=name
    ),
    "modulated_conv2d": lambda name, n, c, o, h, w: ops.modulated_conv2d(
        randn(n, c, h, w), randn(o, c, 3, 3), randn(n, c), backend=name
    ),
    "modulated_conv2d_up": lambda name, n, c, o, h, w: ops.modulated_conv2d(
        randn(n, c, h, w), randn(o, c, 3, 3), randn(n, c), up=2, resample_filter=FIR, backend=name
    ),
    "modulated_conv2d_half": lambda name, n, c, o, h, w: ops.modulated_conv2d(
        randn(n, c, h, w).half(), randn(o, c, 3, 3).half(), randn(n, c), backend=name
    ),
    "conv_epilogue": lambda name, n, c, o, h, w: ops.conv_epilogue(
        randn(n, c, h, w), demod=randn(n, c), bias=randn(c), act="lrelu", backend=name
    ),
    "conv_epilogue_to_rgb": lambda name, n, c, o, h, w: ops.conv_epilogue(
        randn(n, c, h, w), to_rgb=to_rgb(n, c, h, w), resample_filter=FIR, backend=name
    ),
    "conv_epilogue_blur": lambda name, n, c, o, h, w: ops.conv_epilogue(
        randn(n, c, h + 1, w + 1), bias=randn(c), resample_filter=FIR, blur=True, backend=name
    ),
    "narrow_conv3x3": lambda name, n, c, o, h, w: ops.narrow_conv3x3(
        randn(n, 2 * c, h, w).half(),
        randn(o, 2 * c, 3, 3).half(),
        to_rgb=to_rgb(n, o, h, w),
        resample_filter=FIR,
        backend=name,
    ),
    "demodulate": lambda name, n, c, o, h, w: ops.demodulate(randn(h, n, c), torch.rand(h, o, c), backend=name),
    "gated_mask_attention": attention,
    "acb_fusion": acb,
    "acb_fusion_code": acb_code,
    "adaptive_norm": lambda name, n, c, o, h, w: ops.adaptive_norm(*[randn(n, c, h, w)] * 3, backend=name),
    "gated_residual": lambda name, n, c, o, h, w: ops.gated_residual(*[randn(n, c, h, w)] * 3, backend=name),
}


def tensors(call, name, sizes):
    torch.manual_seed(0)
    out = call(name, **sizes)
    return [t for t in ((out,) if isinstance(out, Tensor) else out) if t is not None]


REFUSED = {  # what a convolution or a filter needs one of
    "upfirdn2d": "hw",
    "modulated_conv2d": "cohw",
    "conv_epilogue": "hw",
    "narrow_conv3x3": "cohw",
    "gated_mask_attention": "chw",
    "acb_fusion": "chw",
}


def is_refused(op: str, empty: str) -> bool:
    return any(op.startswith(name) and empty in sizes for name, sizes in REFUSED.items())


@pytest.mark.parametrize("empty", SIZES)
@pytest.mark.parametrize("op", CALLS)
def test_a_size_of_zero(op, empty, registered):
    sizes = SIZES | {empty: 0}
    if is_refused(op, empty):
        for name in ("reference", None):
            with pytest.raises(ValueError, match=r"^\w+: [^\n]*, got [^\n]*$"):
                CALLS[op](name, **sizes)
        return
    expected, got = (tensors(CALLS[op], name, sizes) for name in ("reference", None))
    for ours, theirs in zip(got, expected, strict=True):
        assert theirs.isfinite().all()
        torch.testing.assert_close(ours, theirs, rtol=1e-3, atol=1e-3)
