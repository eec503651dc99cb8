"""Multimodal guided encoder: backbone, bottlenecks, mutual decoder, heads (paper sections 3.1 and 3.2, Figure 3).

Sizes below are for the paper's 256-pixel encoder of width 64; ``w`` is the width, ``s`` the encoder's resolution.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.config import EncoderConfig
from mmif.model.attention import GatedMaskAttention, area_resize
from mmif.model.bottleneck import BOTTLENECKS, SelfAttention
from mmif.model.layers import GatedConv2d


class Conditions(NamedTuple):
    """What the encoder is given, all at its resolution and masked: unknown places are zero."""

    image: Tensor  # [N, 3, s, s] in [-1, 1]
    hole: Tensor  # [N, 1, s, s], 1 = missing
    edge: Tensor  # [N, 1, s, s] in {0, 1}
    edge_hole: Tensor  # [N, 1, s, s]
    seg: Tensor  # [N, K, s, s] one-hot
    seg_hole: Tensor  # [N, 1, s, s]


class EncoderOutput(NamedTuple):
    """Features and predictions at three scales, coarse to fine; lists are empty for a branch that is off."""

    features: list[Tensor]  # h^r of the inpainting branch: [N, 4w, s/8], [N, 2w, s/4], [N, w, s/2]
    images: list[Tensor]  # Yhat^r in [-1, 1], [N, 3, ., .]
    edges: list[Tensor]  # Ehat^r in [0, 1], [N, 1, ., .]
    segs: list[Tensor]  # Shat^r logits, [N, K, ., .]
    edge_full: Tensor | None  # [N, 1, s, s] in [0, 1]
    seg_full: Tensor | None  # [N, K, s, s] logits


class Backbone(nn.Module):
    """Five convolutions with a gated tail and self-attention before it; returns h3, its gate, h2 and h1."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        w = config.width
        inputs = 3 + 1 + 1 + 1 + config.num_classes + 1
        self.stem = nn.ModuleList([GatedConv2d(inputs, w, 7, stride=2), GatedConv2d(w, w, 7)])
        self.down1 = nn.Sequential(nn.Conv2d(w, 2 * w, 3, 2, 1, bias=False), nn.BatchNorm2d(2 * w), nn.ReLU())
        self.down2 = nn.Sequential(nn.Conv2d(2 * w, 4 * w, 3, 2, 1, bias=False), nn.BatchNorm2d(4 * w), nn.ReLU())
        self.attention = SelfAttention(4 * w, config.attention_heads)
        self.tail = GatedConv2d(4 * w, 4 * w, 3)

    def forward(self, given: Conditions) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        x = torch.cat(given, dim=1)
        for conv in self.stem:
            x, _ = conv(x)
        h1 = self.down1(x)  # [N, 128, 64, 64]
        h2 = self.down2(h1)  # [N, 256, 32, 32]
        h3, gate = self.tail(self.attention(h2))  # [N, 256, 32, 32] both
        return h3, gate, h2, h1


class AuxiliaryBranch(nn.Module):
    """Edge or segmentation branch of the mutual decoder, with its heads; ``outputs`` is 1 or K channels."""

    def __init__(self, outputs: int, config: EncoderConfig):
        super().__init__()
        w = config.width
        self.stages = nn.ModuleList(
            [
                nn.Conv2d(8 * w, 2 * w, 3, padding=1),
                nn.ConvTranspose2d(10 * w, 2 * w, 4, 2, 1),
                nn.ConvTranspose2d(6 * w, w, 4, 2, 1),
            ]
        )
        self.heads = nn.ModuleList(nn.Conv2d(c, outputs, 3, padding=1) for c in (2 * w, 2 * w, w))
        self.project = FullSizeHead(w, outputs) if config.full_res_aux else None

    def forward(self, stage: int, *inputs: Tensor) -> Tensor:
        return F.leaky_relu(self.stages[stage](torch.cat(inputs, dim=1)), 0.2)


