"""What comes in: NaN and infinities, nothing at all, tensors from elsewhere."""

import pytest
import torch
from ops.cases import OPS
from ops.test_registration import floating
from tolerances import assert_close_to_reference
from torch import Tensor

from mmif.ops import bias_act, conv_epilogue, demodulate, dispatch, modulated_conv2d, setup_filter, upfirdn2d
from mmif.ops.bias_act import ACTIVATIONS

pytestmark = pytest.mark.cuda

NOT_FINITE = (float("nan"), float("inf"), -float("inf"))


def with_non_finite(t):
    """The first, the middle and the last element become NaN and the infinities."""
    t = t.clone()
    for i, value in zip((0, t.numel() // 2, -1), NOT_FINITE, strict=True):
        t.view(-1)[i] = value
    return t


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@pytest.mark.parametrize(
    ("name", "sample"),
    [("upfirdn2d", "up2"), ("upfirdn2d", "down2_crop"), ("conv_epilogue", "layer"), ("conv_epilogue", "up_layer")],
)
def test_nan_and_infinity_pass_as_in_the_reference(name, sample, layout, dtype):
    """The reference runs on the CPU: a GPU library's convolution may spread a NaN."""
    x, *others = OPS[name].arguments(sample, dtype)
    args = (with_non_finite(x), *others)
    change = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    there = [v.cuda() if isinstance(v, Tensor) else v for v in args]
    there[0] = there[0].contiguous(memory_format=change)
    out = tuple(t.cpu() for t in floating(OPS[name].run(*there)))
    assert_close_to_reference(out, lambda *a: floating(OPS[name].ref(*a)), args, op=name, dtype=dtype)


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("clamp", [None, 0.5], ids=["", "clamp"])
def test_activations_of_nan_and_infinity(act, clamp):
    x = torch.tensor([*NOT_FINITE, 1.0, -1.0, 0.0, -0.0, 80.0, -80.0])
    expected = bias_act(x, act=act, clamp=clamp, backend="reference")
    torch.testing.assert_close(bias_act(x.cuda(), act=act, clamp=clamp).cpu(), expected, equal_nan=True)


@pytest.mark.parametrize("shape", [(0, 8, 4, 4), (2, 0, 4, 4), (2, 8, 0, 4)], ids=["images", "channels", "rows"])
def test_nothing_in_nothing_out(shape):
    n, c, height, width = shape
    x = torch.empty(shape, device="cuda", dtype=torch.float16)
    f = setup_filter([1, 3, 3, 1]).cuda()
    assert bias_act(x, x.new_zeros(c)).shape == shape
    if height:
        assert upfirdn2d(x, f, up=2, padding=(2, 1, 2, 1)).shape == (n, c, 2 * height, 2 * width)
        assert conv_epilogue(x, bias=torch.zeros(c, device="cuda"))[0].shape == shape
    x.requires_grad_()
    b = torch.zeros(c, device="cuda", dtype=torch.float16, requires_grad=True)
    dx, db = torch.autograd.grad(bias_act(x, b, act="lrelu").sum(), (x, b))
    assert dx.shape == shape
    assert torch.equal(db, torch.zeros_like(b))


def test_tensors_on_two_devices_are_an_error():
    x, b = torch.zeros(1, 8, 4, 4, device="cuda"), torch.zeros(8)
    f = setup_filter([1, 3, 3, 1])
    with pytest.raises(RuntimeError, match=r"bias_act: b must be on the device of the first tensor, cuda:0, got cpu"):
        torch.ops.mmif.bias_act(x, b, 1, "linear", 0.0, 1.0, -1.0)
    with pytest.raises(RuntimeError, match=r"bias_act: b must be on the device of the first tensor, cpu, got cuda:0"):
        torch.ops.mmif.bias_act(x.cpu(), b.cuda(), 1, "linear", 0.0, 1.0, -1.0)
    with pytest.raises(RuntimeError, match=r"upfirdn2d: f must be on the device of the first tensor, cuda:0, got cpu"):
        torch.ops.mmif.upfirdn2d(x, f, (1, 1, 1, 1), (1, 1, 1, 1), False, 1.0)
    with pytest.raises(
        RuntimeError, match=r"demodulate: w2 must be on the device of the first tensor, cuda:0, got cpu"
    ):
        torch.ops.mmif.demodulate(torch.ones(1, 1, 3, device="cuda"), torch.ones(1, 8, 3), 1e-8)


def test_public_functions_say_who_is_elsewhere():
    x, b = torch.zeros(1, 8, 4, 4, device="cuda"), torch.zeros(8)
    calls = (
        lambda: bias_act(x, b, backend="cuda"),
        lambda: upfirdn2d(x, setup_filter([1, 3, 3, 1]), padding=1, backend="cuda"),
        lambda: modulated_conv2d(x, torch.zeros(8, 8, 3, 3), b[None], backend="cuda"),
        lambda: conv_epilogue(x, bias=b, backend="cuda"),
        lambda: demodulate(b[None, None].cuda(), b[None, None], backend="cuda"),
    )
    for call in calls:
        with pytest.raises(dispatch.BackendUnavailable, match="this backend needs tensors on cuda; one is on cpu"):
            call()
    for call in (lambda: bias_act(x, b), lambda: upfirdn2d(x, setup_filter([1, 3, 3, 1]), padding=1)):
        with pytest.raises(RuntimeError, match=r"device|type"):  # the reference runs, and PyTorch says it
            call()
