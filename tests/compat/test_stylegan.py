"""The rest of the drop-in: activations, rosinality's ops, gradients, impl, signatures, bad input."""

import inspect
from types import FunctionType

import pytest
import torch
import torch.nn.functional as F
from stylegan_oracles import FIR, MATRIX, assert_equal, images, resampled
from torch.autograd import gradcheck, gradgradcheck

from mmif.compat import conv2d_gradfix, rosinality, stylegan
from mmif.compat.stylegan import (
    bias_act,
    conv2d_resample,
    downsample2d,
    filter2d,
    modulated_conv2d,
    patch,
    setup_filter,
    upfirdn2d,
    upsample2d,
)
from mmif.ops import dispatch

ACTIVATIONS = {
    "linear": (lambda z: z, 1),
    "relu": (F.relu, 2**0.5),
    "lrelu": (lambda z: F.leaky_relu(z, 0.2), 2**0.5),
    "tanh": (torch.tanh, 1),
    "sigmoid": (torch.sigmoid, 1),
    "elu": (F.elu, 1),
    "selu": (F.selu, 1),
    "softplus": (F.softplus, 1),
    "swish": (F.silu, 2**0.5),
}


@pytest.mark.parametrize("act", ACTIVATIONS)
@pytest.mark.parametrize("impl", ["cuda", "ref"])
def test_bias_act(act, impl):
    x, b = images(), images(5)
    function, gain = ACTIVATIONS[act]
    z = function(x + b[:, None])
    assert_equal(bias_act(x, b, 2, act, impl=impl), gain * z)
    assert_equal(bias_act(x, b, 2, act, None, 3, 0.5, impl), (3 * z).clamp(-0.5, 0.5))
    assert_equal(bias_act(x, act=act), gain * function(x))


def test_alpha_is_the_slope():
    x = images()
    assert_equal(bias_act(x, act="lrelu", alpha=0.5, gain=1), F.leaky_relu(x, 0.5))


@pytest.mark.parametrize("shape", [(4, 3), (4, 3, 2), (2, 3, 4, 5)], ids=str)
def test_fused_leaky_relu(shape):
    x, bias = images(*shape), images(3)
    z = x + bias.reshape(-1, *[1] * (len(shape) - 2))
    assert_equal(stylegan.fused_leaky_relu(x, bias), 2**0.5 * F.leaky_relu(z, 0.2))
    assert_equal(stylegan.fused_leaky_relu(x, bias, 0.1, 3.0), 3 * F.leaky_relu(z, 0.1))
    assert_equal(stylegan.fused_leaky_relu(x), 2**0.5 * F.leaky_relu(x, 0.2))


def test_a_bias_of_another_dtype_takes_that_of_the_input():
    x, bias = images(4, 3), images(3).float()
    assert_equal(stylegan.fused_leaky_relu(x, bias), 2**0.5 * F.leaky_relu(x + bias.double(), 0.2))


def test_fused_leaky_relu_module():
    module = stylegan.FusedLeakyReLU(3, negative_slope=0.3, scale=2.0).double()
    x = images()
    assert list(module.state_dict()) == ["bias"]
    assert_equal(module(x), 2 * F.leaky_relu(x, 0.3))
    module.bias.data = images(3)
    assert_equal(module(x), 2 * F.leaky_relu(x + module.bias.data[:, None, None], 0.3))
    assert list(stylegan.FusedLeakyReLU(3, bias=False).parameters()) == []


def test_rosinality_upfirdn2d():
    x = images()
    expected = resampled(x.numpy(), MATRIX, (2, 2), (3, 3), (2, 1, 2, 1))
    assert_equal(rosinality.upfirdn2d(x, MATRIX, 2, 3, (2, 1)), expected)  # (before, after), not (x, y)
    expected = resampled(x.numpy(), MATRIX, (2, 1), (1, 2), (1, 2, 3, -1))
    assert_equal(rosinality.upfirdn2d(x, MATRIX.half(), up=(2, 1), down=(1, 2), pad=(1, 2, 3, -1)), expected)
    assert_equal(rosinality.upfirdn2d(x, MATRIX), resampled(x.numpy(), MATRIX))