class FullSizeHead(nn.Module):
    """Prediction at full size from scale 3 and the masked photograph."""

    def __init__(self, width: int, outputs: int):
        super().__init__()
        self.up = nn.ConvTranspose2d(width, width, 4, 2, 1)
        self.gated = GatedConv2d(width + 3, width // 2, 3)
        self.out = nn.Conv2d(width // 2, outputs, 3, padding=1)

    def forward(self, x: Tensor, image: Tensor) -> Tensor:
        x, _ = self.gated(torch.cat([F.relu(self.up(x)), image], dim=1))
        return self.out(x)


class MutualDecoder(nn.Module):
    """Three branches in three stages; the attended inpainting feature feeds the next stage of all branches."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        w = config.width
        self.edge = AuxiliaryBranch(1, config) if config.edge_guidance != "off" else None
        self.seg = AuxiliaryBranch(config.num_classes, config) if config.seg_guidance != "off" else None
        self.stages = nn.ModuleList(
            [
                nn.Conv2d(8 * w, 4 * w, 3, padding=1, bias=False),
                nn.ConvTranspose2d(8 * w, 2 * w, 4, 2, 1, bias=False),
                nn.ConvTranspose2d(4 * w, w, 4, 2, 1, bias=False),
            ]
        )
        widths = (4 * w, 2 * w, w)
        self.norms = nn.ModuleList(nn.BatchNorm2d(c) for c in widths)
        self.attentions = nn.ModuleList(
            GatedMaskAttention(c, self._aux_channels(a), config) if config.gma else nn.Identity()
            for c, a in zip(widths, (2 * w, 2 * w, w), strict=True)
        )
        self.heads = nn.ModuleList(nn.Conv2d(c, 3, 3, padding=1) for c in widths)

    def _aux_channels(self, features: int) -> int:
        def channels(guidance: str, outputs: int) -> int:
            return {"off": 0, "unbiased": features}.get(guidance, outputs)

        enc = self.config
        return channels(enc.edge_guidance, 1) + channels(enc.seg_guidance, enc.num_classes)

    def forward(self, f: Tensor, skips: tuple[Tensor, Tensor, Tensor], given: Conditions) -> EncoderOutput:
        """``f`` [N, 4w, s/8, s/8] from the bottlenecks; ``skips`` the backbone's h3, h2, h1, one per stage."""
        out = EncoderOutput([], [], [], [], None, None)
        h = edge = seg = f
        for r, skip in enumerate(skips):
            before = h
            h = F.leaky_relu(self.norms[r](self.stages[r](torch.cat([before, skip], dim=1))), 0.2)
            edge = self._branch(self.edge, r, edge, before, skip)
            seg = self._branch(self.seg, r, seg, before, skip)
            self._predict(out, r, edge, seg)
            if self.config.gma:
                aux = self._guidance(out, r, h, edge, seg, given)
                h = self.attentions[r](h, aux, area_resize(given.hole, h.shape[2]))
            out.features.append(h)
            out.images.append(torch.tanh(self.heads[r](self._head_input(h))))
        edge_full, seg_full = (
            None if branch is None or branch.project is None else branch.project(x, given.image)
            for branch, x in ((self.edge, edge), (self.seg, seg))
        )
        return out._replace(edge_full=None if edge_full is None else torch.sigmoid(edge_full), seg_full=seg_full)

    def _branch(self, branch: AuxiliaryBranch | None, r: int, own: Tensor, before: Tensor, skip: Tensor) -> Tensor:
        if branch is None:
            return own
        return branch(r, before, skip) if r == 0 else branch(r, own, before, skip)

    def _predict(self, out: EncoderOutput, r: int, edge: Tensor, seg: Tensor) -> None:
        if self.edge is not None:
            out.edges.append(torch.sigmoid(self.edge.heads[r](self._head_input(edge))))
        if self.seg is not None:
            out.segs.append(self.seg.heads[r](self._head_input(seg)))

    def _head_input(self, x: Tensor) -> Tensor:
        return x if self.config.head_scales == "aligned" else F.interpolate(x, scale_factor=2, mode="nearest")

    def _guidance(self, out: EncoderOutput, r: int, h: Tensor, edge: Tensor, seg: Tensor, given: Conditions) -> Tensor:
        """Concatenated guidance at the size of ``h``: features, predictions, or the maps that were given."""
        size, enc = h.shape[2], self.config
        parts = [h[:, :0]]
        if enc.edge_guidance == "unbiased":
            parts.append(edge)
        elif enc.edge_guidance == "biased":
            parts.append(area_resize(out.edges[r], size))
        elif enc.edge_guidance == "ground_truth":
            parts.append(area_resize(given.edge, size))
        if enc.seg_guidance == "unbiased":
            parts.append(seg)
        elif enc.seg_guidance == "biased":
            parts.append(area_resize(out.segs[r].softmax(1), size))
        elif enc.seg_guidance == "ground_truth":
            parts.append(area_resize(given.seg, size))
        return torch.cat(parts, dim=1)


class MultimodalGuidedEncoder(nn.Module):
    """MGE: masked photograph, edges and segmentation to features and predictions at three scales."""

    def __init__(self, config: EncoderConfig):
        super().__init__()
        self.config = config
        self.backbone = Backbone(config)
        block = BOTTLENECKS[config.bottleneck]
        self.bottlenecks = nn.ModuleList(block(4 * config.width, config) for _ in range(config.levels))
        self.decoder = MutualDecoder(config)

    def forward(self, given: Conditions) -> EncoderOutput:
        h3, gate, h2, h1 = self.backbone(given)
        f = h3
        for block in self.bottlenecks:
            f, gate = block(f, gate)
        return self.decoder(f, (h3, h2, h1), given)
