"""Tensors of more than 2^31 elements: a position that does not fit into 32 bits must not wrap round.

The op on the whole is compared, bit by bit, with the op on parts of it, which other tests prove right.
"""

import pytest
import torch

from mmif.ops import ToRGB, setup_filter
from mmif.ops._epilogue import Epilogue

pytestmark = pytest.mark.cuda

# name -> shape and the dimension along which parts are independent; every count exceeds 2^31
SHAPES = {"images": ((2049, 16, 256, 256), 0), "planes": ((1, 16, 11600, 11600), 1)}
FORMATS = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}
LRELU = (1, "lrelu", 0.2, 1.5, 2.0)
BIG = pytest.mark.parametrize(("shape", "dim"), list(SHAPES.values()), ids=[f"{name}" for name in SHAPES])
LAYOUT = pytest.mark.parametrize("memory_format", list(FORMATS.values()), ids=list(FORMATS))


def randn(shape, memory_format):
    """Random float16 on the device, unless its memory is too small for several such tensors."""
    count = torch.Size(shape).numel()
    free, needed = torch.cuda.mem_get_info()[0], 5 * 2 * count
    if free < needed:
        pytest.skip(f"{needed >> 30} GiB of device memory are needed, {free >> 30} are free")
    return torch.empty(shape, device="cuda", dtype=torch.float16, memory_format=memory_format).normal_()


def parts(t, dim):
    """Parts of 256 images, or of eight channels, which fill a vector."""
    return t.split(256 if dim == 0 else 8, dim)


def dense(t, memory_format):
    return t.contiguous(memory_format=memory_format)


@pytest.fixture(autouse=True)
def _give_back():
    yield
    torch.cuda.empty_cache()


@BIG
@LAYOUT
def test_bias_act(shape, dim, memory_format):
    x = randn(shape, memory_format)
    b = torch.randn(shape[1], device="cuda").half()
    y = torch.ops.mmif.bias_act(x, b, *LRELU)
    biases = parts(b, 0) if dim == 1 else [b] * len(parts(x, dim))
    for part, bias, got in zip(parts(x, dim), biases, parts(y, dim), strict=True):
        assert torch.equal(torch.ops.mmif.bias_act(dense(part, memory_format), bias, *LRELU), got)


@BIG
@LAYOUT
def test_bias_act_grad(shape, dim, memory_format):
    dy, y = (randn(shape, memory_format) for _ in range(2))
    static = (*LRELU, 1, True)
    dx, db = torch.ops.mmif.bias_act_grad(dy, None, None, y, *static)
    for part_dy, part_y, got in zip(parts(dy, dim), parts(y, dim), parts(dx, dim), strict=True):
        tensors = (dense(part_dy, memory_format), None, None, dense(part_y, memory_format))
        assert torch.equal(torch.ops.mmif.bias_act_grad(*tensors, *static)[0], got)
    # Sums of 10^8 numbers of both signs, about 10^4: a part left out would change them by thousands.
    expected = dx.sum((0, 2, 3), dtype=torch.float32)
    torch.testing.assert_close(db.float(), expected, rtol=2e-3, atol=20.0)


@BIG
@LAYOUT
@pytest.mark.parametrize("down", [1, 2])
def test_upfirdn2d(shape, dim, memory_format, down):
    x = randn(shape, memory_format)
    static = (setup_filter([1, 3, 3, 1]).cuda(), (1, 1, down, down), (2, 1, 2, 1), False, 1.5)
    y = torch.ops.mmif.upfirdn2d(x, *static)
    for part, got in zip(parts(x, dim), parts(y, dim), strict=True):
        assert torch.equal(torch.ops.mmif.upfirdn2d(dense(part, memory_format), *static), got)


@LAYOUT
def test_upfirdn2d_to_a_large_output(memory_format):
    x = randn((513, 16, 256, 256), memory_format)  # a quarter of the output
    static = (setup_filter([1, 3, 3, 1]).cuda(), (2, 2, 1, 1), (2, 1, 2, 1), False, 4.0)
    y = torch.ops.mmif.upfirdn2d(x, *static)
    assert y.numel() > 2**31
    for part, got in zip(x.split(128), y.split(128), strict=True):
        assert torch.equal(torch.ops.mmif.upfirdn2d(dense(part, memory_format), *static), got)


@BIG
@pytest.mark.parametrize("form", ["layer", "up_layer", "to_rgb"])
def test_conv_epilogue(shape, dim, form):
    blur = form == "up_layer"
    n, c, height, width = shape
    y = randn((n, c, height + blur, width + blur), torch.channels_last)
    demod, styles = (torch.rand(n, c, device="cuda") + 0.5 for _ in range(2))
    noise, strength = torch.randn(n, 1, height, width, device="cuda"), torch.tensor(0.3, device="cuda")
    bias, f = torch.randn(c, device="cuda"), setup_filter([1, 3, 3, 1]).cuda()
    weight = torch.randn(3, c, device="cuda") if form == "to_rgb" else None

    def run(y, images, channels):
        epilogue = Epilogue(
            demod=demod[images, channels],
            noise=noise[images],
            strength=strength,
            bias=bias[channels],
            next_styles=styles[images, channels],
            f=f,
            act="lrelu",
            alpha=0.2,
            gain=1.5,
            clamp=4.0,
        )
        if weight is not None:
            rgb = ToRGB(weight[:, channels], styles[images, channels], torch.zeros(3, device="cuda"), None)
            epilogue = epilogue.with_to_rgb(rgb)
        return torch.ops.mmif.conv_epilogue(y, blur, *epilogue)

    every = slice(None)
    out, image = run(y, every, every)
    start = 0
    for part, got in zip(parts(y, dim), parts(out, dim), strict=True):
        own = slice(start, start + part.shape[dim])
        start = own.stop
        where = (own, every) if dim == 0 else (every, own)
        expected, expected_image = run(dense(part, torch.channels_last), *where)
        assert torch.equal(expected, got)
        if weight is not None and dim == 0:  # parts of the channels have images of their own
            assert torch.equal(expected_image, image[own])
