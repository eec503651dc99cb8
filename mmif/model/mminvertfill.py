"""MMInvertFill: multimodal encoder, pre-modulation, and a StyleGAN2 generator that sees the known pixels (Figure 3)."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from typing import NamedTuple

import torch
from torch import Tensor, nn

from mmif.config import ModelConfig
from mmif.model.attention import area_resize
from mmif.model.encoder import Conditions, EncoderOutput, MultimodalGuidedEncoder
from mmif.model.generator import Generator
from mmif.model.premodulation import GradualStyleBlock, PreModulation, SoftUpdateMeanLatent
from mmif.model.rgb_branch import RGBBranch


class Output(NamedTuple):
    """What the model predicts. ``s`` is the generator's resolution, ``e`` the encoder's."""

    image: Tensor  # Yhat [N, 3, s, s], float32, about [-1, 1]
    images: list[Tensor]  # Yhat^r at e/8, e/4, e/2
    edges: list[Tensor]  # Ehat^r in [0, 1]; empty if the branch is off
    segs: list[Tensor]  # Shat^r logits; empty if the branch is off
    edge_full: Tensor | None  # [N, 1, e, e] in [0, 1]
    seg_full: Tensor | None  # [N, K, e, e] logits
    ws: Tensor  # w* [N, L, w_dim]


class MMInvertFill(nn.Module):
    """Fill the hole of a photograph by GAN inversion, Eqs. 4 to 6."""

    def __init__(self, config: ModelConfig):
        super().__init__()
        self.config = config
        latent, sides = config.latent, self._structure_sides()
        self.encoder = MultimodalGuidedEncoder(config.encoder)
        width = config.encoder.width
        features = zip((4 * width, 2 * width, width), (8, 4, 2), strict=True)
        self.map2style = nn.ModuleList(
            GradualStyleBlock(c, latent.w_dim, config.encoder.resolution // d) for c, d in features
        )
        self.map2structure = nn.ModuleList()
        self.premodulation = nn.ModuleList()
        if latent.premodulation:
            channels = self._structure_channels()
            self.map2structure.extend(GradualStyleBlock(channels, latent.w_dim, side) for side in sides)
            self.premodulation.extend(
                PreModulation(latent.w_dim, latent.premod_layers) for _ in range(config.generator.num_ws)
            )
        self.generator = Generator(latent, config.generator)
        self.rgb_branch = RGBBranch(config.generator) if config.generator.latent == "f&w+" else None
        self.mean_latent = SoftUpdateMeanLatent(latent)

    def forward(
        self,
        image: Tensor,
        hole: Tensor,
        seg: Tensor | None = None,
        seg_hole: Tensor | None = None,
        edge: Tensor | None = None,
        edge_hole: Tensor | None = None,
        *,
        noise: Sequence[Tensor] | None = None,
        mean_latent: Tensor | None = None,
    ) -> Output:
        """Predict the whole photograph; what lies inside ``hole`` is never read.

        Args:
            image: ``[N, 3, s, s]`` in [-1, 1].
            hole: ``[N, 1, s, s]``, 1 = missing.
            seg: one-hot ``[N, K, s, s]``, or None for no guidance.
            seg_hole: ``[N, 1, s, s]``, 1 = segmentation unknown; None with ``seg``: known everywhere.
            edge: ``[N, 1, s, s]`` in {0, 1}, or None.
            edge_hole: like ``seg_hole``.
            noise: from :meth:`make_noise`; None draws fresh noise from torch's global generator.
            mean_latent: ``[N, w_dim]``; None: the soft-update latent in training, the static mean otherwise.
        """
        given = self._conditions(image, hole, seg, seg_hole, edge, edge_hole)
        encoded = self.encoder(given)
        ws = self._style_codes(encoded, self._mean(image.shape[0], mean_latent))
        feats = None if self.rgb_branch is None else self.rgb_branch(image, hole)
        if noise is None:
            sides = self.generator.synthesis.noise_sizes
            noise = [torch.randn(image.shape[0], 1, r, r, device=image.device) for r in sides]
        filled = self.generator.synthesis(ws, noise, feats)
        maps = (encoded.images, encoded.edges, encoded.segs, encoded.edge_full, encoded.seg_full)
        return Output(filled, *maps, ws)

    def _conditions(
        self,
        image: Tensor,
        hole: Tensor,
        seg: Tensor | None,
        seg_hole: Tensor | None,
        edge: Tensor | None,
        edge_hole: Tensor | None,
    ) -> Conditions:
        """Mask the three modalities, Y(1-M), E(1-M_E), S(1-M_S), and bring them to the encoder's resolution."""
        nothing = torch.ones_like(hole)
        if edge is None:
            edge, edge_hole = torch.zeros_like(hole), nothing
        if seg is None:
            seg, seg_hole = hole.new_zeros(hole.shape[0], self.config.encoder.num_classes, *hole.shape[2:]), nothing
        edge_hole = torch.zeros_like(hole) if edge_hole is None else edge_hole
        seg_hole = torch.zeros_like(hole) if seg_hole is None else seg_hole
        full = Conditions(image * (1 - hole), hole, edge * (1 - edge_hole), edge_hole, seg * (1 - seg_hole), seg_hole)
        return Conditions(*(area_resize(x, self.config.encoder.resolution) for x in full))

    def _style_codes(self, encoded: EncoderOutput, mean: Tensor) -> Tensor:
        """w* [N, L, w_dim]: styles and structures of three scales through one pre-modulation per layer, Eq. 4."""
        styles = [net(h) for net, h in zip(self.map2style, encoded.features, strict=True)]
        structures = [net(x) for net, x in zip(self.map2structure, self._structures(encoded), strict=False)]
        codes = []
        for layer in range(self.config.generator.num_ws):
            r = self._scale_of(layer)
            if self.config.latent.premodulation:
                codes.append(self.premodulation[layer](styles[r], structures[r]))
            else:
                codes.append(styles[r])
        ws = torch.stack(codes, dim=1)
        return ws + mean[:, None] if self.config.latent.sml_offset else ws

    def _scale_of(self, layer: int) -> int:
        """Decoder scale 0..2 that feeds style layer 0..L-1."""
        first, second = self.config.latent.layer_split
        return 0 if layer < first else 1 if layer < second else 2

    def _structures(self, encoded: EncoderOutput) -> list[Tensor]:
        """X^r = [Yhat^r; Ehat^r; softmax(Shat^r)], or Yhat^r alone."""
        if self.config.latent.structure_in == "rgb":
            return encoded.images
        parts = [encoded.images, encoded.edges, [s.softmax(1) for s in encoded.segs]]
        return [torch.cat(x, dim=1) for x in zip(*(p for p in parts if p), strict=True)]

    def _structure_channels(self) -> int:
        enc = self.config.encoder
        if self.config.latent.structure_in == "rgb":
            return 3
        return 3 + (enc.edge_guidance != "off") + enc.num_classes * (enc.seg_guidance != "off")

    def _structure_sides(self) -> list[int]:
        enc = self.config.encoder
        scale = 1 if enc.head_scales == "aligned" else 2
        return [scale * enc.resolution // d for d in (8, 4, 2)]

    def _mean(self, n: int, mean_latent: Tensor | None) -> Tensor:
        if mean_latent is not None:
            return mean_latent
        soft = self.training and self.config.latent.sml
        return (self.mean_latent.online if soft else self.mean_latent.static).expand(n, -1)

    def make_noise(self, keys: Sequence[tuple[int, int]]) -> list[Tensor]:
        """Noise images for every convolution, keyed by (seed, image index): batch and order do not matter.

        Drawn on the CPU, so that every device gets the same.
        """
        device = self.mean_latent.static.device
        generators = [_generator("noise", key) for key in keys]
        return [
            torch.stack([torch.randn(1, r, r, generator=g) for g in generators]).to(device)
            for r in self.generator.synthesis.noise_sizes
        ]

    @torch.no_grad()
    def sample_mean_latent(self, keys: Sequence[tuple[int, int]]) -> Tensor:
        """Mean latents [N, w_dim] of ``n_mean`` latents each, as training draws them: several answers for one hole."""
        count = self.config.latent.n_mean
        draws = [self.mean_latent.draw(self.generator.mapping, count, _generator("latent", key)) for key in keys]
        return torch.stack(draws)


def _generator(purpose: str, key: tuple[int, int]) -> torch.Generator:
    digest = hashlib.sha256(f"{purpose},{key[0]},{key[1]}".encode()).digest()
    return torch.Generator().manual_seed(int.from_bytes(digest[:8], "big") >> 1)
