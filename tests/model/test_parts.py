"""The parts of the model against what the paper says of them (checks of its specification, one test each)."""

import copy
import dataclasses

import pytest
import torch
import torch.nn.functional as F

from mmif.config import EncoderConfig, from_preset
from mmif.model.attention import GatedMaskAttention
from mmif.model.bottleneck import BOTTLENECKS, AdaptiveContextualBottleneck
from mmif.model.discriminator import PatchDiscriminator, StyleDiscriminator
from mmif.model.fusion import FUSIONS, AuxiliaryDenorm
from mmif.model.generator import MappingNetwork
from mmif.model.layers import EqualConv2d, EqualLinear
from mmif.model.premodulation import GradualStyleBlock, PreModulation, SoftUpdateMeanLatent
from mmif.ops import setup_filter

TINY = from_preset("tiny-32")


def encoder_config(**changes):
    return dataclasses.replace(TINY.encoder, **changes)


@pytest.mark.parametrize("bottleneck", sorted(BOTTLENECKS))
@pytest.mark.parametrize("variant", ["paper", "code"])
def test_bottlenecks_keep_the_shape(bottleneck, variant):
    block = BOTTLENECKS[bottleneck](8, encoder_config(acb_variant=variant))
    x, gate = block(torch.randn(2, 8, 6, 6), torch.rand(2, 8, 6, 6))
    assert x.shape == (2, 8, 6, 6)
    assert gate.shape == (2, 8, 6, 6)


def test_acb_with_equal_paths_is_the_path_plus_the_input():
    block = AdaptiveContextualBottleneck(4, encoder_config(acb_post=False, dilations=(1, 1, 1)))
    with torch.no_grad():
        block.path_weight.copy_(block.path_weight[:4].repeat(3, 1, 1, 1))
    x = torch.randn(2, 4, 5, 7)
    path = F.relu(F.conv2d(F.pad(x, (1, 1, 1, 1), mode="reflect"), block.path_weight[:4], block.path_bias[0]))
    torch.testing.assert_close(block(x, torch.rand_like(x))[0], path + x)


def test_acb_code_variant_is_the_released_formula():
    torch.manual_seed(0)
    block = AdaptiveContextualBottleneck(4, encoder_config(acb_post=False, acb_variant="code", dilations=(1, 2)))
    x, prev = torch.randn(2, 4, 6, 5), torch.rand(2, 4, 6, 5)
    raw = block.gate(x)
    att = block.fuse(torch.cat([x, raw, prev], 1)).mean((2, 3))
    p = torch.tanh(att @ block.fc.weight.t()).softmax(1)
    paths = [
        F.relu(F.conv2d(F.pad(x, (d,) * 4, mode="reflect"), w, b, dilation=d))
        for w, b, d in zip(block.path_weight.chunk(2), block.path_bias, (1, 2), strict=True)
    ]
    mix = sum(p[:, i, None, None, None] * f for i, f in enumerate(paths))
    expected = x * (1 - torch.sigmoid(raw)) + mix * torch.sigmoid(raw)
    torch.testing.assert_close(block(x, prev)[0], expected)


