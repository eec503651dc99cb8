"""The kernels beside the attention, adaptive_norm and gated_residual: forward and backward against their references."""

import pytest
import torch
from ops.cases import LAYOUTS
from tolerances import assert_close_to_reference

from mmif.ops import adaptive_norm, dispatch, gated_residual
from mmif.ops.adaptive_norm import MAX_SAMPLE, adaptive_norm_ref
from mmif.ops.gated_residual import gated_residual_ref

pytestmark = pytest.mark.triton

# One value; primes; vectors; a sample of several chunks whose last one is short, of exactly one chunk, of one more.
SHAPES = [(1, 1, 1, 1), (3, 5, 7, 11), (3, 512), (2, 13), (2, 3, 53, 61), (2, 16, 16, 16), (1, 17, 241)]
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
shapes = pytest.mark.parametrize("shape", SHAPES, ids=lambda shape: "x".join(map(str, shape)))


def randn(shape, dtype, device, count):
    return [torch.randn(shape).to(device, dtype) for _ in range(count)]


def norm(*tensors, backend="triton"):
    return adaptive_norm(*tensors, eps=1e-5, backend=backend)


def norm_ref(x, gamma, beta, shift=None):
    return adaptive_norm_ref(x, gamma, beta, shift, 1e-5)


def gated(*tensors, backend="triton"):
    return gated_residual(*tensors, backend=backend)


def gradients_of(fn):
    """A function of the arguments of ``fn`` and a cotangent that returns the gradients of all arguments."""

    def gradients(*values):
        args = [value.detach().requires_grad_() for value in values[:-1]]
        return torch.autograd.grad(fn(*args), args, values[-1])

    return gradients


def check(fn, ref, args, cotangent):
    """Forward and backward by the rule of tests/tolerances.py; ``fn`` and ``ref`` take ``args`` and return a tensor."""
    name, dtype = fn.__name__, args[0].dtype
    assert_close_to_reference(fn(*args), ref, args, op=name, dtype=dtype)
    values = (*args, cotangent)
    gradients = gradients_of(fn)(*values)
    assert_close_to_reference(gradients, gradients_of(ref), values, grad=True, op=name, dtype=dtype)


OPS = [(norm, norm_ref, 4), (norm, norm_ref, 3), (gated, gated_residual_ref, 3)]
ops = pytest.mark.parametrize(("fn", "ref", "count"), OPS, ids=["norm_two_offsets", "norm", "gated"])


@ops
@shapes
@dtypes
def test_equals_the_reference(fn, ref, count, shape, dtype, device):
    *args, cotangent = randn(shape, dtype, device, count + 1)
    check(fn, ref, args, cotangent)


@ops
@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("shape", [(2, 3, 53, 61), (2, 5, 7, 11)], ids=["chunks", "one_block"])
def test_every_configuration_equals_the_reference(fn, ref, count, index, shape, device):
    from mmif.kernels import tuning

    *args, cotangent = randn(shape, torch.float32, device, count + 1)
    with tuning.forced(index):
        check(fn, ref, args, cotangent)


@ops
@pytest.mark.parametrize("layout", LAYOUTS)
@dtypes
def test_layouts(fn, ref, count, layout, dtype, device):
    """Of the first argument and of the cotangent; the others are contiguous."""
    first, *rest, cotangent = randn((2, 3, 6, 5), dtype, device, count + 1)
    args = (LAYOUTS[layout](first), *rest)
    check(fn, ref, args, LAYOUTS[layout](cotangent))
    assert fn(*args).is_contiguous(memory_format=torch.channels_last) == (layout == "channels_last")


@pytest.mark.parametrize("size", [(61, 53), (7, 11)], ids=["chunks", "one_block"])
@pytest.mark.parametrize("offset", [1e3, -3e4])
def test_no_digits_are_lost_to_a_large_mean(size, offset, device):
    x, gamma, beta, cotangent = randn((2, 3, *size), torch.float32, device, 4)
    check(norm, norm_ref, (x + offset, gamma, beta), cotangent)


