"""What the fusions save: what depends on the guidance alone is computed once, and the results do not change."""

import pytest
import torch
import torch.nn.functional as F
from torch.utils.flop_counter import FlopCounterMode

from mmif.config import EncoderConfig
from mmif.model.attention import GatedFeedForward, GatedMaskAttention
from mmif.model.fusion import FUSIONS, AuxiliaryDenorm

CHANNELS, AUX, SIDE = 4, 6, 8


def build(module):
    for parameter in module.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    return module.double()


def features(count, channels=CHANNELS):
    return [torch.randn(2, channels, SIDE, SIDE, dtype=torch.float64) for _ in range(count)]


def printed_adn(adn, x, aux):
    """Eq. 2 word by word: everything for every feature, ``beta`` on the concatenation."""
    u = aux.new_zeros(x.shape) if adn.embed.conv is None else adn.embed.conv(aux)
    return adn.gamma(u) * F.group_norm(x, 1) + adn.beta(torch.cat([x, u], dim=1))


def printed_attention(gma, x, aux, hole):
    """The q, k, v of Eq. 3 with a fusion each."""
    return [printed_adn(gma.fusion, conv(x), aux) for conv in gma.qkv]


def multiplications(fn, *args):
    with FlopCounterMode(display=False) as counter:
        fn(*args)
    return counter.get_total_flops() // 2


@pytest.mark.parametrize("aux_channels", [AUX, 0], ids=["guided", "alone"])
def test_adn_is_equation_2(aux_channels):
    adn = build(AuxiliaryDenorm(CHANNELS, aux_channels))
    x, aux = features(1)[0], features(1, aux_channels)[0]
    torch.testing.assert_close(adn(x, aux), printed_adn(adn, x, aux), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", FUSIONS)
def test_one_guide_serves_several_features(name):
    fusion, aux = build(FUSIONS[name](CHANNELS, AUX)).eval(), features(1, AUX)[0]
    guide = fusion.guide(aux)
    for x in features(3):
        torch.testing.assert_close(fusion.fuse(x, guide), fusion(x, aux), rtol=0, atol=0)


def test_batch_norm_still_counts_every_feature():
    gma = GatedMaskAttention(CHANNELS, AUX, EncoderConfig(fusion="spade"))
    gma(torch.randn(2, CHANNELS, SIDE, SIDE), torch.randn(2, AUX, SIDE, SIDE), torch.rand(2, 1, SIDE, SIDE))
    assert int(gma.fusion.norm.num_batches_tracked) == 3


def test_gated_feed_forward_is_its_formula():
    gff = build(GatedFeedForward(CHANNELS, AUX, EncoderConfig()))
    z, aux = features(1)[0], features(1, AUX)[0]
    u = printed_adn(gff.fusion, z, aux)
    expected = z + gff.body(u) * torch.sigmoid(gff.gate(u))
    torch.testing.assert_close(gff(z, aux), expected, rtol=1e-12, atol=1e-12)


# Channels, those of the guidance, side: the stages of the paper's decoder.
STAGES = [(256, 256, 32), (128, 256, 64), (64, 128, 128)]


@pytest.mark.parametrize(("c", "a", "side"), STAGES, ids=["32px", "64px", "128px"])
def test_multiplications_are_those_of_the_shared_guide(c, a, side):
    """Of one attention stage: the guide once, ``W_x`` three times. docs/numerics.md has the sums."""
    with torch.device("meta"):
        gma = GatedMaskAttention(c, a, EncoderConfig())
        x, aux, hole = (torch.empty(1, channels, side, side) for channels in (c, a, 1))
    embed, square = a * c * side**2, c * c * side**2
    qkv, guide, fuse = 3 * square, embed + 2 * square, square
    heads = sum(2 * (side // p) ** 4 * (c // 2) * p * p for p in (2, 4))
    gate = 9 * (c + 1) * 2 * side**2
    feed_forward = guide + fuse + 3 * 9 * square
    assert multiplications(gma, x, aux, hole) == qkv + guide + 3 * fuse + heads + gate + feed_forward
    assert multiplications(printed_attention, gma, x, aux, hole) == qkv + 3 * (guide + fuse)
