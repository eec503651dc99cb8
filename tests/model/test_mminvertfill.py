"""The assembled model: shapes, what it may see, how it starts, its ablations, its noise."""

import dataclasses

import pytest
import torch

from mmif.config import PRESETS, ModelConfig, from_preset, with_overrides
from mmif.model import MMInvertFill
from mmif.model.count import measure
from mmif.model.rgb_branch import diffuse

TINY = from_preset("tiny-32")


def build(*overrides: str) -> MMInvertFill:
    torch.manual_seed(0)
    model = MMInvertFill(with_overrides(TINY, overrides)).eval()
    model.mean_latent.reset(model.generator.mapping)
    return model


def inputs(n=2, side=32):
    torch.manual_seed(1)
    image = torch.rand(n, 3, side, side) * 2 - 1
    hole = torch.zeros(n, 1, side, side)
    hole[:, :, 8:20, 4:28] = 1
    return image, hole


def noise(model, n=2):
    return model.make_noise([(0, i) for i in range(n)])


@pytest.mark.parametrize(("side", "layers"), [(256, 14), (512, 16)])
def test_the_papers_shapes(side, layers):
    """Of the full model, on the meta device: shapes without the arithmetic."""
    with torch.device("meta"):
        model = MMInvertFill(from_preset(f"celebahq-{side}")).eval()
        out = model(torch.empty(2, 3, side, side), torch.empty(2, 1, side, side))
    assert out.image.shape == (2, 3, side, side)
    assert out.ws.shape == (2, layers, 512)
    assert [x.shape[2] for x in out.images] == [32, 64, 128]
    assert out.segs[0].shape == (2, 15, 32, 32)


def test_shapes():
    out = build()(*inputs())
    assert out.image.shape == (2, 3, 32, 32)
    assert [tuple(x.shape[1:]) for x in out.images] == [(3, 4, 4), (3, 8, 8), (3, 16, 16)]
    assert [tuple(x.shape[1:]) for x in out.segs] == [(4, 4, 4), (4, 8, 8), (4, 16, 16)]
    assert [tuple(x.shape[1:]) for x in out.edges] == [(1, 4, 4), (1, 8, 8), (1, 16, 16)]
    assert out.edge_full.shape == (2, 1, 32, 32)
    assert out.seg_full.shape == (2, 4, 32, 32)
    assert out.ws.shape == (2, 8, 16)


def test_what_lies_in_the_hole_is_never_read():
    model, (image, hole) = build(), inputs()
    other = torch.where(hole > 0, torch.randn_like(image), image)
    kwargs = {"noise": noise(model)}
    assert torch.equal(model(image, hole, **kwargs).image, model(other, hole, **kwargs).image)


def test_diffusion_keeps_what_is_known_and_stays_within_its_range():
    image, hole = inputs()
    known = 1 - hole
    filled = diffuse(image * known, known)
    assert torch.equal(filled * known, image * known)
    assert filled.min() >= (image * known).min() - 1e-5
    assert filled.max() <= (image * known).max() + 1e-5
    flat = torch.full_like(image, 0.3)
    torch.testing.assert_close(diffuse(flat * known, known), flat)
    assert torch.equal(diffuse(image * 0, hole * 0), torch.zeros_like(image))


def test_guidance_behind_its_own_hole_is_never_read():
    model, (image, hole) = build(), inputs()
    seg, edge = torch.rand(2, 4, 32, 32), torch.rand(2, 1, 32, 32)
    hidden = torch.ones_like(hole)
    kwargs = {"noise": noise(model)}
    plain = model(image, hole, **kwargs).image
    assert torch.equal(model(image, hole, seg, hidden, edge, hidden, **kwargs).image, plain)
    assert not torch.equal(model(image, hole, seg, None, edge, None, **kwargs).image, plain)


@pytest.mark.parametrize("add_at", ["post_upconv", "pre_upconv"])
def test_with_zero_taps_the_network_is_the_pretrained_generator(add_at):
    model, (image, hole) = build(f"generator.add_at={add_at}"), inputs()
    fixed = noise(model)
    out = model(image, hole, noise=fixed)
    assert torch.equal(out.image, model.generator.synthesis(out.ws, fixed))


def test_taps_learn_from_the_first_step_and_the_branch_below_from_the_second():
    model, (image, hole) = build(), inputs()
    model.generator.requires_grad_(False)
    branch = model.rgb_branch
    opt = torch.optim.SGD(branch.parameters(), lr=0.1)
    model(image, hole).image.square().sum().backward()
    assert all(tap.weight.grad.abs().max() > 0 for tap in branch.taps)
    assert branch.convs[0].weight.grad.abs().max() == 0
    opt.step()
    opt.zero_grad()
    model(image, hole).image.square().sum().backward()
    assert branch.convs[0].weight.grad.abs().max() > 0
    assert all(p.grad is None for p in model.generator.parameters())


def test_codes_start_near_the_mean_latent():
    model = build()
    ws = model(*inputs()).ws
    offset = (ws - model.mean_latent.static).square().mean().sqrt()
    assert 0.01 < offset < 0.2  # 0.1 times a normalised code


def test_training_uses_the_soft_mean_latent_and_inference_the_static_one():
    model, (image, hole) = build(), inputs()
    model.mean_latent.online += 1
    static = model(image, hole).ws
    model.train()
    soft = model(image, hole).ws
    assert (soft - static).mean() > 0.5


