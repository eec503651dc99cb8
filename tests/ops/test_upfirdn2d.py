"""upfirdn2d against scipy.signal.upfirdn along both axes; gradients of any order; bad input."""

import numpy as np
import pytest
import scipy.signal
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.autograd import gradcheck, gradgradcheck

from mmif.ops import setup_filter, upfirdn2d


def full(signal, taps, up, axis):
    """Zero insertion and full convolution by SciPy, with the up - 1 zeros after the last sample that it leaves out."""
    y = scipy.signal.upfirdn(taps, signal, up=up, axis=axis)
    width = [(0, 0)] * y.ndim
    width[axis] = (0, up - 1)
    return np.pad(y, width)


def window(y, before, after, axis):
    """Pad ``y`` with zeros, or crop it where negative."""
    width = [(0, 0)] * y.ndim
    width[axis] = (max(before, 0), max(after, 0))
    y = np.pad(y, width)
    return np.take(y, range(max(-before, 0), y.shape[axis] - max(-after, 0)), axis)


def resample(x, taps, up, down, before, after, axis):
    """One axis: padding by p and keeping the valid part is cropping the full convolution by taps - 1 - p."""
    edge = len(taps) - 1
    y = window(full(x, taps, up, axis), before - edge, after - edge, axis)
    return np.take(y, range(0, y.shape[axis], down), axis)


def oracle(x, f, up, down, padding, flip_filter, gain):
    """A 2-D filter is the sum over its rows of a 1-D filter along x and a shifted impulse along y."""
    f = np.outer(f, f) if f.ndim == 1 else f
    f = f[::-1, ::-1] if flip_filter else f
    left, right, top, bottom = padding
    total = 0
    for row, taps in enumerate(f):
        impulse = np.eye(len(f))[row]
        y = resample(x, taps, up[0], down[0], left, right, 3)
        total = total + resample(y, impulse, up[1], down[1], top, bottom, 2)
    return gain * total


SEPARABLE = np.array([0.5, 1.25, -0.75, 2.0])  # exact in float32
SQUARE = np.array([[1.0, 2.0, -1.0], [0.25, 3.0, 0.5]])


@st.composite
def problems(draw):
    """Arguments of upfirdn2d whose output has at least one pixel."""
    f = draw(st.sampled_from([SEPARABLE, SQUARE, SQUARE.T.copy(), np.array([1.5]), SEPARABLE[:3]]))
    height, width = draw(st.tuples(st.integers(1, 6), st.integers(1, 6)))
    up, down = (draw(st.tuples(st.integers(1, 3), st.integers(1, 3))) for _ in range(2))
    fh, fw = f.shape if f.ndim == 2 else (len(f),) * 2

    def pads(size, taps):
        before = draw(st.integers(-size + 1, 5))
        return before, draw(st.integers(max(taps - size - before, -size), 6))

    padding = (*pads(width * up[0], fw), *pads(height * up[1], fh))
    return (height, width), f, up, down, padding, draw(st.booleans()), draw(st.sampled_from([1.0, 4.0, -0.5]))


@given(problems())
@settings(max_examples=150, deadline=None, derandomize=True)
def test_equals_scipy_and_its_gradient_is_the_adjoint(problem):
    size, f, up, down, padding, flip_filter, gain = problem
    rng = np.random.default_rng(0)
    x = torch.tensor(rng.standard_normal((2, 2, *size)), requires_grad=True)
    arguments = (torch.tensor(f, dtype=torch.float32), (*up, *down), padding, flip_filter, gain)
    expected = oracle(x.detach().numpy(), f, up, down, padding, flip_filter, gain)

    public = upfirdn2d(x, arguments[0], up=up, down=down, padding=padding, flip_filter=flip_filter, gain=gain)
    np.testing.assert_allclose(public.detach().numpy(), expected, rtol=1e-12, atol=1e-12)

    dy = torch.tensor(rng.standard_normal(expected.shape))
    dx = torch.autograd.grad(torch.ops.mmif.upfirdn2d(x, *arguments), x, dy)[0]
    assert (dx * x).sum().item() == pytest.approx(float((dy.numpy() * expected).sum()), rel=1e-11, abs=1e-11)
    np.testing.assert_allclose(dx.numpy(), torch.autograd.grad(public, x, dy)[0].numpy(), rtol=1e-12, atol=1e-12)


def test_padding_in_its_three_forms():
    x, f = torch.randn(1, 1, 4, 5), setup_filter([1, 2, 1])
    assert torch.equal(upfirdn2d(x, f, padding=2), upfirdn2d(x, f, padding=(2, 2, 2, 2)))
    assert torch.equal(upfirdn2d(x, f, padding=(1, 2)), upfirdn2d(x, f, padding=(1, 1, 2, 2)))


