"""Networks that a test can build without anybody's weights."""

from __future__ import annotations

import torch
from torch import nn

from mmif.backbones.mobilenet import MobileNetV2


def untrained_mobilenet(weights: object = None) -> MobileNetV2:
    """A MobileNetV2 with random weights, the same each time, in place of the published ones."""
    del weights
    torch.manual_seed(0)
    net = MobileNetV2()
    for module in net.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight)  # the default shrinks to denormal numbers, which cost seconds
    return net.fold().requires_grad_(False)
