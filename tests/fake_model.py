"""A network with the interface of MMInvertFill that paints what a test can predict."""

from __future__ import annotations

from collections.abc import Sequence
from types import SimpleNamespace

import torch
from torch import Tensor

from mmif.config import from_preset


class FakeModel:
    """Fills with one grey level per (noise key, mean latent), whatever it sees; records its calls.

    Predicted labels are the given ones where known, else 1; predicted edges are the given ones.
    """

    def __init__(self, bad: float | None = None):
        self.config = from_preset("tiny-32")
        self.bad = bad  # put into the output
        self.calls: list[SimpleNamespace] = []

    def make_noise(self, keys: Sequence[tuple[int, int]]) -> list[Tensor]:
        return [torch.tensor([[float((7 * seed + index) % 97)] for seed, index in keys])]

    def sample_mean_latent(self, keys: Sequence[tuple[int, int]]) -> Tensor:
        return torch.tensor([[float((seed + index) % 53)] for seed, index in keys])

    def __call__(
        self, image, hole, seg=None, seg_hole=None, edge=None, edge_hole=None, *, noise, mean_latent=None
    ) -> SimpleNamespace:
        inputs = dict(image=image, hole=hole, seg=seg, seg_hole=seg_hole, edge=edge, edge_hole=edge_hole)
        self.calls.append(SimpleNamespace(**inputs, noise=noise, mean_latent=mean_latent))
        level = noise[0][:, 0] + (0 if mean_latent is None else mean_latent[:, 0])
        fill = (level / 127.5 - 1).view(-1, 1, 1, 1).expand_as(image).clone()
        if self.bad is not None:
            fill[-1, 0, 0, 0] = self.bad
        labels = torch.zeros(len(image), self.config.encoder.num_classes, *image.shape[2:])
        labels[:, 1] = 0.5
        labels = labels if seg is None else labels + seg
        edges = torch.zeros_like(hole) if edge is None else edge
        return SimpleNamespace(image=fill, seg_full=labels, edge_full=edges)
