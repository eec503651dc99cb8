"""The public functions under torch.func, and the one line where a body is asked for by name."""

import math

import pytest
import torch
from torch.func import functional_call, grad, jacrev, jvp, vjp, vmap

from mmif import ops
from mmif.ops import dispatch
from mmif.ops.dispatch import BackendUnavailable

FIR = ops.setup_filter([1, 3, 3, 1])
DOUBLE = {"dtype": torch.float64}


def _images(*shape):
    return torch.randn(shape or (2, 4, 4, 4), **DOUBLE)


def _fixed(*shapes):
    """Parameters that are the same in every call: nothing random may happen under vmap."""
    return [torch.arange(math.prod(shape), **DOUBLE).mul(1.7).cos().reshape(shape) for shape in shapes]


def _acb(x, backend):
    weights = _fixed((2, 4, 4, 3, 3), (2, 4), (4, 12, 3, 3), (4,), (4, 4), (4,))
    return ops.acb_fusion(x, torch.cat([x, x], 1), *weights, dilations=(1, 2), backend=backend)


def _acb_code(x, backend):
    weights = _fixed((2, 4, 4, 3, 3), (2, 4), (4, 12, 3, 3), (4,), (2, 4))
    return ops.acb_fusion_code(x, x, x, *weights, dilations=(1, 2), backend=backend)


FUNCTIONS = {
    "bias_act": lambda x, backend=None: ops.bias_act(x, x.sum((0, 2, 3)), act="lrelu", clamp=1, backend=backend),
    "bias_act_smooth": lambda x, backend=None: ops.bias_act(x, act="swish", backend=backend),
    "upfirdn2d": lambda x, backend=None: ops.upfirdn2d(x, FIR, up=2, padding=(2, 1, 2, 1), backend=backend),
    "modulated_conv2d": lambda x, backend=None: ops.modulated_conv2d(
        x, *_fixed((3, 4, 3, 3)), x.sum((2, 3)), up=2, resample_filter=FIR, backend=backend
    ),
    "gated_mask_attention": lambda x, backend=None: ops.gated_mask_attention(
        x, x, x, x[:, :2].sigmoid(), patch_sizes=(1, 2), backend=backend
    ),
    "acb_fusion": lambda x, backend=None: _acb(x, backend),
    "acb_fusion_code": lambda x, backend=None: _acb_code(x, backend),
    "adaptive_norm": lambda x, backend=None: ops.adaptive_norm(x, x, x, backend=backend),
    "gated_residual": lambda x, backend=None: ops.gated_residual(x, x, x, backend=backend),
}
EACH = pytest.mark.parametrize("run", FUNCTIONS.values(), ids=FUNCTIONS)


@pytest.fixture
def bodies(registered):
    """Compiled bodies stand ready for all ops, and none is asked for by name."""
    with dispatch.use("auto"):
        yield


@EACH
def test_gradients_are_those_of_autograd(run, bodies):
    x = _images().requires_grad_()
    (expected,) = torch.autograd.grad(run(x, "reference").square().sum(), x)
    x = x.detach()
    torch.testing.assert_close(grad(lambda x: run(x).square().sum())(x), expected)
    out, pullback = vjp(run, x)
    torch.testing.assert_close(pullback(2 * out)[0], expected)
    tangent = _images()
    _, change = jvp(lambda x: run(x, "reference").square().sum(), (x,), (tangent,))
    torch.testing.assert_close(change, (tangent * expected).sum())


@EACH
def test_second_derivatives_are_differences_of_the_first(run):
    def penalty(x):
        return grad(lambda x: run(x).square().sum())(x).square().sum()

    x, direction, step = _images(1, 4, 4, 4), _images(1, 4, 4, 4), 1e-6
    difference = (penalty(x + step * direction) - penalty(x - step * direction)) / (2 * step)
    torch.testing.assert_close((grad(penalty)(x) * direction).sum(), difference, rtol=1e-5, atol=1e-6)


@EACH
def test_a_batch_of_calls_is_each_call(run, bodies):
    x = _images(3, 2, 4, 4, 4)
    torch.testing.assert_close(vmap(run)(x), torch.stack([run(t, "reference") for t in x]))
    each = vmap(grad(lambda x: run(x).square().sum()))(x)
    torch.testing.assert_close(each[1], grad(lambda x: run(x).square().sum())(x[1]))


def test_inference_ops_are_differentiated_by_their_references():
    styles, w2 = torch.rand(1, 2, 3), torch.rand(1, 4, 3)
    assert jacrev(lambda s: ops.demodulate(s, w2)[1])(styles).shape == (1, 2, 4, 1, 2, 3)
    y, row = torch.randn(2, 8, 3, 3), torch.rand(2, 8)
    slope = grad(lambda y: ops.conv_epilogue(y, next_styles=row, gain=2.0)[0].sum())(y)
    torch.testing.assert_close(slope, 2 * row[:, :, None, None].expand_as(y))
    x, weight = torch.randn(1, 2, 3, 3), torch.randn(2, 2, 3, 3)
    assert grad(lambda x: ops.narrow_conv3x3(x, weight)[0].sum())(x).abs().max() > 0


def test_a_module_is_differentiated_with_respect_to_its_parameters():
    class Layer(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.weight, self.bias = (torch.nn.Parameter(t) for t in _fixed((3, 4, 3, 3), (3,)))

        def forward(self, x):
            return ops.bias_act(ops.modulated_conv2d(x, self.weight, x.mean((2, 3))), self.bias, act="lrelu")

    layer, x = Layer(), _images()
    parameters = dict(layer.named_parameters())
    found = grad(lambda p: functional_call(layer, p, (x,)).square().sum())(parameters)
    layer(x).square().sum().backward()
    for name, parameter in parameters.items():
        torch.testing.assert_close(found[name], parameter.grad)


@EACH
def test_a_body_asked_for_by_name_is_refused_in_one_line(run, bodies):
    with pytest.raises(
        BackendUnavailable, match=r"^\w+.*: backend 'cuda' has no transforms of torch\.func; use [^\n]*$"
    ):
        grad(lambda x: run(x, "cuda").sum())(_images())
