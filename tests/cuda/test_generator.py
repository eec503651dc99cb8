"""The generator's fused form on a device: equal to the network, two kernels per layer, one graph, no allocation."""

import copy
from collections import Counter

import pytest
import torch
from ops.cases import name_of
from tolerances import assert_close_to_reference

from mmif.config import GeneratorConfig
from mmif.model.generator import SynthesisNetwork
from mmif.ops import dispatch
from mmif.runtimes.cuda_graph import CapturedSynthesis

pytestmark = pytest.mark.cuda

W_DIM = 32
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16], ids=name_of)
FEATS = pytest.mark.parametrize("feats", [True, False], ids=["f&w+", "w+"])


def network_of(const_mode="add"):
    """A small network whose biases and noise are not zero, for inference."""
    config = GeneratorConfig(resolution=32, channel_base=1024, channel_max=64, const_mode=const_mode)
    network = SynthesisNetwork(config, W_DIM)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("conv0.bias", "conv1.bias", "torgb.bias", "noise_strength")):
                parameter.normal_(std=0.3)
    return network.to("cuda").eval().requires_grad_(False)


def inputs_of(network, dtype=torch.float32, n=2, feats=True):
    """Styles, noise and RGB-branch features, which have autocast's dtype."""
    ws = torch.randn(n, network.config.num_ws, W_DIM, device="cuda")
    noise = [torch.randn(n, 1, side, side, device="cuda") for side in network.noise_sizes]
    shapes = {side: (n, network.config.channels(side), side, side) for side in network.config.resolutions if feats}
    return ws, noise, {side: torch.randn(shape, device="cuda").to(dtype) for side, shape in shapes.items()}


def autocast(dtype):
    return torch.autocast("cuda", dtype, enabled=dtype != torch.float32)


def doubled(network):
    """A float64 copy; its filters stay float32, as the ops ask for."""
    double = copy.deepcopy(network).double()
    for module in double.modules():
        if getattr(module, "resample_filter", None) is not None:
            module.resample_filter = module.resample_filter.float()
    return double


@pytest.fixture
def _same_algorithms():
    """A library's convolutions give the same bits in and out of a graph."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        yield


@DTYPES
@FEATS
@pytest.mark.parametrize("const_mode", ["add", "replace"])
def test_plan_equals_the_network(dtype, const_mode, feats):
    network = network_of(const_mode)
    ws, noise, given = inputs_of(network, dtype, feats=feats)
    with autocast(dtype):
        image = network(ws, noise, given)
    assert network._plan is not None
    assert image.dtype == torch.float32

    def layer_by_layer(ws, *rest):
        exact = ws.dtype == torch.float64
        with dispatch.use("reference"), autocast(torch.float32 if exact else dtype):
            own = doubled(network) if exact else network
            return own(ws, rest[: len(noise)], dict(zip(given, rest[len(noise) :], strict=True)))

    assert_close_to_reference(image, layer_by_layer, (ws, *noise, *given.values()), op="synthesis", dtype=dtype)


@pytest.mark.usefixtures("_same_algorithms")
@DTYPES
@FEATS
def test_graph_equals_the_network(dtype, feats):
    network = network_of()
    with autocast(dtype):
        captured = CapturedSynthesis(network, *inputs_of(network, dtype, feats=feats))
        for _ in range(2):
            values = inputs_of(network, dtype, feats=feats)
            assert torch.equal(captured(*values), network(*values))


@pytest.mark.usefixtures("_same_algorithms")
def test_graph_outlives_the_plan_it_was_made_from():
    network = network_of()
    values = inputs_of(network)
    expected = network(*values).clone()
    captured = CapturedSynthesis(network, *values)
    network.const.data = network.const.data.clone()  # elsewhere in memory: the network makes a new plan
    network(*values)
    torch.cuda.empty_cache()
    scribble = [torch.full((2**18,), float("nan"), device="cuda") for _ in range(64)]
    assert torch.equal(captured(*values), expected)
    del scribble


def test_graph_allocates_nothing_and_launches_once():
    network = network_of()
    captured = CapturedSynthesis(network, *inputs_of(network))
    batches = [inputs_of(network) for _ in range(3)]
    captured(*batches[0])
    torch.cuda.synchronize()
    before = torch.cuda.memory_stats()["allocation.all.allocated"]
    activities = [torch.profiler.ProfilerActivity.CPU, torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        for batch in batches:
            captured(*batch)
        torch.cuda.synchronize()
    assert torch.cuda.memory_stats()["allocation.all.allocated"] == before
    launches = Counter(e.name for e in profile.events() or [] if "Launch" in e.name)
    assert launches == {"cudaGraphLaunch": len(batches)}


def test_graph_refuses_other_shapes():
    network = network_of()
    captured = CapturedSynthesis(network, *inputs_of(network))
    with pytest.raises(ValueError, match=r"inputs must stay torch.float32 .* as captured, got torch.float32 .*capture"):
        captured(*inputs_of(network, n=3))


def test_layers_are_two_kernels_each(kernels):
    """A convolution and its epilogue; with one epilogue for the constant, and the styles of all layers at the start."""
    network = network_of()
    values = inputs_of(network, torch.float16)
    with autocast(torch.float16):
        found = kernels(lambda: network(*values))
    layers = len(network.noise_sizes)
    ours = Counter("mmif" in name for name in found)[True]
    assert ours == layers + 2, found  # epilogues, the constant's, the demodulation
    assert len(found) <= 2 * layers + 12, found  # and the products that make the styles, with their copies
