"""The model's configuration: what it derives, what it refuses, in which words."""

from __future__ import annotations

import dataclasses
import json

import pytest

from mmif.config import PRESETS, EncoderConfig, GeneratorConfig, LatentConfig, ModelConfig, from_preset, with_overrides

TINY = from_preset("tiny-32")


def test_presets_are_those_of_the_paper_and_ours():
    sizes = {name: (p.resolution, p.encoder.resolution, p.encoder.num_classes) for name, p in PRESETS.items()}
    assert sizes == {
        "celebahq-256": (256, 256, 15),
        "celebahq-512": (512, 256, 15),
        "places2-256": (256, 256, 150),
        "places2-512": (512, 256, 150),
        "ost-256": (256, 256, 9),
        "cityscapes-256": (256, 256, 20),
        "scenes-128": (128, 64, 12),
        "tiny-32": (32, 32, 4),
    }


@pytest.mark.parametrize(
    ("resolution", "sides", "codes"), [(32, (4, 8, 16, 32), 8), (64, (4, 8, 16, 32, 64), 10), (256, None, 14)]
)
def test_the_generators_blocks_and_style_codes(resolution: int, sides: tuple[int, ...] | None, codes: int):
    config = GeneratorConfig(resolution=resolution)
    assert config.num_ws == codes
    assert config.resolutions == (sides or (4, 8, 16, 32, 64, 128, 256))


def test_channels_halve_from_their_maximum():
    config = GeneratorConfig(channel_base=1000, channel_max=100)
    assert [config.channels(r) for r in (4, 8, 16, 32, 1024)] == [100, 100, 62, 31, 0]


def test_json_round_trip():
    config = with_overrides(TINY, ["encoder.dilations=[1,3]", "latent.tau=0.5", "generator.latent=w+"])
    assert ModelConfig.from_dict(json.loads(config.to_json())) == config
    assert config.to_dict() == dataclasses.asdict(config)


def encoder(**values) -> ModelConfig:
    return ModelConfig(encoder=EncoderConfig(**{"resolution": 256, **values}))


@pytest.mark.parametrize("side", [32, 64, 4096])
def test_sides_that_are_allowed(side: int):
    assert (
        ModelConfig(EncoderConfig(resolution=32, dilations=(1, 2)), generator=GeneratorConfig(side)).resolution == side
    )


@pytest.mark.parametrize(
    ("make", "words"),
    [
        (lambda: encoder(resolution=48), "encoder.resolution must be a power of two >= 32, got 48"),
        (lambda: encoder(resolution=16), "encoder.resolution must be a whole number in 32..4096, got 16"),
        (
            lambda: ModelConfig(generator=GeneratorConfig(8192)),
            "generator.resolution must be a whole number in 32..4096",
        ),
        (
            lambda: ModelConfig(generator=GeneratorConfig(128)),
            "encoder.resolution must not exceed generator.resolution, got 256 > 128",
        ),
        (
            lambda: ModelConfig(generator=GeneratorConfig(channel_base=255)),
            "generator.channel_base must be >= generator.resolution, or the finest block has no channel; got 255 < 256",
        ),
        (
            lambda: encoder(patch_sizes=(2, 3)),
            "encoder.patch_sizes must divide the coarsest feature map (32), got (2, 3)",
        ),
        (lambda: encoder(patch_sizes=()), "encoder.patch_sizes must be a list of values"),
        (
            lambda: encoder(width=63),
            "encoder.width must be a multiple of the 2 patch sizes and 4*width of attention_heads=4, got 63",
        ),
        (lambda: encoder(attention_heads=7), "encoder.width must be a multiple of the 2 patch sizes and 4*width of"),
        (
            lambda: encoder(dilations=(1, 32)),
            "encoder.dilations must be smaller than the coarsest feature map (32), got (1, 32): reflect padding",
        ),
        (lambda: encoder(num_classes=256), "encoder.num_classes must be a whole number in 1..255, got 256"),
        (lambda: encoder(levels=10**9), "encoder.levels must be a whole number in 1..64, got 1000000000"),
        (lambda: encoder(gma="yes"), "encoder.gma must be true or false, got 'yes'"),
        (lambda: encoder(fusion="x"), "encoder.fusion must be one of adn, spade, adain, concat, add, conv, got 'x'"),
        (
            lambda: ModelConfig(latent=LatentConfig(z_dim=10**19)),
            "latent.z_dim must be a whole number in 1..8192, got 1",
        ),
        (
            lambda: ModelConfig(latent=LatentConfig(mapping_layers=65)),
            "latent.mapping_layers must be a whole number in",
        ),
        (
            lambda: ModelConfig(latent=LatentConfig(n_mean=0)),
            "latent.n_mean must be a whole number in 1..1000000, got 0",
        ),
        (lambda: ModelConfig(latent=LatentConfig(tau=1.5)), "latent.tau must be a number in 0..1, got 1.5"),
        (
            lambda: ModelConfig(latent=LatentConfig(layer_split=(3, 15))),
            "latent.layer_split must ascend and not exceed the 14 style codes, got 3, 15",
        ),
        (lambda: ModelConfig(latent=LatentConfig(layer_split=(4, 3))), "latent.layer_split must ascend"),
        (lambda: ModelConfig(generator=GeneratorConfig(conv_clamp=-1)), "generator.conv_clamp must be a number >= 0"),
    ],
)
def test_what_cannot_be_built_is_refused(make, words: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the whole line is compared
        make()
    assert str(refused.value).startswith(words)


def test_the_ends_of_each_rule_are_allowed():
    configs = [
        encoder(patch_sizes=(32,), dilations=(1, 31), width=4, attention_heads=16, num_classes=255, levels=64),
        ModelConfig(latent=LatentConfig(layer_split=(0, 0), tau=0)),
        ModelConfig(latent=LatentConfig(layer_split=(14, 14), tau=1, resample_every=5)),
        ModelConfig(generator=GeneratorConfig(channel_base=256)),
    ]
    assert [ModelConfig.from_dict(json.loads(config.to_json())) for config in configs] == configs
    assert configs[-1].generator.channels(256) == 1


def test_overrides_are_json_where_they_are_json():
    config = with_overrides(TINY, ["encoder.gma=false", "encoder.patch_sizes=[4]", "latent.structure_in=rgb"])
    assert (config.encoder.gma, config.encoder.patch_sizes, config.latent.structure_in) == (False, (4,), "rgb")
    assert with_overrides(TINY, []) == TINY


@pytest.mark.parametrize(
    "item", ["encoder", "encoder.levels", "encoder=1", "nothing.levels=1", "encoder.nothing=1", "="]
)
def test_overrides_that_name_nothing(item: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the whole line is compared
        with_overrides(TINY, [item])
    assert str(refused.value) == f"an override must read section.key=value with a known key, got {item!r}"


def test_an_override_of_bottomless_nesting_is_refused():
    with pytest.raises(ValueError, match=r"encoder\.dilations must be a list"):
        with_overrides(TINY, ["encoder.dilations=" + "[" * 100_000])


def test_an_unknown_preset():
    with pytest.raises(
        ValueError, match=r"^unknown preset 'celeba'; presets are celebahq-256, celebahq-512, .*, tiny-32$"
    ):
        from_preset("celeba")


def test_unknown_keys_name_their_place():
    with pytest.raises(ValueError, match=r"^model\.encoder: unknown keys \['magic'\]; known keys are \['acb_post', "):
        ModelConfig.from_dict({"encoder": {"magic": 1}})
