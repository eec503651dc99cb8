"""Every registered op: equal to its reference, well registered, and whole under torch.compile."""

import pytest
import torch
from ops.cases import DTYPES, LAYOUTS, OPS, make, name_of
from tolerances import assert_close_to_reference
from torch import Tensor
from torch._subclasses import FakeTensorMode


def _cases():
    """The first sample of every op in every layout; tiles in both dense ones; the others take the layouts in turn."""
    for name, op in OPS.items():
        for i, sample in enumerate(op.samples):
            layouts = list(LAYOUTS) if i == 0 else [list(LAYOUTS)[i % len(LAYOUTS)]]
            for layout in ["contiguous", "channels_last"] if sample.startswith("tiles") else layouts:
                for dtype in DTYPES:
                    yield name, sample, layout, dtype


CASES = list(_cases())
FIRST = [(name, next(iter(op.samples))) for name, op in OPS.items()]


def cases(chosen):
    ids = ["-".join([*case[:3], name_of(case[3])]) for case in chosen]
    return pytest.mark.parametrize(("name", "sample", "layout", "dtype"), chosen, ids=ids)


def samples(chosen):
    return pytest.mark.parametrize(("name", "sample"), chosen, ids=["-".join(sample) for sample in chosen])


def floating(value) -> tuple[Tensor, ...]:
    """The floating tensors of an op's output: positions of a maximum, where two are equal, are no error."""
    return tuple(t for t in ((value,) if isinstance(value, Tensor) else value) if t.is_floating_point())


def gradients_of(fn, wrt, count):
    """Return a function of ``count`` arguments of ``fn`` and its cotangents that gives the gradients of ``wrt``."""

    def gradients(*values):
        args, cotangents = list(values[:count]), values[count:]
        wanted = [i for i in wrt if args[i] is not None]
        for i in wanted:
            args[i] = args[i].detach().requires_grad_()
        # What an op saves for its backward pass has no gradient.
        pairs = [pair for pair in zip(floating(fn(*args)), cotangents, strict=True) if pair[0].requires_grad]
        outputs, cotangents = zip(*pairs, strict=True)
        return torch.autograd.grad(outputs, [args[i] for i in wanted], cotangents)

    return gradients


def cotangents_of(name, args):
    return tuple(torch.randn(t.shape, dtype=torch.float64).to(t.dtype) for t in floating(OPS[name].ref(*args)))


@cases([case for case in CASES if OPS[case[0]].ref])
def test_forward_equals_reference(name, sample, layout, dtype):
    args, op = make(name, sample, dtype, layout), OPS[name]
    out = floating(op.run(*args))
    kept = out[0].dtype  # some ops have a dtype of their own, whatever this test asks for
    assert_close_to_reference(out, lambda *a: floating(op.ref(*a)), args, op=name, dtype=kept)


@cases([case for case in CASES if OPS[case[0]].wrt])
def test_gradients_equal_reference(name, sample, layout, dtype):
    args, op = make(name, sample, dtype, layout), OPS[name]
    values = (*args, *cotangents_of(name, args))
    out = gradients_of(op.run, op.wrt, len(args))(*values)
    ref = gradients_of(op.ref, op.wrt, len(args))
    assert_close_to_reference(out, ref, values, grad=True, op=name, dtype=dtype)


@samples(FIRST)
def test_opcheck(name, sample):
    """Schema, autograd registration, fake tensors, and AOT dispatch of forward and backward."""
    op = OPS[name]
    args = list(make(name, sample, torch.float32, "channels_last"))
    for i in op.wrt:
        args[i] = args[i].detach().requires_grad_()
    torch.library.opcheck(op.run.default, tuple(args))


@cases([case for case in CASES if case[:2] in FIRST])
def test_opcheck_of_schema_and_fake(name, sample, layout, dtype):
    args = make(name, sample, dtype, layout)
    torch.library.opcheck(OPS[name].run.default, args, test_utils=("test_schema", "test_faketensor"))


@cases([case for case in CASES if case[3] == torch.float16])
def test_fake_has_the_strides_of_the_real_output(name, sample, layout, dtype):
    args = make(name, sample, dtype, layout)
    real = OPS[name].run(*args)
    with FakeTensorMode() as mode:
        fake = OPS[name].run(*[mode.from_tensor(v) if isinstance(v, Tensor) else v for v in args])
    for r, f in zip(*([t] if isinstance(t, Tensor) else t for t in (real, fake)), strict=True):
        assert (r.shape, r.dtype, strides(r)) == (f.shape, f.dtype, strides(f))


def strides(t: Tensor) -> list[int]:
    """The strides that count: those of dimensions with more than one element."""
    return [stride for stride, size in zip(t.stride(), t.shape, strict=True) if size > 1 and t.numel()]


@samples([(name, sample) for name, sample in FIRST if OPS[name].wrt])
def test_compiles_whole_with_its_gradients(name, sample):
    args, op = make(name, sample, torch.float32), OPS[name]
    values = (*args, *cotangents_of(name, args))
    eager = gradients_of(op.run, op.wrt, len(args))(*values)
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: op.run(*a), fullgraph=True, backend="aot_eager")
    for got, expected in zip(gradients_of(compiled, op.wrt, len(args))(*values), eager, strict=True):
        torch.testing.assert_close(got, expected, rtol=0, atol=0)
