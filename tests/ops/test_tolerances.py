"""The comparator itself: a bound that nobody can break is no test."""

import pytest
import torch
from tolerances import EXCEPTIONS, FLOOR, FORWARD_FACTOR, GRADIENT_FACTOR, Allowance, assert_close_to_reference

DTYPES = [torch.float64, torch.float32, torch.float16, torch.bfloat16]
dtypes = pytest.mark.parametrize("dtype", DTYPES, ids=lambda dtype: str(dtype).removeprefix("torch."))
grads = pytest.mark.parametrize("grad", [False, True], ids=["forward", "gradient"])


def reference(a, b):
    return torch.tanh(a @ b)


def inputs_of(dtype):
    return torch.randn(7, 16).to(dtype), torch.randn(16, 11).to(dtype)


def check(out, inputs, dtype, *, grad=False, ref=reference):
    assert_close_to_reference(out, ref, inputs, grad=grad, op="test", dtype=dtype)


@dtypes
@grads
def test_the_baseline_passes(dtype, grad):
    inputs = inputs_of(dtype)
    check(reference(*inputs), inputs, dtype, grad=grad)


@dtypes
@grads
def test_a_scale_error_of_ten_k_eps_fails(dtype, grad):
    inputs = inputs_of(dtype)
    k = GRADIENT_FACTOR if grad else FORWARD_FACTOR
    # The floor of float64 is far above its eps: there the scale must exceed the floor.
    unit = FLOOR[dtype] if dtype == torch.float64 else torch.finfo(dtype).eps
    scaled = (reference(*inputs).double() * (1 + 10 * k * unit)).to(dtype)
    with pytest.raises(AssertionError, match="maximum error must be"):
        check(scaled, inputs, dtype, grad=grad)


@dtypes
@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")], ids=str)
def test_a_non_finite_element_fails(dtype, value):
    inputs = inputs_of(dtype)
    out = reference(*inputs)
    out[3, 5] = value
    with pytest.raises(AssertionError, match=r"at \(3, 5\), the truth is"):
        check(out, inputs, dtype)


@dtypes
def test_one_wrong_element_fails_and_is_named(dtype):
    inputs = inputs_of(dtype)
    out = reference(*inputs)
    out[6, 10] += 0.5
    with pytest.raises(AssertionError, match=r"worst at \(6, 10\)"):
        check(out, inputs, dtype)


def test_a_small_error_everywhere_fails_by_its_mean():
    inputs = (torch.ones(100),)
    one_bad = torch.eye(1, 100)[0] * 1e-3

    def imprecise(x):  # the baseline is off by 1e-3 in one element, exact elsewhere
        return x if x.dtype == torch.float64 else x + one_bad

    with pytest.raises(AssertionError, match="mean error must be"):
        check(torch.ones(100) + 1e-3, inputs, torch.float32, ref=imprecise)


def test_non_finite_truth_must_be_met():
    inputs = (torch.tensor([float("nan"), float("inf"), 1.0]),)
    check(inputs[0].clone(), inputs, torch.float32, ref=torch.Tensor.clone)
    for other in ([0.0, float("inf"), 1.0], [float("nan"), -float("inf"), 1.0]):
        with pytest.raises(AssertionError, match="the truth is"):
            check(torch.tensor(other), inputs, torch.float32, ref=torch.Tensor.clone)


def test_a_reference_that_overflows_is_no_baseline():
    inputs = (torch.full((2,), 6e4, dtype=torch.float16),)
    with pytest.raises(AssertionError, match="choose other inputs"):
        check(inputs[0], inputs, torch.float16, ref=lambda x: x * 2)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda out: out[:-1], "shape must be"),
        (lambda out: out.double(), "dtype must be"),
        (lambda out: (out, out), "returns 1 tensors"),
    ],
    ids=["shape", "dtype", "count"],
)
def test_another_shape_dtype_or_count_fails(change, message):
    inputs = inputs_of(torch.float32)
    with pytest.raises(AssertionError, match=message):
        check(change(reference(*inputs)), inputs, torch.float32)


def test_every_output_is_compared():
    inputs = inputs_of(torch.float32)
    good = reference(*inputs)
    with pytest.raises(AssertionError, match="output 1"):
        check((good, good + 1), inputs, torch.float32, ref=lambda a, b: (reference(a, b),) * 2)


def test_an_empty_output_passes():
    check(torch.empty(0, 11), (torch.empty(0, 16), torch.randn(16, 11)), torch.float32)


def test_an_exception_replaces_the_factor_of_its_op_and_dtype(monkeypatch):
    inputs = inputs_of(torch.float16)
    scaled = (reference(*inputs).double() * (1 + 20 * torch.finfo(torch.float16).eps)).half()
    monkeypatch.setitem(EXCEPTIONS, ("test", torch.float16), Allowance(1e3, "a test", 40.0, "cpu"))
    check(scaled, inputs, torch.float16)
    with pytest.raises(AssertionError, match="error must be"):
        assert_close_to_reference(scaled, reference, inputs, op="other", dtype=torch.float16)
