"""Model configuration: frozen dataclasses and the named presets.

Every choice that the paper leaves open is a field here with its default, and every ablation of the paper's
Tables 5-8 is a value of a field. Section numbers refer to the paper's method as written down in ``docs/model.md``.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from mmif.options import Count, Factor, Length, Positive, Range, Share, build, check

# Bounds far beyond any sensible network: what comes from a file must not ask for all memory before it is looked at.
Side = Annotated[int, Range(32, 4096)]
Channels = Annotated[int, Range(1, 8192)]
Layers = Annotated[int, Range(1, 64)]
Lengths = Annotated[tuple[Annotated[int, Range(1, 4096)], ...], Length(1, 16)]
Guidance = Literal["unbiased", "biased", "ground_truth", "off"]


@dataclass(frozen=True, slots=True)
class EncoderConfig:
    """Multimodal guided encoder: backbone, bottlenecks, mutual decoder, heads."""

    resolution: Side = 256  # side in pixels of the square that the encoder sees
    width: Channels = 64  # channels at resolution/2; doubled at /4 and again at /8
    num_classes: Annotated[int, Range(1, 255)] = 15  # labels of the segmentation map; 255 is unknown
    attention_heads: Channels = 4  # heads of the backbone's one self-attention block
    bottleneck: Literal["acb", "aot", "res"] = "acb"  # Table 8
    levels: Layers = 8  # number of bottlenecks, Table 8
    dilations: Lengths = (1, 2, 3, 4)  # paths of one ACB
    acb_variant: Literal["paper", "code"] = "paper"  # Eq. 1, or what the predecessor released
    acb_post: bool = True  # batch norm + leaky ReLU after each bottleneck
    edge_guidance: Guidance = "unbiased"  # Table 6: features, predictions, ground truth, no branch
    seg_guidance: Guidance = "unbiased"
    fusion: Literal["adn", "spade", "adain", "concat", "add", "conv"] = "adn"  # Table 7
    adn_order: Literal["code", "text"] = "code"  # normalise after or before the q, k, v convolutions
    gma: bool = True  # Table 5: gated mask-aware attention
    gma_gate: Literal["post", "logit", "value", "log", "none"] = "post"  # place of the gate in Eq. 3
    gma_gate_mask: bool = True  # the gate network also sees the hole, resized by area
    patch_sizes: Lengths = (2, 4)  # one attention head per patch size
    gff: Literal["gated", "code"] = "gated"  # gated feed-forward
    head_scales: Literal["aligned", "upsampled"] = "aligned"  # heads at /8,/4,/2 or at /4,/2,/1
    full_res_aux: bool = True  # full-size edge and segmentation predictions from scale 3


@dataclass(frozen=True, slots=True)
class LatentConfig:
    """Style codes: map2style, map2structure, pre-modulation, soft-update mean latent."""

    z_dim: Channels = 512
    w_dim: Channels = 512
    mapping_layers: Layers = 8
    premodulation: bool = True  # Table 5; off: w*_l = w'_{r(l)}
    premod_layers: Literal[1, 2] = 2  # dense layers behind gamma and beta
    layer_split: tuple[Count, Count] = (3, 7)  # style layers 1..3 from scale 1, 4..7 from 2, the rest from 3
    structure_in: Literal["concat", "rgb"] = "concat"  # input of map2structure
    sml: bool = True  # Table 5; off: static mean latent
    sml_offset: bool = True  # w* = P(...) + mean latent
    tau: Share = 0.001  # soft update rate
    resample_every: Count = 0  # steps between fresh targets; 0: ceil(ln(100)/tau)
    n_mean: Annotated[int, Range(1, 10**6)] = 64  # latents averaged for one target
    n_static: Annotated[int, Range(1, 10**6)] = 10000  # latents averaged for inference


@dataclass(frozen=True, slots=True)
class GeneratorConfig:
    """StyleGAN2 generator with the F&W+ RGB branch, and the discriminator of its pre-training."""

    resolution: Side = 256
    channel_base: Positive = 32768  # channels at side r: min(channel_base / r, channel_max)
    channel_max: Channels = 512
    latent: Literal["f&w+", "w+"] = "f&w+"  # Table 5
    add_at: Literal["post_upconv", "pre_upconv"] = "post_upconv"  # where the RGB branch is added
    const_mode: Literal["add", "replace"] = "add"  # 4x4 feature added to, or instead of, the learned constant
    fbranch_mask: bool = True  # the RGB branch sees the hole as fourth channel
    fbranch_fill: Literal["zero", "diffuse"] = "zero"  # hole in the RGB branch's input: black, or colours diffused in
    conv_clamp: Factor = 256.0  # activations are clamped to +-conv_clamp

    def channels(self, resolution: int) -> int:
        return min(self.channel_base // resolution, self.channel_max)

    @property
    def resolutions(self) -> tuple[int, ...]:
        """Sides of all blocks, coarse to fine: 4, 8, ..., resolution."""
        return tuple(2**i for i in range(2, int(math.log2(self.resolution)) + 1))

    @property
    def num_ws(self) -> int:
        """Style inputs, L = 2 log2(s) - 2."""
        return 2 * int(math.log2(self.resolution)) - 2


@dataclass(frozen=True, slots=True)
class ModelConfig:
    """Everything that fixes the architecture of MMInvertFill."""

    encoder: EncoderConfig = field(default_factory=EncoderConfig)
    latent: LatentConfig = field(default_factory=LatentConfig)
    generator: GeneratorConfig = field(default_factory=GeneratorConfig)

    def __post_init__(self) -> None:
        check(self)
        enc, gen = self.encoder, self.generator
        for name, side in (("encoder.resolution", enc.resolution), ("generator.resolution", gen.resolution)):
            if side < 32 or side & (side - 1):
                raise ValueError(f"{name} must be a power of two >= 32, got {side}")
        if enc.resolution > gen.resolution:
            raise ValueError(
                f"encoder.resolution must not exceed generator.resolution, got {enc.resolution} > {gen.resolution}"
            )
        if not gen.channels(gen.resolution):
            raise ValueError(
                f"generator.channel_base must be >= generator.resolution, or the finest block has no channel; "
                f"got {gen.channel_base} < {gen.resolution}"
            )
        if any(enc.resolution // 8 % p for p in enc.patch_sizes):
            raise ValueError(
                f"encoder.patch_sizes must divide the coarsest feature map ({enc.resolution // 8}), "
                f"got {enc.patch_sizes}"
            )
        if enc.width % len(enc.patch_sizes) or enc.width * 4 % enc.attention_heads:
            raise ValueError(
                f"encoder.width must be a multiple of the {len(enc.patch_sizes)} patch sizes and 4*width of "
                f"attention_heads={enc.attention_heads}, got {enc.width}"
            )
        if max(enc.dilations) >= enc.resolution // 8:
            raise ValueError(
                f"encoder.dilations must be smaller than the coarsest feature map ({enc.resolution // 8}), "
                f"got {enc.dilations}: reflect padding cannot reach further"
            )
        first, second = self.latent.layer_split
        if not first <= second <= gen.num_ws:
            raise ValueError(
                f"latent.layer_split must ascend and not exceed the {gen.num_ws} style codes, got {first}, {second}"
            )

    @property
    def resolution(self) -> int:
        """Side in pixels of the square the model fills."""
        return self.generator.resolution

    def to_dict(self) -> dict[str, Any]:
        return dataclasses.asdict(self)

    def to_json(self) -> str:
        return json.dumps(self.to_dict(), indent=2)

    @classmethod
    def from_dict(cls, data: Any) -> ModelConfig:
        """Rebuild a configuration from :meth:`to_dict`; ValueError for unknown keys and values out of bounds."""
        return build(cls, data, "model")


def _square(size: int, num_classes: int, channel_base: int = 32768) -> ModelConfig:
    """The paper's model; above 256 pixels the encoder works on a copy reduced to 256."""
    return ModelConfig(
        encoder=EncoderConfig(resolution=min(size, 256), num_classes=num_classes),
        generator=GeneratorConfig(resolution=size, channel_base=channel_base),
    )


