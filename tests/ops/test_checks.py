"""What the compiled bodies say to arguments that do not fit, and what they make of awkward ones.

The public functions check first; these are the checks behind them, for whoever calls ``torch.ops.mmif`` directly. Those
of ops without a CPU body are collected where the kernels run emulated (tests/csrc/test_emulation.py).
"""

import pytest
import torch

from mmif import ops
from mmif.ops import dispatch
from mmif.ops._epilogue import Epilogue

X, B = torch.randn(2, 8, 4, 4), torch.randn(8)
STYLES, W2 = torch.randn(3, 2, 8), torch.rand(3, 5, 8)
F4 = ops.setup_filter([1, 3, 3, 1])
FACTORS, PADS = (1, 1, 1, 1), (1, 1, 1, 1)


def compiled(op: str) -> bool:
    return torch._C._dispatch_has_kernel_for_dispatch_key(f"mmif::{op}", "CPU")


def bias_act(x=X, b=B, dim=1, act="lrelu", alpha=0.2, gain=1.0, clamp=-1.0):
    return torch.ops.mmif.bias_act(x, b, dim, act, alpha, gain, clamp)


def bias_act_grad(dy=X, x=X, b=B, y=X, dim=1, act="tanh", order=1):
    return torch.ops.mmif.bias_act_grad(dy, x, b, y, dim, act, 0.2, 1.0, -1.0, order, True)


def upfirdn2d(x=X, f=F4, factors=FACTORS, pads=PADS):
    return torch.ops.mmif.upfirdn2d(x, f, factors, pads, False, 1.0)


def demodulate(styles=STYLES, w2=W2):
    return torch.ops.mmif.demodulate(styles, w2, 1e-8)


def conv_epilogue(y=X, blur=False, **given):
    return torch.ops.mmif.conv_epilogue(y, blur, *Epilogue(**given))


RGB = {"rgb_weight": torch.randn(3, 8), "rgb_styles": torch.randn(2, 8), "rgb_bias": torch.randn(3)}
BAD = [
    (bias_act, {"x": X.int()}, r"bias_act: x must be float16, bfloat16, float32 or float64, got Int"),
    (bias_act, {"b": B[:5]}, r"bias_act: b must have the shape \[8\], got \[5\]"),
    (bias_act, {"b": B.double()}, r"bias_act: b must have the dtype of the first tensor, Float, got Double"),
    (bias_act, {"dim": 4}, r"bias_act: dim must be in \[0, 4\), got 4"),
    (bias_act, {"act": "gelu"}, r"bias_act: act must be the name of an activation, got 'gelu'"),
    (bias_act_grad, {"order": 4}, r"bias_act: order must be in \[0, 3\], got 4"),
    (bias_act_grad, {"x": None}, r"bias_act: tanh needs x for its derivatives, got None"),
    (bias_act_grad, {"dy": X[:1]}, r"bias_act: dy must have the shape \[2, 8, 4, 4\], got \[1, 8, 4, 4\]"),
    (upfirdn2d, {"x": X[0]}, r"upfirdn2d: x must .*\[N, C, H, W\].*got"),
    (upfirdn2d, {"x": X.int()}, r"upfirdn2d: x must .*got Int"),
    (upfirdn2d, {"f": F4.double()}, r"upfirdn2d: f must .*float32.*got"),
    (upfirdn2d, {"f": F4[None, None]}, r"upfirdn2d: f must .*got"),
    (upfirdn2d, {"f": F4[:0]}, r"upfirdn2d: f must .*got"),
    (upfirdn2d, {"factors": (1, 1, 0, 1)}, r"upfirdn2d: .*factors must .*got"),
    (upfirdn2d, {"factors": (1, 1)}, r"upfirdn2d: .*factors must .*got"),
    (upfirdn2d, {"pads": (1, 1)}, r"upfirdn2d: .*pads must .*got"),
    (upfirdn2d, {"pads": (-3, -3, 0, 0)}, r"upfirdn2d: the padded image must be at least as large as the filter"),
    (upfirdn2d, {"pads": (2**40, 0, 0, 0)}, r"upfirdn2d: .*got"),
    (demodulate, {"styles": STYLES.double()}, r"demodulate: styles and w2 must be float32 .*, got Double \[3, 2, 8\]"),
    (demodulate, {"w2": W2[:, :, :7]}, r"demodulate: w2 must have the shape \[3, 5, 8\], got \[3, 5, 7\]"),
    (conv_epilogue, {"y": X[:, :3]}, r"conv_epilogue: channels must be a multiple of 16 bytes, got 3 of Float"),
    (conv_epilogue, {"y": X[0]}, r"conv_epilogue: y must be \[N, C, H, W\], got \[8, 4, 4\]"),
    (conv_epilogue, {"act": "tanh"}, r"conv_epilogue: act must be linear, relu or lrelu, got 'tanh'"),
    (conv_epilogue, {"demod": torch.ones(2, 7)}, r"conv_epilogue: demod must have the shape \[2, 8\], got \[2, 7\]"),
    (conv_epilogue, {"bias": B.half()}, r"conv_epilogue: bias must be Float, got Half"),
    (
        conv_epilogue,
        {"skip": X.half()},
        r"conv_epilogue: skip must have the dtype of the first tensor, Float, got Half",
    ),
    (conv_epilogue, {"noise": torch.ones(2, 1, 4, 4)}, r"conv_epilogue: noise and strength must be given together"),
    (conv_epilogue, {"blur": True}, r"conv_epilogue: f must be given where something is filtered, got None"),
    (conv_epilogue, {"blur": True, "f": F4[:3]}, r"conv_epilogue: f must have the shape \[4\], got \[3\]"),
    (
        conv_epilogue,
        {"blur": True, "f": F4, **RGB},
        r"conv_epilogue: filtering and toRGB must not be asked for together",
    ),
    (conv_epilogue, {"rgb_only": True}, r"conv_epilogue: rgb_only must come with toRGB, got rgb_weight None"),
    (conv_epilogue, {"rgb_bias": B[:3]}, r"conv_epilogue: rgb_weight, rgb_styles and rgb_bias must be given together"),
    (
        conv_epilogue,
        {**RGB, "y": X[:, :, :3], "rgb_prev": torch.zeros(2, 3, 1, 2), "f": F4},
        r"conv_epilogue: H and W must be even beside rgb_prev, got 3 and 4",
    ),
]