def test_adn_with_unit_gamma_is_group_norm_with_one_group():
    adn = AuxiliaryDenorm(6, 4)
    torch.nn.init.zeros_(adn.gamma.weight)
    x = torch.randn(3, 6, 5, 4) * 3 + 2
    y = adn(x, torch.randn(3, 4, 5, 4))
    torch.testing.assert_close(y, F.group_norm(x, 1))
    torch.testing.assert_close(y.mean((1, 2, 3)), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(y.var((1, 2, 3), unbiased=False), torch.ones(3), atol=1e-3, rtol=0)


@pytest.mark.parametrize("fusion", sorted(FUSIONS))
@pytest.mark.parametrize("aux", [0, 3], ids=["alone", "guided"])
def test_fusions_keep_the_shape_and_use_the_guidance(fusion, aux):
    torch.manual_seed(0)
    module = FUSIONS[fusion](4, aux)
    for p in module.parameters():
        torch.nn.init.normal_(p)
    x, a = torch.randn(2, 4, 6, 6), torch.randn(2, aux, 6, 6)
    y = module(x, a)
    assert y.shape == x.shape
    if aux:
        assert not torch.allclose(y, module(x, a + torch.randn(2, aux, 1, 1)))


@pytest.mark.parametrize("mode", ["post", "logit", "value", "log", "none"])
@pytest.mark.parametrize("order", ["code", "text"])
@pytest.mark.parametrize("gff", ["gated", "code"])
def test_gma_runs_in_every_form_with_gradients_everywhere(mode, order, gff):
    gma = GatedMaskAttention(8, 4, encoder_config(gma_gate=mode, adn_order=order, gff=gff))
    y = gma(torch.randn(2, 8, 8, 8), torch.randn(2, 4, 8, 8), torch.rand(2, 1, 8, 8))
    y.square().sum().backward()
    assert y.shape == (2, 8, 8, 8)
    missing = [name for name, p in gma.named_parameters() if p.grad is None]
    assert missing == []


def test_gate_starts_near_plain_attention():
    gma = GatedMaskAttention(8, 4, encoder_config())
    assert torch.sigmoid(gma.gate.bias).min() > 0.85


def test_map2style_halves_down_to_one_code():
    block = GradualStyleBlock(19, 32, 64)
    assert sum(isinstance(m, torch.nn.Conv2d) for m in block.modules()) == 6
    assert block(torch.randn(2, 19, 64, 64)).shape == (2, 32)


def test_premodulation_normalises_the_style_over_its_entries():
    torch.manual_seed(0)
    layer = PreModulation(32, layers=2)
    style = torch.randn(3, 32)
    normed = F.layer_norm(layer.dense(style), (32,))
    torch.testing.assert_close(normed.mean(1), torch.zeros(3), atol=1e-5, rtol=0)
    torch.testing.assert_close(normed.var(1, unbiased=False), torch.ones(3), atol=1e-3, rtol=0)
    torch.testing.assert_close(layer(style, torch.randn(3, 32)), 0.1 * normed)  # gamma 0.1, beta 0 at the start


@pytest.fixture
def mapping():
    torch.manual_seed(0)
    return MappingNetwork(TINY.latent)


def mean_latent(mapping, **changes):
    sml = SoftUpdateMeanLatent(dataclasses.replace(TINY.latent, **changes))
    sml.reset(mapping)
    return sml


def test_sml_never_moves_without_tau(mapping):
    sml = mean_latent(mapping, tau=0.0)
    before = sml.online.clone()
    for _ in range(5):
        sml.update(mapping)
    assert torch.equal(sml.online, before)


def test_sml_closes_the_gap_by_tau_each_step(mapping):
    sml = mean_latent(mapping, tau=0.1)
    gap = (sml.online - sml.target).norm()
    sml.update(mapping)
    torch.testing.assert_close((sml.online - sml.target).norm(), gap * 0.9, rtol=1e-4, atol=0)


def test_sml_draws_a_new_target_after_enough_steps(mapping):
    sml = mean_latent(mapping, tau=0.1)
    assert sml.resample_after == 47  # ceil(ln(100) / 0.1)
    first = sml.target.clone()
    for _ in range(46 - 3):
        sml.update(mapping)
    steps = 43
    while torch.equal(sml.target, first) and steps < 60:
        sml.update(mapping)
        steps += 1
    assert 43 < steps <= 47


def test_sml_state_survives_a_checkpoint(mapping):
    sml = mean_latent(mapping, tau=0.1)
    for _ in range(3):
        sml.update(mapping)
    other = SoftUpdateMeanLatent(sml.config)
    other.load_state_dict(sml.state_dict())
    assert int(other.age) == 3
    assert torch.equal(other.online, sml.online)


def test_patch_discriminator_gives_30_by_30_at_256():
    assert PatchDiscriminator(3, width=4)(torch.randn(2, 3, 256, 256)).shape == (2, 1, 30, 30)


def test_style_discriminator_takes_odd_batches():
    d = StyleDiscriminator(TINY.generator)
    assert d(torch.randn(3, 3, 32, 32)).shape == (3,)
    assert d(torch.randn(4, 3, 32, 32)).shape == (4,)


def test_minibatch_std_tells_equal_images_from_different_ones():
    d = StyleDiscriminator(TINY.generator)
    same = torch.randn(1, 4, 3, 3).expand(4, -1, -1, -1)
    assert d._minibatch_std(same).abs().max() < 1e-3
    assert d._minibatch_std(torch.randn(4, 4, 3, 3)).min() > 0.1


def test_equalised_layers_keep_unit_variance():
    torch.manual_seed(0)
    assert EqualLinear(512, 512)(torch.randn(64, 512)).std().item() == pytest.approx(1, abs=0.05)
    assert EqualConv2d(64, 64, 3)(torch.randn(2, 64, 16, 16)).std().item() == pytest.approx(1, abs=0.1)


def test_equal_conv_down_is_centred():
    """Blur and stride keep a mirror-symmetric image mirror-symmetric under a symmetric kernel."""
    conv = EqualConv2d(1, 1, 3, down=2, bias=False)
    torch.nn.init.ones_(conv.weight)
    x = torch.randn(1, 1, 16, 16)
    torch.testing.assert_close(conv(x.flip(3)), conv(x).flip(3))


def test_resample_filter_adds_up_to_one():
    assert setup_filter([1, 3, 3, 1]).sum().item() == pytest.approx(1.0)


def test_default_encoder_is_the_papers():
    config = EncoderConfig()
    assert (config.levels, config.dilations, config.patch_sizes, config.width) == (8, (1, 2, 3, 4), (2, 4), 64)


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_folded_norm_is_as_exact_as_the_norm(dtype):
    """The shift is a difference of large numbers where a channel's mean is far from zero."""
    block = AdaptiveContextualBottleneck(4, encoder_config(dilations=(1,))).to(dtype).eval()
    norm = block.post.norm
    norm.running_mean.fill_(8.0)
    norm.running_var.copy_(torch.tensor([0.01, 0.02, 0.05, 0.1]))
    x, gate = torch.randn(1, 4, 6, 6).to(dtype) + 8, torch.rand(1, 4, 6, 6).to(dtype)
    expected = block(x, gate)[0].float()
    with torch.no_grad():
        folded = block(x, gate)[0].float()
    exact = copy.deepcopy(block).double()(x.double(), gate.double())[0].float()
    assert (folded - exact).abs().max() <= 2 * (expected - exact).abs().max()
