"""The generator's fused form against its plain layers."""

import pytest
import torch
from tolerances import FLOOR

from mmif import from_preset
from mmif.config import with_overrides
from mmif.model.generator import SynthesisNetwork
from mmif.runtimes.cuda_graph import CapturedSynthesis

TINY = from_preset("tiny-32")


def network_of(dtype=torch.float32, **overrides):
    config = with_overrides(TINY, [f"generator.{key}={value}" for key, value in overrides.items()])
    network = SynthesisNetwork(config.generator, config.latent.w_dim)
    for parameter in network.parameters():
        if parameter.ndim < 2:  # biases and strengths of noise start at zero, where a mistake would not show
            torch.nn.init.normal_(parameter, std=0.3)
    return network.to(dtype).eval().requires_grad_(False)


def inputs_of(network, n=2, dtype=torch.float32, feats=True):
    ws = torch.randn(n, network.config.num_ws, TINY.latent.w_dim)
    noise = [torch.randn(n, 1, r, r) for r in network.noise_sizes]
    channels = network.config.channels
    maps = {r: torch.randn(n, channels(r), r, r).to(dtype) for r in network.config.resolutions} if feats else {}
    return ws, noise, maps


def distance(a, b):
    return ((a - b).abs().max() / b.abs().max()).item()


@pytest.mark.parametrize("const_mode", ["add", "replace"])
@pytest.mark.parametrize("feats", [True, False], ids=["feats", "no_feats"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16, torch.bfloat16])
def test_equals_the_plain_layers(registered, const_mode, feats, dtype):
    network = network_of(const_mode=const_mode)
    ws, noise, maps = inputs_of(network, feats=feats)
    expected = network._plain(ws, noise, maps)
    with torch.autocast("cpu", dtype, enabled=dtype != torch.float32):
        image = network(ws, noise, maps)
    assert image.dtype == torch.float32
    assert distance(image, expected) < 10 * FLOOR[dtype]


def test_it_runs_only_where_it_may(registered, monkeypatch):
    used = []
    plan = SynthesisNetwork.plan
    monkeypatch.setattr(SynthesisNetwork, "plan", lambda self: used.append(1) or plan(self))
    network, other = network_of(), network_of(add_at="pre_upconv")
    network(*inputs_of(network))
    assert len(used) == 1
    other(*inputs_of(network, feats=False))  # an ablation that is not fused
    network.requires_grad_(True)
    network(*inputs_of(network)).sum().backward()  # gradients want the plain layers
    assert len(used) == 1
    with torch.no_grad():
        network(*inputs_of(network))
    assert len(used) == 2


def test_the_reference_runs_the_plain_layers(monkeypatch):
    network = network_of()
    monkeypatch.setattr(SynthesisNetwork, "plan", lambda self: pytest.fail("planned"))
    network(*inputs_of(network))


def test_a_changed_parameter_is_seen(registered):
    network = network_of()
    arguments = inputs_of(network)
    before = network(*arguments)
    assert network.plan() is network.plan()
    network.blocks[1].conv0.weight.mul_(1.5)
    network.blocks[1].torgb.bias.add_(1.0)
    after = network(*arguments)
    assert distance(after, before) > 1e-3
    assert distance(after, network._plain(*arguments)) < 1e-5


def test_the_plan_is_no_part_of_the_checkpoint(registered):
    network = network_of()
    keys = set(network.state_dict())
    network(*inputs_of(network))
    assert set(network.state_dict()) == keys


def test_a_capture_needs_a_cuda_device():
    network = network_of()
    with pytest.raises(ValueError, match=r"ws must be on a CUDA device, got cpu; call the network itself"):
        CapturedSynthesis(network, *inputs_of(network))
