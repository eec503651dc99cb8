"""Every registered op on a device: equal to its reference in every layout, differentiable, whole under compilation."""

import pytest
import torch
from ops.cases import DTYPES, LAYOUTS, OPS, name_of
from ops.test_bias_act import away_from_kinks
from ops.test_registration import CASES, FIRST, cases, floating, gradients_of, samples, strides
from tolerances import assert_close_to_reference
from torch import Tensor
from torch._subclasses import FakeTensorMode
from torch.autograd import gradcheck, gradgradcheck

from mmif.ops import _extension, dispatch, setup_filter
from mmif.ops.bias_act import ACTIVATIONS

pytestmark = pytest.mark.cuda

# The ops with kernels of their own. modulated_conv2d is made of others.
KERNELS = [op for op in OPS if torch._C._dispatch_has_kernel_for_dispatch_key(f"mmif::{op}", "CUDA")]
KERNELS = [op for op in KERNELS if op != "modulated_conv2d"]
MISALIGNED = [
    (name, sample, layout, dtype)
    for name in KERNELS
    for sample in OPS[name].samples
    for layout in ("offset", "offset_channels_last")
    for dtype in DTYPES
]
WITH_GRADIENTS = [(name, sample) for name, sample in FIRST if OPS[name].wrt]


def cotangents_of(name, args):
    return tuple(torch.randn_like(t) for t in floating(OPS[name].run(*args)))


@pytest.mark.parametrize("op", [body.op for body in _extension.announced if body.backend == "cuda"])
def test_the_extension_serves(op):
    """Else the tests below would compare the references with themselves."""
    assert dispatch.why_not("cuda") is None, dispatch.why_not("cuda")
    assert (op, "cuda") in dispatch._bodies


@pytest.mark.parametrize("op", KERNELS)
def test_the_kernels_are_ours(op, arguments, kernels):
    name, sample = next(first for first in FIRST if first[0] == op)
    args = arguments(name, sample, torch.float16, "channels_last")
    found = kernels(lambda: OPS[op].run(*args))
    assert any("mmif" in kernel for kernel in found), found


@cases([case for case in CASES if OPS[case[0]].ref] + MISALIGNED)
def test_forward_equals_reference(name, sample, layout, dtype, arguments):
    args, op = arguments(name, sample, dtype, layout), OPS[name]
    out = floating(op.run(*args))
    floor = out[0].dtype  # not dtype: the demodulation is float32 whatever is asked for
    assert_close_to_reference(out, lambda *a: floating(op.ref(*a)), args, op=name, dtype=floor)


@cases([case for case in CASES + MISALIGNED if OPS[case[0]].wrt])
def test_gradients_equal_reference(name, sample, layout, dtype, arguments):
    args, op = arguments(name, sample, dtype, layout), OPS[name]
    values = (*args, *cotangents_of(name, args))
    out = gradients_of(op.run, op.wrt, len(args))(*values)
    ref = gradients_of(op.ref, op.wrt, len(args))
    assert_close_to_reference(out, ref, values, grad=True, op=name, dtype=dtype)


@pytest.mark.parametrize("act", ACTIVATIONS)
def test_gradients_of_bias_act_of_order_one_and_two(act):
    inputs = [t.detach().cuda().requires_grad_() for t in away_from_kinks()]
    static = (1, act, ACTIVATIONS[act].alpha, ACTIVATIONS[act].gain, 1.03)

    def run(x, b):
        return torch.ops.mmif.bias_act(x, b, *static)

    gradcheck(run, inputs)
    gradgradcheck(run, inputs)


@pytest.mark.parametrize(
    ("taps", "factors"),
    [([1, 3, 3, 1], (2, 2, 1, 1)), ([1, 3, 3, 1], (1, 1, 2, 2)), ([[1, 2, 0], [3, 1, 4]], (2, 1, 1, 3))],
    ids=["up", "down", "general"],
)
@pytest.mark.parametrize("channels", [1, 2], ids=["nchw", "nhwc"])
def test_gradients_of_upfirdn2d_of_order_one_and_two(taps, factors, channels):
    x = torch.randn(1, channels, 4, 3, dtype=torch.float64).cuda().contiguous(memory_format=torch.channels_last)
    f = setup_filter(taps).cuda()

    def run(x):
        return torch.ops.mmif.upfirdn2d(x.square(), f, factors, (2, 1, 1, 2), False, 1.5).square()

    gradcheck(run, x.requires_grad_())
    gradgradcheck(run, x)


@pytest.mark.parametrize("up", [1, 2])
def test_gradients_of_modulated_conv2d_of_order_one_and_two(up):
    shapes = ((1, 2, 3, 3), (2, 2, 3, 3), (1, 2))
    inputs = [torch.randn(s, dtype=torch.float64).cuda().requires_grad_() for s in shapes]
    f = setup_filter([1, 3, 3, 1]).cuda() if up == 2 else None

    def run(x, weight, styles):
        return torch.ops.mmif.modulated_conv2d(x, weight, styles, f, up, True)

    gradcheck(run, inputs, nondet_tol=1e-9)  # the library's convolutions may add in any order
    gradgradcheck(run, inputs, nondet_tol=1e-9)


@samples(FIRST)
def test_opcheck(name, sample, arguments):
    op = OPS[name]
    args = list(arguments(name, sample, torch.float32, "channels_last"))
    for i in op.wrt:
        args[i] = args[i].detach().requires_grad_()
    torch.library.opcheck(op.run.default, tuple(args))


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", DTYPES, ids=name_of)
@samples(FIRST)
def test_opcheck_of_schema_and_fake(name, sample, dtype, layout, arguments):
    args = arguments(name, sample, dtype, layout)
    torch.library.opcheck(OPS[name].run.default, args, test_utils=("test_schema", "test_faketensor"))


@cases([case for case in CASES if case[3] == torch.float16])
def test_fake_has_the_strides_of_the_real_output(name, sample, layout, dtype, arguments):
    args = arguments(name, sample, dtype, layout)
    real = OPS[name].run(*args)
    with FakeTensorMode() as mode:
        fake = OPS[name].run(*[mode.from_tensor(v) if isinstance(v, Tensor) else v for v in args])
    for r, f in zip(*([t] if isinstance(t, Tensor) else t for t in (real, fake)), strict=True):
        assert (r.shape, r.dtype, r.device, strides(r)) == (f.shape, f.dtype, f.device, strides(f))


@samples(WITH_GRADIENTS)
def test_compiles_whole_with_its_gradients(name, sample, arguments):
    args, op = arguments(name, sample, torch.float32), OPS[name]
    values = (*args, *cotangents_of(name, args))
    eager = gradients_of(op.run, op.wrt, len(args))(*values)
    torch.compiler.reset()
    compiled = torch.compile(lambda *a: op.run(*a), fullgraph=True, backend="aot_eager")
    for got, expected in zip(gradients_of(compiled, op.wrt, len(args))(*values), eager, strict=True):
        torch.testing.assert_close(got, expected)
