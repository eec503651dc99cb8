"""bias_act against NumPy formulas; gradients of order one to three; bad input."""

import math

import numpy as np
import pytest
import scipy.special
import torch
from torch.autograd import grad, gradcheck, gradgradcheck

from mmif.ops import bias_act
from mmif.ops.bias_act import ACTIVATIONS

SMOOTH = ["tanh", "sigmoid", "elu", "selu", "softplus", "swish"]

# Activation and default gain, straight from the papers that define them.
ORACLES = {
    "linear": (lambda z: z, 1.0),
    "relu": (lambda z: np.maximum(z, 0), math.sqrt(2)),
    "lrelu": (lambda z: np.where(z > 0, z, 0.2 * z), math.sqrt(2)),
    "tanh": (np.tanh, 1.0),
    "sigmoid": (scipy.special.expit, 1.0),
    "elu": (lambda z: np.where(z > 0, z, np.expm1(np.minimum(z, 0))), 1.0),
    "selu": (
        lambda z: 1.0507009873554805 * np.where(z > 0, z, 1.6732632423543772 * np.expm1(np.minimum(z, 0))),
        1.0,
    ),
    "softplus": (lambda z: np.logaddexp(0, z), 1.0),
    "swish": (lambda z: z * scipy.special.expit(z), math.sqrt(2)),
}

acts = pytest.mark.parametrize("act", ACTIVATIONS)


def op(act, clamp=-1.0, dim=1):
    """The registered op as a function of x and b, with the activation's default slope and gain."""
    spec = ACTIVATIONS[act]
    return lambda x, b=None: torch.ops.mmif.bias_act(x, b, dim, act, spec.alpha, spec.gain, clamp)


def away_from_kinks():
    """An x and b whose sum comes no closer than 0.05 to 0, where relu and its kin have no derivative."""
    x = torch.tensor([[-1.7, 0.4, 2.3], [0.9, -0.6, -2.9]], dtype=torch.float64)
    b = torch.tensor([0.2, -0.15, 0.1], dtype=torch.float64)
    return x.requires_grad_(), b.requires_grad_()


@acts
def test_equals_numpy(act):
    x, b = torch.randn(2, 3, 4, dtype=torch.float64) * 3, torch.randn(3, dtype=torch.float64)
    oracle, gain = ORACLES[act]
    z = x.numpy() + b.numpy()[:, None]
    np.testing.assert_allclose(bias_act(x, b, act=act).numpy(), gain * oracle(z), rtol=1e-13, atol=1e-13)
    expected = np.clip(0.7 * oracle(x.numpy()), -0.5, 0.5)
    np.testing.assert_allclose(bias_act(x, act=act, gain=0.7, clamp=0.5).numpy(), expected, rtol=1e-13, atol=1e-13)


@pytest.mark.parametrize("dim", [0, 1, 2, 3, -1, -3])
def test_bias_runs_along_dim(dim):
    x = torch.randn(2, 3, 4, 5)
    b = torch.randn(x.shape[dim])
    assert torch.equal(bias_act(x, b, dim=dim), x + b.reshape([-1 if i == dim % 4 else 1 for i in range(4)]))


def test_alpha_is_the_slope_of_lrelu():
    x = torch.tensor([-2.0, 3.0])
    assert torch.equal(bias_act(x, act="lrelu", alpha=0.5, gain=1.0), torch.tensor([-1.0, 3.0]))
    assert torch.equal(bias_act(x, act="lrelu", alpha=0.0, gain=1.0), torch.tensor([0.0, 3.0]))


def test_a_scalar_and_an_empty_tensor_are_fine():
    assert bias_act(torch.tensor(2.0), gain=3.0).item() == 6.0
    assert bias_act(torch.empty(0, 4), torch.ones(4)).shape == (0, 4)


@acts
@pytest.mark.parametrize("clamp", [None, 0.5], ids=["", "clamp"])
def test_nan_stays_nan(act, clamp):
    assert bias_act(torch.tensor([float("nan")]), act=act, clamp=clamp).isnan().all()


@acts
@pytest.mark.parametrize("bias", [True, False], ids=["bias", "no_bias"])
@pytest.mark.parametrize("clamp", [-1.0, 1.03], ids=["", "clamp"])
def test_gradients_of_order_one_and_two(act, bias, clamp):
    x, b = away_from_kinks()
    inputs = (x, b) if bias else (x,)
    run = op(act, clamp)
    assert ((op(act)(*inputs).abs() - clamp).abs() > 1e-3).all()  # none at the edge, where there is no derivative
    gradcheck(run, inputs)
    gradgradcheck(run, inputs)


@pytest.mark.parametrize("act", SMOOTH)
def test_gradients_of_order_three_and_no_more(act):
    x, b = away_from_kinks()
    run = op(act)

    def slope(x, b):
        (g,) = grad(run(x, b).sum(), x, create_graph=True)
        return g

    gradgradcheck(slope, (x, b))
    second = grad(slope(x, b).sum(), x, create_graph=True)[0]
    third = grad(second.sum(), x, create_graph=True)[0]
    with pytest.raises(ValueError, match=f"gradients of {act} stop at order three"):
        grad(third.sum(), x)


