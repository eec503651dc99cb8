"""How edge and segmentation features act on the inpainting branch: ADN and its rivals (paper Eq. 2 and Table 7).

Every fusion maps the branch feature ``x`` [N, C, H, W] and the guidance ``aux`` [N, A, H, W] (edge and segmentation
features concatenated) to a tensor like ``x``. Without any guidance A is 0 and the fusion works on ``x`` alone.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.ops import adaptive_norm


class Fusion(nn.Module):
    """A fusion in two steps: what depends on ``aux`` alone, once, then as many features as are fused with it."""

    def guide(self, aux: Tensor) -> Any:
        """What :meth:`fuse` needs to know of ``aux``."""
        return aux

    def fuse(self, x: Tensor, guide: Any) -> Tensor:
        """``x`` fused with what :meth:`guide` returned."""
        raise NotImplementedError

    def forward(self, x: Tensor, aux: Tensor) -> Tensor:
        return self.fuse(x, self.guide(aux))


class _Embed(nn.Module):
    """1x1 convolution of the guidance to C channels; zeros where there is none."""

    def __init__(self, aux_channels: int, channels: int):
        super().__init__()
        self.channels = channels
        self.conv = nn.Conv2d(aux_channels, channels, 1) if aux_channels else None

    def forward(self, aux: Tensor) -> Tensor:
        if self.conv is None:
            return aux.new_zeros(aux.shape[0], self.channels, *aux.shape[2:])
        return self.conv(aux)


class AuxiliaryDenorm(Fusion):
    """ADN, Eq. 2: ``gamma(u) * LN(x) + beta([x; u])`` with ``u = embed(aux)``; LN over (C, H, W) without affine.

    ``beta`` is a 1x1 convolution, so ``beta([x; u]) = W_x x + (W_u u + b)``: all but ``W_x x`` belongs to the guide.
    """

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.embed = _Embed(aux_channels, channels)
        self.gamma = nn.Conv2d(channels, channels, 1)
        self.beta = nn.Conv2d(2 * channels, channels, 1)
        self.gamma.bias = nn.Parameter(torch.ones(channels))
        nn.init.zeros_(self.beta.weight)
        self.beta.bias = nn.Parameter(torch.zeros(channels))

    def guide(self, aux: Tensor) -> tuple[Tensor, Tensor]:
        u = self.embed(aux)
        return self.gamma(u), F.conv2d(u, self.beta.weight[:, u.shape[1] :], self.beta.bias)

    def fuse(self, x: Tensor, guide: tuple[Tensor, Tensor]) -> Tensor:
        gamma, shift = guide
        return adaptive_norm(x, gamma, F.conv2d(x, self.beta.weight[:, : x.shape[1]]), shift)


class SPADE(Fusion):
    """Spatially adaptive denormalisation (Park et al. 2019): ``BN(x) * (1 + gamma(aux)) + beta(aux)``."""

    def __init__(self, channels: int, aux_channels: int, hidden: int = 128):
        super().__init__()
        self.norm = nn.BatchNorm2d(channels, affine=False)
        self.shared = nn.Conv2d(max(aux_channels, 1), hidden, 3, padding=1)
        self.gamma = nn.Conv2d(hidden, channels, 3, padding=1)
        self.beta = nn.Conv2d(hidden, channels, 3, padding=1)

    def guide(self, aux: Tensor) -> tuple[Tensor, Tensor]:
        u = F.relu(self.shared(aux if aux.shape[1] else aux.new_zeros(aux.shape[0], 1, *aux.shape[2:])))
        return 1 + self.gamma(u), self.beta(u)

    def fuse(self, x: Tensor, guide: tuple[Tensor, Tensor]) -> Tensor:
        scale, shift = guide
        return self.norm(x) * scale + shift


class AdaIN(Fusion):
    """Adaptive instance norm: scale and shift per channel from the spatial mean of the guidance."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.embed = _Embed(aux_channels, channels)
        self.affine = nn.Linear(channels, 2 * channels)

    def guide(self, aux: Tensor) -> tuple[Tensor, Tensor]:
        gamma, beta = self.affine(self.embed(aux).mean((2, 3)))[..., None, None].chunk(2, dim=1)
        return 1 + gamma, beta

    def fuse(self, x: Tensor, guide: tuple[Tensor, Tensor]) -> Tensor:
        scale, shift = guide
        return F.instance_norm(x) * scale + shift


class Concat(Fusion):
    """1x1 convolution of ``[x; aux]``."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.conv = nn.Conv2d(channels + aux_channels, channels, 1)

    def fuse(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.conv(torch.cat([x, guide], dim=1))


class Add(Fusion):
    """``x + embed(aux)``."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.embed = _Embed(aux_channels, channels)

    def guide(self, aux: Tensor) -> Tensor:
        return self.embed(aux)

    def fuse(self, x: Tensor, guide: Tensor) -> Tensor:
        return x + guide


class ConvFusion(Fusion):
    """Two 3x3 convolutions of ``[x; aux]`` with a leaky ReLU between."""

    def __init__(self, channels: int, aux_channels: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(channels + aux_channels, channels, 3, padding=1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(channels, channels, 3, padding=1),
        )

    def fuse(self, x: Tensor, guide: Tensor) -> Tensor:
        return self.body(torch.cat([x, guide], dim=1))


FUSIONS: dict[str, type[Fusion]] = {
    "adn": AuxiliaryDenorm,
    "spade": SPADE,
    "adain": AdaIN,
    "concat": Concat,
    "add": Add,
    "conv": ConvFusion,
}