PRESETS: dict[str, ModelConfig] = {
    "celebahq-256": _square(256, 15),
    "celebahq-512": _square(512, 15),
    "places2-256": _square(256, 150),
    "places2-512": _square(512, 150),
    "ost-256": _square(256, 9),
    "cityscapes-256": _square(256, 20),
    "scenes-128": ModelConfig(
        encoder=EncoderConfig(resolution=64, width=16, num_classes=12, levels=4),
        latent=LatentConfig(z_dim=128, w_dim=128, mapping_layers=4),
        generator=GeneratorConfig(resolution=128, channel_base=2048, channel_max=128, fbranch_fill="diffuse"),
    ),
    # Not a product: the smallest network with every part, for tests and for reading.
    "tiny-32": ModelConfig(
        encoder=EncoderConfig(resolution=32, width=8, num_classes=4, levels=2, dilations=(1, 2), attention_heads=2),
        latent=LatentConfig(z_dim=16, w_dim=16, mapping_layers=2, n_mean=4, n_static=64),
        generator=GeneratorConfig(resolution=32, channel_base=512, channel_max=16),
    ),
}


def from_preset(name: str) -> ModelConfig:
    """Return the preset called ``name``; ValueError lists the known names."""
    if name not in PRESETS:
        raise ValueError(f"unknown preset {name!r}; presets are {', '.join(PRESETS)}")
    return PRESETS[name]


def with_overrides(config: ModelConfig, overrides: Sequence[str]) -> ModelConfig:
    """Return ``config`` with changes such as ``encoder.levels=4`` or ``generator.latent=w+``.

    The value is read as JSON where it is JSON, else as a string. ValueError names an unknown key.
    """
    data = config.to_dict()
    for item in overrides:
        path, equals, text = item.partition("=")
        section, _, key = path.partition(".")
        if not equals or section not in data or key not in data[section]:
            raise ValueError(f"an override must read section.key=value with a known key, got {item!r}")
        try:
            data[section][key] = json.loads(text)
        except (ValueError, RecursionError):
            data[section][key] = text
    return ModelConfig.from_dict(data)
