"""The kernels at sizes like those of the networks: many tiles, many vectors of channels, and a rest of both."""

import pytest
import torch
from ops.cases import DTYPES, name_of
from ops.test_registration import floating, gradients_of
from tolerances import assert_close_to_reference

from mmif.ops import ToRGB, setup_filter
from mmif.ops._epilogue import Epilogue
from mmif.ops.bias_act import bias_act_ref
from mmif.ops.conv_epilogue import conv_epilogue_ref
from mmif.ops.upfirdn2d import upfirdn2d_ref

pytestmark = pytest.mark.cuda

FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
# (up x, up y, down x, down y), padding, gain
RESAMPLING = {
    "up": ((2, 2, 1, 1), (2, 1, 2, 1), 4.0),
    "down": ((1, 1, 2, 2), (1, 1, 1, 1), 1.0),
    "blur": ((1, 1, 1, 1), (1, 1, 1, 1), 4.0),
    "odd_padding": ((2, 2, 1, 1), (1, 2, -1, 3), 1.0),
}
SHAPES = ((2, 8, 130, 67), (1, 24, 33, 257), (1, 3, 64, 64), (1, 520, 9, 10), (3, 72, 17, 1))
EACH_DTYPE = pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
EACH_FORMAT = pytest.mark.parametrize("memory_format", FORMATS.values(), ids=FORMATS)
EACH_SHAPE = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def randn(*shape, dtype=torch.float32, memory_format=torch.contiguous_format):
    made = torch.randn(shape, device="cuda").to(dtype)
    return made.contiguous(memory_format=memory_format) if len(shape) == 4 else made


@EACH_DTYPE
@EACH_FORMAT
@EACH_SHAPE
@pytest.mark.parametrize("kind", RESAMPLING)
def test_upfirdn2d(kind, shape, memory_format, dtype):
    factors, padding, gain = RESAMPLING[kind]
    if kind == "down" and shape[3] == 1:
        padding = (2, 1, 1, 1)  # the padded image must not be smaller than the filter
    elif kind == "blur" and shape[3] == 1:
        padding = (2, 2, 1, 1)
    taps = setup_filter([1.0, 3.0, 2.0, 1.0]).cuda()  # not symmetric
    args = (randn(*shape, dtype=dtype, memory_format=memory_format), taps, factors, padding, False, gain)
    out = torch.ops.mmif.upfirdn2d(*args)
    assert_close_to_reference(out, upfirdn2d_ref, args, op="upfirdn2d", dtype=dtype)
    assert out.is_contiguous(memory_format=memory_format)


@EACH_DTYPE
@EACH_FORMAT
@EACH_SHAPE
@pytest.mark.parametrize("act", ["lrelu", "swish"])
def test_bias_act_with_its_gradients(act, shape, memory_format, dtype):
    x = randn(*shape, dtype=dtype, memory_format=memory_format)
    args = (x, randn(shape[1], dtype=dtype), 1, act, 0.2, 1.5, 2.0)
    out = torch.ops.mmif.bias_act(*args)
    assert_close_to_reference(out, bias_act_ref, args, op="bias_act", dtype=dtype)
    values = (*args, randn(*shape, dtype=dtype, memory_format=memory_format))
    ours, reference = (gradients_of(run, (0, 1), len(args)) for run in (torch.ops.mmif.bias_act, bias_act_ref))
    assert_close_to_reference(ours(*values), reference, values, grad=True, op="bias_act", dtype=dtype)


@EACH_DTYPE
@pytest.mark.parametrize("form", ["layer", "up_layer", "to_rgb", "rgb_only"])
@pytest.mark.parametrize(
    "shape", [(2, 8, 130, 66), (1, 24, 34, 258), (1, 520, 10, 8)], ids=lambda shape: "x".join(map(str, shape))
)
def test_conv_epilogue(shape, form, dtype):
    n, c, height, width = shape
    blur, rgb_only = form == "up_layer", form == "rgb_only"
    small = torch.promote_types(dtype, torch.float32)
    y = randn(n, c, height + blur, width + blur, dtype=dtype, memory_format=torch.channels_last)
    skip = randn(*shape, dtype=dtype, memory_format=torch.channels_last)
    noise, strength = randn(n, 1, height, width, dtype=small), torch.tensor(0.3, device="cuda", dtype=small)
    demod, styles, rgb_styles = (randn(n, c, dtype=small) for _ in range(3))
    epilogue = Epilogue(
        demod=demod,
        noise=noise,
        strength=strength,
        bias=randn(c, dtype=small),
        skip=skip,
        next_styles=styles,
        f=setup_filter([1, 3, 3, 1]).cuda(),
        act="lrelu",
        alpha=0.2,
        gain=2**0.5,
        clamp=3.0,
    )
    if form in ("to_rgb", "rgb_only"):
        prev = randn(n, 3, height // 2, width // 2, dtype=small)
        weight = randn(3, c, dtype=small) / c**0.5
        epilogue = epilogue.with_to_rgb(ToRGB(weight, rgb_styles, randn(3, dtype=small), prev, 2.5, rgb_only))
    args = (y, blur, *epilogue)

    def reference(*values):
        return floating(conv_epilogue_ref(*values))

    assert_close_to_reference(
        floating(torch.ops.mmif.conv_epilogue(*args)), reference, args, op="conv_epilogue", dtype=dtype
    )
