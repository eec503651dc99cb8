"""How edge and segmentation features act on the inpainting branch: ADN and its rivals (paper Eq. 2 and Table 7).

Every fusion maps the branch feature ``x`` [N, C, H, W] and the guidance ``aux`` [N, A, H, W] (edge and segmentation
features concatenated) to a tensor like ``x``. Without any guidance A is 0 and the fusion works on ``x`` alone.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def layer_norm_chw(x: Tensor) -> Tensor:
    """Normalise every sample over (C, H, W), without affine; the statistics run in float32."""
    return F.group_norm(x.float(), 1).to(x.dtype)


class _Embed(nn.Module):
    """1x1 convolution of the guidance to C channels; zeros where there is none."""

    def __init__(self, aux_channels: int, channels: int):
        super().__init__()
        self.conv = nn.Conv2d(aux_channels, channels, 1) if aux_channels else None

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        return torch.zeros_like(x) if self.conv is None else self.conv(aux)


class AuxiliaryDenorm(nn.Module):
    """ADN, Eq. 2: ``gamma(u) * LN(x) + beta([x; u])`` with ``u = embed(aux)``; LN over (C, H, W) without affine."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.embed = _Embed(aux_channels, channels)
        self.gamma = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Conv2d(2 * channels, channels, 1)
        self.gamma.bias = nn.Parameter(torch.ones(channels))
        nn.init.zeros_(self.beta.weight)
        self.beta.bias = nn.Parameter(torch.zeros(channels))

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        u = self.embed(x, aux)
        return self.gamma(u) * layer_norm_chw(x) + self.beta(torch.cat([x, u], dim=1))


class SPADE(nn.Module):
    """Spatially adaptive denormalisation (Park et al. 2019): ``BN(x) * (1 + gamma(aux)) + beta(aux)``."""

    def __init__(self, channels: int, aux_channels: int, hidden: int = 128):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = nn.Conv2d(max(aux_channels, 1), hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        u = F.relu(self.shared(aux if aux.shape[1] else x.new_zeros(x.shape[0], 1, *x.shape[2:])))
        return self.norm(x) * (1 + self.gamma(u)) + self.beta(u)


class AdaIN(nn.Module):
    """Adaptive instance norm: scale and shift per channel from the spatial mean of the guidance."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.embed = _Embed(aux_channels, channels)
        self.affine = nn.Linear(channels, 2 * channels)

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        gamma, beta = self.affine(self.embed(x, aux).mean((2, 3)))[..., None, None].chunk(2, dim=1)
        return F.instance_norm(x) * (1 + gamma) + beta


class Concat(nn.Module):
    """1x1 convolution of ``[x; aux]``."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels + aux_channels, channels, 1)

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        return self.conv(torch.cat([x, aux], dim=1))


class Add(nn.Module):
    """``x + embed(aux)``."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.embed = _Embed(aux_channels, channels)

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        return x + self.embed(x, aux)


class ConvFusion(nn.Module):
    """Two 3x3 convolutions of ``[x; aux]`` with a leaky ReLU between."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels + aux_channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        return self.body(torch.cat([x, aux], dim=1))


FUSIONS = {"adn": AuxiliaryDenorm, "spade": SPADE, "adain": AdaIN, "concat": Concat, "add": Add, "conv": ConvFusion}