ABLATIONS = [
    "encoder.gma=false",
    "encoder.gma_gate=none",
    "encoder.gma_gate_mask=false",
    "latent.premodulation=false",
    "latent.premod_layers=1",
    "latent.sml=false",
    "latent.sml_offset=false",
    "latent.structure_in=rgb",
    "generator.latent=w+",
    "generator.const_mode=replace",
    "generator.fbranch_mask=false",
    "generator.fbranch_fill=diffuse",
    "encoder.edge_guidance=off",
    "encoder.seg_guidance=off",
    "encoder.edge_guidance=biased",
    "encoder.seg_guidance=biased",
    "encoder.edge_guidance=ground_truth",
    "encoder.seg_guidance=ground_truth",
    *(f"encoder.fusion={f}" for f in ("concat", "adain", "spade", "add", "conv")),
    "encoder.bottleneck=res",
    "encoder.bottleneck=aot",
    "encoder.levels=4",
    "encoder.acb_variant=code",
    "encoder.acb_post=false",
    "encoder.head_scales=upsampled",
    "encoder.full_res_aux=false",
    "encoder.resolution=64 generator.resolution=128",
    "encoder.edge_guidance=off encoder.seg_guidance=off",
]


@pytest.mark.parametrize("ablation", ABLATIONS)
def test_every_ablation_runs_and_trains(ablation):
    model = build(*ablation.split()).train()
    image, hole = inputs(side=model.config.resolution)
    side = model.config.resolution
    seg, edge = torch.rand(2, 4, side, side), torch.rand(2, 1, side, side)
    out = model(image, hole, seg, None, edge, None)
    assert out.image.shape == image.shape
    total = out.image.square().sum() + out.ws.sum()
    for maps in (out.images, out.edges, out.segs):
        total = total + sum(x.sum() for x in maps)
    total.backward()
    assert torch.isfinite(total)


def test_noise_belongs_to_seed_and_image_whatever_the_batch():
    model = build()
    alone = model.make_noise([(7, 3)])
    among = model.make_noise([(7, 1), (7, 3), (8, 3)])
    for a, b in zip(alone, among, strict=True):
        assert torch.equal(a[0], b[1])
        assert not torch.equal(b[1], b[2])


def test_batch_size_does_not_change_a_result():
    model, (image, hole) = build(), inputs()
    both = model(image, hole, noise=noise(model)).image
    one = model(image[1:], hole[1:], noise=[x[1:] for x in noise(model)]).image
    torch.testing.assert_close(one, both[1:], atol=1e-5, rtol=1e-5)


def test_channels_last_changes_the_layout_alone():
    model, (image, hole) = build(), inputs()
    given = noise(model)
    plain = model(image, hole, noise=given).image
    model.to(memory_format=torch.channels_last)
    torch.testing.assert_close(model(image, hole, noise=given).image, plain, atol=1e-5, rtol=1e-5)


def test_sampled_mean_latents_differ_and_repeat():
    model = build()
    a = model.sample_mean_latent([(0, 1), (0, 2)])
    assert a.shape == (2, 16)
    assert not torch.equal(a[0], a[1])
    assert torch.equal(a, model.sample_mean_latent([(0, 1), (0, 2)]))


@pytest.mark.parametrize("preset", sorted(PRESETS))
def test_presets_survive_json(preset):
    import json

    config = from_preset(preset)
    assert ModelConfig.from_dict(json.loads(config.to_json())) == config


@pytest.mark.parametrize(
    ("override", "words"),
    [
        ("encoder.width", "section.key=value"),
        ("encoder.nonsense=1", "known key"),
        ("encoder.fusion=magic", "fusion"),
        ("encoder.resolution=48", "power of two"),
        ("encoder.resolution=64", "exceed"),
        ("encoder.patch_sizes=[3]", "divide"),
        ("encoder.dilations=[1,4]", "reflect"),
        ("encoder.levels=0", "encoder.levels must be a whole number in 1..64, got 0"),
        ("encoder.levels=1.5", "a whole number in 1..64, got 1.5"),
        ("encoder.width=-8", "a whole number in 1..8192, got -8"),
        ("encoder.width=abc", "a whole number in 1..8192, got 'abc'"),
        ("encoder.gma=maybe", "true or false"),
        ("encoder.dilations=[]", "list"),
        ("encoder.patch_sizes=[0]", "list"),
        ("encoder.num_classes=256", "255"),
        ("latent.layer_split=[9,2]", "ascend"),
        ("latent.layer_split=5", "list"),
        ("latent.layer_split=[3,9]", "not exceed the 8 style codes"),
        ("generator.resolution=4096", "got 512 < 4096"),
        ("generator.channel_base=16", "got 16 < 32"),
        ("latent.tau=x", "a number in 0..1"),
        ("latent.tau=2", "tau"),
    ],
)
def test_bad_configurations_are_refused(override, words):
    with pytest.raises(ValueError, match=words.replace("=", ".").replace(">.", ">=")):
        with_overrides(TINY, [override])


def test_unknown_preset_lists_the_known_ones():
    with pytest.raises(ValueError, match="celebahq-256"):
        from_preset("celeba")


def test_info_adds_up():
    rows = {part: (params, macs) for part, params, macs in measure(TINY)}
    total = rows.pop("total")
    assert sum(params for params, _ in rows.values()) == total[0]
    assert sum(macs for _, macs in rows.values()) == total[1]
    synthesis = dataclasses.replace(TINY.generator)
    first = 4 * 4 * synthesis.channels(4) ** 2 * 9
    assert rows["generator.synthesis"][1] > first