@pytest.mark.parametrize(
    ("run", "shapes"),
    [
        (lambda x, b: bias_act(x, b, act="swish"), [(2, 3, 2), (3,)]),
        (lambda x, b: bias_act(x, b, act="lrelu", clamp=1.0), [(2, 3, 2), (3,)]),
        (rosinality.fused_leaky_relu, [(2, 3, 2), (3,)]),
        (lambda x: rosinality.upfirdn2d(x, MATRIX, 2, 1, (2, 1)), [(1, 1, 3, 3)]),
    ],
    ids=["swish", "lrelu", "fused_leaky_relu", "upfirdn2d"],
)
def test_gradients_of_order_one_and_two(run, shapes):
    inputs = [images(*shape).requires_grad_() for shape in shapes]
    gradcheck(run, inputs)
    gradgradcheck(lambda *args: run(*args).square(), inputs)


@pytest.mark.parametrize(
    ("run", "op"),
    [
        (lambda x, impl: bias_act(x, impl=impl), "bias_act"),
        (lambda x, impl: upfirdn2d(x, FIR, impl=impl), "upfirdn2d"),
        (lambda x, impl: upsample2d(x, FIR, impl=impl), "upfirdn2d"),
        (lambda x, impl: downsample2d(x, FIR, impl=impl), "upfirdn2d"),
        (lambda x, impl: filter2d(x, FIR, impl=impl), "upfirdn2d"),
    ],
    ids=["bias_act", "upfirdn2d", "upsample2d", "downsample2d", "filter2d"],
)
def test_impl(run, op, monkeypatch):
    asked = []
    monkeypatch.setattr(dispatch, "choose", lambda op, *tensors, backend: asked.append((op, backend)) or "reference")
    for impl in ("cuda", "ref"):
        run(images(), impl)
    assert asked == [(op, None), (op, "reference")]
    with pytest.raises(ValueError, match=f"{op}: impl must be 'cuda' or 'ref', got 'triton'"):
        run(images(), "triton")


@pytest.mark.parametrize(
    ("function", "signature"),
    [
        (bias_act, "x, b=None, dim=1, act='linear', alpha=None, gain=None, clamp=None, impl='cuda'"),
        (setup_filter, "f, device='cpu', normalize=True, flip_filter=False, gain=1, separable=None"),
        (upfirdn2d, "x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl='cuda'"),
        (filter2d, "x, f, padding=0, flip_filter=False, gain=1, impl='cuda'"),
        (upsample2d, "x, f, up=2, padding=0, flip_filter=False, gain=1, impl='cuda'"),
        (downsample2d, "x, f, down=2, padding=0, flip_filter=False, gain=1, impl='cuda'"),
        (
            conv2d_resample,
            "x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False",
        ),
        (
            modulated_conv2d,
            "x, weight, styles, noise=None, up=1, down=1, padding=0, resample_filter=None, demodulate=True, "
            "flip_weight=True, fused_modconv=True",
        ),
        (rosinality.fused_leaky_relu, f"input, bias=None, negative_slope=0.2, scale={2**0.5}"),
        (rosinality.upfirdn2d, "input, kernel, up=1, down=1, pad=(0, 0)"),
        (rosinality.FusedLeakyReLU, f"channel, bias=True, negative_slope=0.2, scale={2**0.5}"),
        (conv2d_gradfix.no_weight_gradients, "disable=True"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_signature(function, signature):
    parameters = inspect.signature(function).parameters.values()
    bare = [p.replace(annotation=p.empty) for p in parameters]
    assert ", ".join(map(str, bare)) == signature


X = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: rosinality.upfirdn2d(X, FIR, pad=(1, 2, 3)), r"upfirdn2d: pad must be .*, got \(1, 2, 3\)"),
        (lambda: rosinality.fused_leaky_relu(X, X[0, 0, 0, :1]), r"bias_act: b must be .* of shape \(2,\)"),
        (lambda: bias_act(X, act="gelu"), "bias_act: act must be one of linear, .* got 'gelu'"),
        (lambda: patch(X), "patch: module must be a torch.nn.Module, got Tensor; pass the network"),
    ],
)
def test_bad_input(run, message):
    with pytest.raises(ValueError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)


def test_everything_that_is_swapped_is_public():
    for function in stylegan._SWAPPED:
        assert isinstance(function, FunctionType)
        assert getattr(stylegan, function.__name__) is function or function is rosinality.upfirdn2d
