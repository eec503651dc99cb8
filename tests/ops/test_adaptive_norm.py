"""adaptive_norm against the formula in float64, F.group_norm and F.layer_norm; gradients; bad input."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from mmif.ops import adaptive_norm


def tensors(*shape, count=4, dtype=torch.float64):
    return [torch.randn(shape, dtype=dtype) for _ in range(count)]


def registered(x, gamma, beta, shift=None, eps=1e-5):
    return torch.ops.mmif.adaptive_norm(x, gamma, beta, shift, eps)[0]


routes = pytest.mark.parametrize("run", [adaptive_norm, registered], ids=["reference", "registered"])


@routes
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (3, 11), (2, 3, 4), (1, 1, 1, 1)], ids=str)
def test_equals_the_formula(run, shape):
    x, gamma, beta, shift = tensors(*shape)
    expected = torch.empty_like(x)
    for i, sample in enumerate(x):
        mean = sample.sum() / sample.numel()
        variance = (sample - mean).square().sum() / sample.numel()
        expected[i] = gamma[i] * (sample - mean) / (variance + 0.01).sqrt() + beta[i]
    torch.testing.assert_close(run(x, gamma, beta, eps=0.01), expected, rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(run(x, gamma, beta, shift, eps=0.01), expected + shift, rtol=1e-12, atol=1e-12)


@routes
def test_is_group_norm_of_an_image_and_layer_norm_of_a_vector(run):
    image, vector = tensors(2, 3, 5, 7, count=1)[0], tensors(3, 11, count=1)[0]
    for x, expected in ((image, F.group_norm(image, 1)), (vector, F.layer_norm(vector, (11,)))):
        torch.testing.assert_close(run(x, torch.ones_like(x), torch.zeros_like(x)), expected)


@routes
def test_statistics_survive_float16(run):
    x = torch.full((1, 4, 64, 64), 300.0).half()
    x[0, 0] = -300.0  # the sum of squares, 1.5e9, overflows float16
    y = run(x, torch.ones_like(x), torch.zeros_like(x))
    expected = F.group_norm(x.double(), 1)
    assert (y - expected).abs().max() < 1e-3


@pytest.mark.parametrize("given", [4, 3], ids=["two_offsets", "one_offset"])
@pytest.mark.parametrize("shape", [(2, 2, 2, 3), (3, 5)], ids=str)
def test_gradients(shape, given):
    args = [t.requires_grad_() for t in tensors(*shape, count=given)]
    assert gradcheck(registered, args)


def test_gradients_of_some_arguments_only():
    x, gamma, beta, shift = tensors(2, 2, 3)
    cotangent = torch.randn_like(x)
    for wanted in (x, gamma, beta, shift):
        wanted.requires_grad_()
        got, expected = (
            torch.autograd.grad(f(x, gamma, beta, shift), wanted, cotangent) for f in (registered, adaptive_norm)
        )
        torch.testing.assert_close(got, expected)
        wanted.requires_grad_(False)


def test_a_second_order_gradient_is_an_error_not_a_zero():
    x, gamma, beta = (t.requires_grad_() for t in tensors(2, 3, 4, count=3))
    dx = torch.autograd.grad(registered(x, gamma, beta).square().sum(), x, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="adaptive_norm_bwd"):
        dx.square().sum().backward()


def test_saved_statistics_have_no_gradient():
    x, gamma, beta = (t.requires_grad_() for t in tensors(2, 3, 4, count=3))
    y, mean, rstd = torch.ops.mmif.adaptive_norm(x, gamma, beta, None, 1e-5)
    assert y.requires_grad
    assert not mean.requires_grad
    assert not rstd.requires_grad
    torch.testing.assert_close(mean, x.mean((1, 2)))
    torch.testing.assert_close(rstd, (x.var((1, 2), correction=0) + 1e-5).rsqrt())


def test_keeps_the_dtype_of_x_under_autocast():
    x, gamma, beta, shift = tensors(2, 3, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = adaptive_norm(x, gamma.bfloat16(), beta.double(), shift)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, adaptive_norm(x, gamma.bfloat16().float(), beta, shift))


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_an_exported_graph_holds_standard_operators_only(strict):
    class Norm(torch.nn.Module):
        def forward(self, x):
            return adaptive_norm(x, x + 1, x, x * 2)

    batch = torch.export.Dim("batch", min=1, max=64)
    args = (torch.randn(2, 3, 4, 5),)
    program = torch.export.export(Norm(), args, dynamic_shapes=({0: batch},), strict=strict)
    assert not [node for node in program.graph.nodes if "mmif" in str(node.target)]
    args = (torch.randn(5, 3, 4, 5),)
    torch.testing.assert_close(program.module()(*args), Norm()(*args))


X = torch.zeros(2, 3, 4)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((X[0, 0], X, X), r"x must be a floating tensor \[N, C, ...\], got torch.float32 \(4,\)"),
        ((X.int(), X, X), r"x must be a floating tensor \[N, C, ...\], got torch.int32 \(2, 3, 4\)"),
        (
            (X, X[:, :1], X),
            r"gamma must be torch.float32 of the shape of x, \(2, 3, 4\), got torch.float32 \(2, 1, 4\)",
        ),
        ((X, X, X.half()), r"beta must be torch.float32 of the shape of x, \(2, 3, 4\), got torch.float16 \(2, 3, 4\)"),
        ((X, X, X, X[0]), r"shift must be torch.float32 of the shape of x, \(2, 3, 4\), got torch.float32 \(3, 4\)"),
    ],
    ids=["one_dimension", "integers", "gamma", "beta", "shift"],
)
def test_bad_tensors(args, message):
    with pytest.raises(ValueError, match=f"adaptive_norm: {message}"):
        adaptive_norm(*args)


@pytest.mark.parametrize("eps", [0.0, -1e-5, float("nan")])
def test_bad_eps(eps):
    with pytest.raises(ValueError, match=f"adaptive_norm: eps must be > 0, got {eps}"):
        adaptive_norm(X, X, X, eps=eps)