@acts
@pytest.mark.parametrize("clamp", [-1.0, 256.0], ids=["", "clamp"])
def test_only_what_the_backward_pass_needs_is_kept(act, clamp):
    """In bytes: an output, or an input and its bias, or nothing; a clamp adds a byte for each element at most."""
    saved = []
    with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
        op(act, clamp)(torch.randn(2, 3, requires_grad=True), torch.randn(3, requires_grad=True))
    kept = {"linear": 0, "relu": 6 * 4, "lrelu": 6 * 4}.get(act, (6 + 3) * 4)
    mask = 0 if clamp < 0 or act in ("relu", "lrelu") else 6
    assert sum(t.nbytes for t in saved) == kept + mask


def changed_in_place(run, x, b, which):
    """The gradients of a call whose input or output is overwritten before its backward pass."""
    x, b = x.detach().clone().requires_grad_(), b.detach().clone().requires_grad_()
    inner = x * 1.0  # a leaf must not be overwritten, what a layer made may be
    y = run(inner, b)
    {"input": inner, "output": y}[which].add_(3.0)
    return grad(y.sum(), (x, b))


@acts
@pytest.mark.parametrize("clamp", [None, 1.03], ids=["", "clamp"])
@pytest.mark.parametrize("which", ["input", "output"])
def test_what_is_not_kept_may_be_overwritten(act, clamp, which):
    """Residual joins add to the output in place. What is kept says so, and never gives a wrong gradient."""
    x, b = away_from_kinks()

    def run(x, b):
        return torch.ops.mmif.bias_act(x, b, 1, act, 0.2, 1.0, -1.0 if clamp is None else clamp)

    if which == ACTIVATIONS[act].needs:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            changed_in_place(run, x, b, which)
        return
    expected = grad(run(x, b).sum(), (x, b))
    for got, want in zip(changed_in_place(run, x, b, which), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("act", ["linear", "swish"])
def test_the_mask_of_a_clamp_is_kept_in_a_compiled_graph_too(act):
    x, b = torch.randn(4, 3, 5, requires_grad=True), torch.randn(3, requires_grad=True)
    torch.library.opcheck(torch.ops.mmif.bias_act.default, (x, b, 1, act, 0.0, 1.5, 0.6))
    run = op(act, 0.6)
    expected = grad(run(x, b).square().sum(), (x, b))
    torch.compiler.reset()
    compiled = torch.compile(run, fullgraph=True, backend="aot_eager")
    for got, want in zip(grad(compiled(x, b).square().sum(), (x, b)), expected, strict=True):
        torch.testing.assert_close(got, want, rtol=0, atol=0)


@pytest.mark.parametrize("backend", ["auto", "reference"])
@pytest.mark.parametrize("clamp", [None, 256.0], ids=["", "clamp"])
def test_a_residual_join_in_place(backend, clamp):
    x = torch.randn(2, 3, requires_grad=True)
    y = bias_act(x, None, act="linear", gain=0.5**0.5, clamp=clamp, backend=backend)
    y.add_(x.detach())
    y.sum().backward()
    assert torch.equal(x.grad, torch.full((2, 3), 0.5**0.5))


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"act": "gelu"}, r"act must be one of linear, relu, .*; got 'gelu'"),
        ({"x": torch.zeros(2, 3, dtype=torch.int64)}, r"x must be floating point, got torch.int64"),
        ({"clamp": -0.1}, r"clamp must be None or >= 0, got -0.1"),
        ({"alpha": -0.1}, r"alpha must be None or >= 0, got -0.1"),
        ({"b": torch.zeros(3), "dim": 2}, r"dim must be a dimension of x with shape \(2, 3\), got 2"),
        ({"b": torch.zeros(3), "dim": -3}, r"dim must be a dimension of x with shape \(2, 3\), got -3"),
        ({"b": torch.zeros(4)}, r"b must be torch.float32 of shape \(3,\) = x.shape\[1\], got torch.float32 \(4,\)"),
        ({"b": torch.zeros(1, 3)}, r"b must be torch.float32 of shape \(3,\) .*, got torch.float32 \(1, 3\)"),
        ({"b": torch.zeros(3).half()}, r"b must be torch.float32 .*, got torch.float16 \(3,\)"),
        ({"b": torch.zeros(3).long()}, r"b must be torch.float32 .*, got torch.int64 \(3,\)"),
    ],
    ids=["act", "integer", "clamp", "alpha", "dim", "dim-", "b_size", "b_rank", "b_half", "b_integer"],
)
def test_bad_input(kwargs, message):
    kwargs = {"x": torch.zeros(2, 3), **kwargs}
    with pytest.raises(ValueError, match=f"bias_act: {message}"):
        bias_act(**kwargs)