def test_a_non_dyadic_filter_is_exact_in_float64():
    """The outer product of a separable filter is not rounded to float32."""
    x, f = torch.randn(1, 1, 6, 6, dtype=torch.float64), setup_filter([1, 4, 2])
    expected = oracle(x.numpy(), f.double().numpy(), (1, 1), (1, 1), (1, 1, 1, 1), False, 1.0)
    np.testing.assert_allclose(upfirdn2d(x, f, padding=1).numpy(), expected, rtol=1e-13, atol=1e-13)


def test_setup_filter():
    f = setup_filter([1, 3, 3, 1])
    assert f.dtype == torch.float32
    assert f.tolist() == [0.125, 0.375, 0.375, 0.125]
    assert setup_filter([[1, 1], [1, 1]]).sum() == 1
    for taps in ([], [[[1.0]]]):
        with pytest.raises(ValueError, match="setup_filter: taps must be a non-empty list or matrix, got shape"):
            setup_filter(taps)


@pytest.mark.parametrize(
    ("f", "factors", "padding", "flip_filter"),
    [
        (SEPARABLE, (2, 2, 1, 1), (2, 1, 2, 1), False),
        (SQUARE, (1, 1, 2, 2), (1, 0, -1, 2), True),
        (SQUARE, (3, 1, 2, 3), (0, 2, 1, 1), False),
    ],
    ids=["up", "down_crop", "mixed"],
)
def test_gradients_of_order_one_and_two(f, factors, padding, flip_filter):
    x = torch.randn(1, 2, 3, 4, dtype=torch.float64, requires_grad=True)
    taps = torch.tensor(f, dtype=torch.float32)

    def run(x):
        return torch.ops.mmif.upfirdn2d(x, taps, factors, padding, flip_filter, 1.5)

    gradcheck(run, (x,))
    gradgradcheck(run, (x,))
    gradgradcheck(lambda x: run(x.square()).square(), (x,))  # where the second order is not zero


def test_padding_beyond_what_is_sampled_has_zero_gradient():
    x = torch.ones(1, 1, 1, 1, dtype=torch.float64, requires_grad=True)
    y = torch.ops.mmif.upfirdn2d(x, torch.ones(1), (1, 1, 4, 4), (22, 0, 22, 0), False, 1.0)
    assert not y.any()
    assert torch.autograd.grad(y.sum(), x)[0].item() == 0


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"x": torch.zeros(3, 4, 4)}, r"x must be floating point \[N, C, H, W\] .*, got torch.float32 \(3, 4, 4\)"),
        ({"x": torch.zeros(1, 1, 4, 4).int()}, r"x must be floating point .*, got torch.int32 \(1, 1, 4, 4\)"),
        ({"f": torch.zeros(1, 1, 3)}, r"f must be float32 \[taps\] or \[fh, fw\], got torch.float32 \(1, 1, 3\)"),
        ({"f": torch.zeros(3).double()}, r"f must be float32 .*, got torch.float64 \(3,\)"),
        ({"f": torch.zeros(0)}, r"f must be float32 .*, got torch.float32 \(0,\)"),
        ({"f": torch.zeros(3).requires_grad_()}, r"f must not require a gradient"),
        ({"up": 0}, r"up must be one or two integers >= 1, got 0"),
        ({"up": (1, 2, 3)}, r"up must be one or two integers >= 1, got \(1, 2, 3\)"),
        ({"down": (2, 0)}, r"down must be one or two integers >= 1, got \(2, 0\)"),
        ({"padding": (1, 2, 3)}, r"padding must be 1, 2 or 4 integers, got \(1, 2, 3\)"),
        ({"f": torch.zeros(5)}, r"at least as large as the filter \(5, 5\), got \(4, 4\) with up=\(1, 1\) and padding"),
        ({"padding": -2}, r"at least as large as the filter \(3, 3\), got \(4, 4\) .* padding=\(-2, -2, -2, -2\)"),
    ],
    ids=[
        *("x_rank", "x_integer", "f_rank", "f_double", "f_empty", "f_gradient"),
        *("up_0", "up_3", "down_0", "padding_3", "f_large", "cropped"),
    ],
)
def test_bad_input(kwargs, message):
    kwargs = {"x": torch.zeros(1, 1, 4, 4), "f": torch.ones(3), **kwargs}
    with pytest.raises(ValueError, match=f"upfirdn2d: .*{message}"):
        upfirdn2d(**kwargs)
