"""How the ops run: on the current stream, without waiting, inside a CUDA graph, under autocast, on any device."""

import pytest
import torch
from ops.cases import OPS
from ops.test_registration import FIRST, floating, gradients_of, samples
from tolerances import assert_close_to_reference
from torch import Tensor

from mmif.config import GeneratorConfig
from mmif.model.synthesis import SynthesisLayer
from mmif.ops import bias_act, conv_epilogue, demodulate, modulated_conv2d, setup_filter, upfirdn2d

pytestmark = pytest.mark.cuda

HALVES = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])
OURS = [first for first in FIRST if torch._C._dispatch_has_kernel_for_dispatch_key(f"mmif::{first[0]}", "CUDA")]
LONG = 100_000_000  # clock cycles that a sleeping kernel takes: about 50 ms


def forward_and_gradients(name, args):
    """A call of the op and of the gradients of its output's sum of squares, without arguments."""
    op = OPS[name]

    def call():
        outputs = floating(op.run(*args))
        cotangents = tuple(t.detach() for t in outputs)
        return outputs + (gradients_of(op.run, op.wrt, len(args))(*args, *cotangents) if op.wrt else ())

    return call


def assert_same(outputs, expected):
    """Equal but for the order in which a library's convolution adds."""
    for out, wanted in zip(outputs, expected, strict=True):
        torch.testing.assert_close(out, wanted, rtol=1e-2, atol=1e-2)


def floats(args):
    return [v for v in args if isinstance(v, Tensor) and v.is_floating_point()]


@samples(FIRST)
def test_runs_on_the_current_stream(name, sample, arguments):
    """The inputs arrive late, on a stream of its own: a kernel on any other stream would read NaN."""
    args = arguments(name, sample, torch.float16, "channels_last")
    call = forward_and_gradients(name, args)
    expected = [t.clone() for t in call()]
    held = [t.clone() for t in floats(args)]
    for t in floats(args):
        t.fill_(float("nan"))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(LONG)
        for t, value in zip(floats(args), held, strict=True):
            t.copy_(value)
        outputs = call()
    side.synchronize()
    assert_same(outputs, expected)


@samples(OURS)
def test_does_not_wait_for_the_device(name, sample, arguments):
    args = arguments(name, sample, torch.float16, "channels_last")
    OPS[name].run(*args)
    torch.cuda.synchronize()
    torch.cuda._sleep(LONG)
    slept = torch.cuda.Event()
    slept.record()
    OPS[name].run(*args)
    assert not slept.query()


@samples(OURS)
def test_is_the_same_every_time(name, sample, arguments):
    """No atomics: sums have one order."""
    args = arguments(name, sample, torch.float16)
    first, *others = (floating(OPS[name].run(*args)) for _ in range(4))
    assert all(torch.equal(a, b) for other in others for a, b in zip(first, other, strict=True))


@samples(FIRST)
def test_is_captured_in_a_graph_and_replayed_with_other_values(name, sample, arguments):
    args = arguments(name, sample, torch.float16, "channels_last")
    call = forward_and_gradients(name, args)
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            call()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        outputs = call()
    for t in floats(args):
        t.mul_(0.5)
    expected = [t.clone() for t in call()]
    for out in outputs:
        out.fill_(float("nan"))
    graph.replay()
    assert_same(outputs, expected)


@samples(OURS)
def test_runs_on_the_device_of_its_tensors(name, sample, arguments):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    expected = floating(OPS[name].run(*arguments(name, sample, torch.float16)))
    torch.manual_seed(0)  # the same arguments
    out = floating(OPS[name].run(*arguments(name, sample, torch.float16, device="cuda:1")))
    assert {t.device.index for t in out} == {1}
    assert_same([t.cpu() for t in out], [t.cpu() for t in expected])


@HALVES
def test_autocast_of_each_op(dtype):
    """The convolution computes in autocast's dtype, the others in that of their input."""
    x, weight, styles = torch.randn(2, 8, 6, 6), torch.randn(8, 8, 3, 3), torch.randn(2, 8)
    x, weight, styles = x.cuda(), weight.cuda(), styles.cuda()
    f = setup_filter([1, 3, 3, 1]).cuda()
    with torch.autocast("cuda", dtype):
        y = modulated_conv2d(x, weight, styles, up=2, resample_filter=f)
        filtered = upfirdn2d(y, f, down=2, padding=1)
        out = bias_act(filtered, styles[0], act="lrelu")
        scaled, image = conv_epilogue(x, next_styles=styles)
        factors = demodulate(styles[None], weight.square().sum((2, 3))[None])
    assert y.dtype == filtered.dtype == out.dtype == dtype
    assert scaled.dtype == factors[0].dtype == torch.float32
    assert image is None
    ref = OPS["modulated_conv2d"].ref
    assert ref is not None
    args = (x.to(dtype), weight.to(dtype), styles, f, 2, True)
    assert_close_to_reference(y, ref, args, op="modulated_conv2d", dtype=dtype)


@HALVES
def test_autocast_of_a_layer_with_its_gradients(dtype):
    layer = layer_of(16)
    x, w, noise = (torch.randn(s, device="cuda") for s in ((2, 16, 8, 8), (2, 32), (2, 1, 16, 16)))
    dy = torch.randn(2, 16, 16, 16, device="cuda")
    parameters = list(layer.parameters())
    exact = torch.autograd.grad(layer(x, w, noise), parameters, dy)
    with torch.autocast("cuda", dtype):
        y = layer(x, w, noise)
    assert y.dtype == dtype
    close = 0.1 if dtype == torch.float16 else 0.25  # an activation that changes its sign changes much
    for got, wanted in zip(torch.autograd.grad(y, parameters, dy.to(dtype)), exact, strict=True):
        assert got.dtype == torch.float32
        assert (got - wanted).norm() <= close * wanted.norm()


def test_inductor_compiles_a_layer_with_its_gradients():
    layer = layer_of(8)
    values = [torch.randn(s, device="cuda") for s in ((2, 8, 4, 4), (2, 32), (2, 1, 8, 8))]
    parameters = list(layer.parameters())
    eager = layer(*values)
    dy = torch.randn_like(eager)
    expected = torch.autograd.grad(eager, parameters, dy)
    torch.compiler.reset()
    compiled = torch.compile(layer, fullgraph=True)(*values)
    torch.testing.assert_close(compiled, eager, rtol=1e-4, atol=1e-4)
    for got, wanted in zip(torch.autograd.grad(compiled, parameters, dy), expected, strict=True):
        torch.testing.assert_close(got, wanted, rtol=1e-3, atol=1e-3)


def layer_of(channels):
    """An up-layer whose bias and noise are not zero."""
    clamp = GeneratorConfig().conv_clamp
    layer = SynthesisLayer(channels, channels, 32, 8, clamp, up=2).cuda()
    with torch.no_grad():
        layer.bias.normal_()
        layer.noise_strength.fill_(0.3)
    return layer