@pytest.mark.parametrize(("call", "arguments", "message"), [row for row in BAD if compiled(row[0].__name__)])
def test_bad_arguments_of_a_compiled_body(call, arguments, message):
    call()
    with pytest.raises(RuntimeError, match=message):
        call(**arguments)


def test_there_are_compiled_bodies():
    """make builds the extension wherever there is a compiler, and this file is about it."""
    assert dispatch.why_not("cpu") is None
    assert compiled("bias_act")
    assert compiled("upfirdn2d")


@pytest.mark.parametrize("act", ["lrelu", "swish"])
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_values_that_are_not_finite_go_their_way(act, value):
    x = X.clone()
    x[0, 0, 1, 2] = value
    expected = ops.bias_act(x, B, act=act, clamp=3.0, backend="reference")
    torch.testing.assert_close(bias_act(x, B, 1, act, 0.2, 2**0.5, 3.0), expected, equal_nan=True)
    filtered = ops.upfirdn2d(x, F4, padding=1, backend="reference")
    torch.testing.assert_close(upfirdn2d(x), filtered, equal_nan=True)


def test_misaligned_tensors_are_read_element_by_element():
    wide = torch.randn(2 * 8 * 16 + 1)[1:].view(2, 8, 4, 4)
    assert wide.data_ptr() % 16
    torch.testing.assert_close(bias_act(wide), ops.bias_act(wide, B, act="lrelu", gain=1.0, backend="reference"))
    last = wide.view(2, 4, 4, 8).permute(0, 3, 1, 2)
    torch.testing.assert_close(upfirdn2d(last), ops.upfirdn2d(last, F4, padding=1, backend="reference"))


def test_the_bias_gradient_does_not_depend_on_the_number_of_threads():
    dy, y = torch.randn(4, 8, 64, 64), torch.randn(4, 8, 64, 64)
    several = []
    for threads in (1, 2, 3):
        torch.set_num_threads(threads)
        several.append(torch.ops.mmif.bias_act_grad(dy, None, None, y, 1, "lrelu", 0.2, 1.0, -1.0, 1, True)[1])
    torch.set_num_threads(1)
    assert torch.equal(several[0], several[1])
    assert torch.equal(several[0], several[2])