@pytest.mark.parametrize("size", [(61, 53), (7, 11)], ids=["chunks", "one_block"])
def test_chunks_of_different_means(size, device):
    x, gamma, beta, cotangent = randn((2, 3, *size), torch.float32, device, 4)
    slope = torch.linspace(-300, 500, x[0].numel(), device=device).view_as(x[0])
    check(norm, norm_ref, (x + slope, gamma, beta), cotangent)


def test_equal_values_have_the_norm_zero(device):
    gamma, beta = randn((2, 3, 53, 61), torch.float32, device, 2)
    assert torch.equal(norm(torch.full_like(gamma, 12345.678), gamma, beta), beta)


def test_a_cotangent_of_all_ones_is_expanded(device):
    """``sum()`` gives its summands one number with strides 0."""
    x, gamma, beta = (t.requires_grad_() for t in randn((2, 3, 53, 61), torch.float32, device, 3))
    for fn, ref in ((norm, norm_ref), (gated, gated_residual_ref)):
        got, want = (torch.autograd.grad(f(x, gamma, beta).sum(), (x, gamma, beta)) for f in (fn, ref))
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.filterwarnings("ignore:invalid value:RuntimeWarning")  # of the interpreter
@pytest.mark.parametrize("value", [float("nan"), float("inf")])
@pytest.mark.parametrize("size", [(61, 53), (7, 11)], ids=["chunks", "one_block"])
def test_a_bad_value_stays_in_its_sample(value, size, device):
    x, gamma, beta = randn((3, 3, *size), torch.float32, device, 3)
    x[1, 2, 3, 4] = value
    y = norm(x, gamma, beta)
    assert y[1].isnan().all()
    assert y[::2].isfinite().all()


@pytest.mark.filterwarnings("ignore:overflow:RuntimeWarning")  # of the interpreter
def test_gates_that_are_fully_open_or_closed(device):
    z, body = randn((2, 5), torch.float32, device, 2)
    for gate, expected, slope in ((1e4, z + body, 1.0), (-1e4, z, 0.0)):
        gates = torch.full_like(z, gate)
        assert torch.equal(gated(z, body, gates), expected)
        _, dbody, dgate = gradients_of(gated)(z, body, gates, torch.ones_like(z))
        assert torch.equal(dbody, torch.full_like(z, slope))
        assert torch.equal(dgate, torch.zeros_like(z))


def test_two_runs_agree_to_the_bit(device):
    args = randn((2, 3, 53, 61), torch.float16, device, 5)
    first, second = ((norm(*args[:4]), *gradients_of(norm)(*args)) for _ in range(2))
    assert all(torch.equal(a, b) for a, b in zip(first, second, strict=True))


@pytest.mark.parametrize("name", ["adaptive_norm", "gated_residual"])
def test_opcheck(name, device):
    x, *rest = (t.requires_grad_() for t in randn((2, 3, 5, 4), torch.float32, device, 4))
    args = (x.to(memory_format=torch.channels_last), *rest, 1e-5) if name == "adaptive_norm" else (x, *rest[:2])
    torch.library.opcheck(getattr(torch.ops.mmif, name).default, (*args, "triton"))


@ops
def test_compiles_whole_with_its_gradients(fn, ref, count, device):
    *args, cotangent = randn((2, 3, 5, 4), torch.float32, device, count + 1)
    torch.compiler.reset()
    compiled = torch.compile(fn, fullgraph=True, backend="aot_eager")
    assert torch.equal(compiled(*args), fn(*args))
    got, want = (gradients_of(f)(*args, cotangent) for f in (compiled, fn))
    torch.testing.assert_close(got, want, rtol=0, atol=0)


def test_reasons_not_to_take_the_kernels(device):
    wide = torch.empty((), device=device).expand(1, 2, MAX_SAMPLE)
    with pytest.raises(dispatch.BackendUnavailable, match=f"at most {MAX_SAMPLE} elements, got {2 * MAX_SAMPLE}"):
        norm(wide, wide, wide)
    double = torch.zeros(2, 3, dtype=torch.float64, device=device)
    for fn in (norm, gated):
        with pytest.raises(dispatch.BackendUnavailable, match=r"must be .* float32, got torch.float64"):
            fn(double, double, double)
        with pytest.raises(dispatch.BackendUnavailable, match="a tensor is empty"):
            fn(*[double[:0].float()] * 3)
