"""From features to style codes: map2style, map2structure, pre-modulation, soft-update mean latent (section 3.3)."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from mmif.config import LatentConfig
from mmif.model.generator import MappingNetwork
from mmif.model.layers import EqualLinear
from mmif.ops import adaptive_norm


class GradualStyleBlock(nn.Module):
    """A map of ``size`` x ``size`` to one code: strided convolutions down to 1x1, then dense. map2style/structure."""

    def __init__(self, in_channels: int, w_dim: int, size: int):
        super().__init__()
        layers: list[nn.Module] = []
        for i in range(int(math.log2(size))):
            layers += [nn.Conv2d(in_channels if i == 0 else w_dim, w_dim, 3, 2, 1), nn.LeakyReLU(0.01)]
        self.convs = nn.Sequential(*layers)
        self.dense = EqualLinear(w_dim, w_dim)

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.convs(x).flatten(1))


class PreModulation(nn.Module):
    """Eq. 4 for one style layer: ``w*_l = gamma * IN(w') + beta`` with gamma, beta from ``[s; w']``.

    Instance norm of a vector is taken over its entries. gamma starts at 0.1 and beta at 0, so that a code added to the
    mean latent starts near it.
    """

    def __init__(self, w_dim: int, layers: int):
        super().__init__()
        self.dense = nn.Sequential(EqualLinear(w_dim, w_dim), EqualLinear(w_dim, w_dim))
        self.gamma = self._head(w_dim, layers, bias=0.1)
        self.beta = self._head(w_dim, layers, bias=0.0)

    @staticmethod
    def _head(w_dim: int, layers: int, bias: float) -> nn.Sequential:
        hidden = [EqualLinear(2 * w_dim, w_dim, act="lrelu")] if layers == 2 else []
        inputs = w_dim if hidden else 2 * w_dim
        return nn.Sequential(*hidden, EqualLinear(inputs, w_dim, bias_init=bias, weight_init=0.0))

    def forward(self, style: Tensor, structure: Tensor) -> Tensor:
        """``style`` w'_r and ``structure`` s_r, both [N, w_dim], to the code [N, w_dim] of one layer."""
        both = torch.cat([structure, style], dim=1)
        return adaptive_norm(self.dense(style), self.gamma(both), self.beta(both))


class SoftUpdateMeanLatent(nn.Module):
    """SML: the mean latent that generation uses follows a target which is drawn anew from time to time.

    Each step ``online <- tau * target + (1 - tau) * online``. When the online latent has come within one percent of
    the gap it started with, or after ``resample_every`` steps, the target becomes the mean of ``n_mean`` fresh mapped
    latents. ``tau = 0`` never moves: a static mean. For inference there is the mean of ``n_static`` latents. All of it
    is kept in buffers and so in every checkpoint.
    """

    online: Tensor
    target: Tensor
    static: Tensor
    gap: Tensor
    age: Tensor

    def __init__(self, config: LatentConfig):
        super().__init__()
        self.config = config
        for name in ("online", "target", "static"):
            self.register_buffer(name, torch.zeros(config.w_dim))
        self.register_buffer("gap", torch.zeros(()))
        self.register_buffer("age", torch.zeros((), dtype=torch.int64))

    @property
    def resample_after(self) -> int:
        """Steps after which the target is replaced in any case: enough to close 99 % of the gap."""
        if self.config.resample_every:
            return self.config.resample_every
        return math.ceil(math.log(100) / self.config.tau) if self.config.tau > 0 else 2**62

    @torch.no_grad()
    def reset(self, mapping: MappingNetwork) -> None:
        """Draw online, target and static latents from ``mapping``; once, when the generator is known."""
        self.online.copy_(self.draw(mapping, self.config.n_mean))
        self.static.copy_(self.draw(mapping, self.config.n_static))
        self._resample(mapping)

    @torch.no_grad()
    def update(self, mapping: MappingNetwork) -> None:
        """One training step."""
        self.online.lerp_(self.target, self.config.tau)
        self.age += 1
        close = (self.online - self.target).square().mean().sqrt() < 0.01 * self.gap
        if self.config.tau > 0 and (bool(close) or int(self.age) >= self.resample_after):
            self._resample(mapping)

    def draw(self, mapping: MappingNetwork, count: int, generator: torch.Generator | None = None) -> Tensor:
        """Mean of ``count`` mapped latents, [w_dim]; drawn on the CPU so that devices agree."""
        z = torch.randn(count, self.config.z_dim, generator=generator)
        return mapping(z.to(self.online.device)).mean(0)

    def _resample(self, mapping: MappingNetwork) -> None:
        self.target.copy_(self.draw(mapping, self.config.n_mean))
        self.gap.copy_((self.online - self.target).square().mean().sqrt())
        self.age.zero_()
