"""MobileNetV2, frozen, with its published ImageNet weights."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from mmif.backbones.imagenet import MEAN, STD
from mmif.backbones.weights import find_weights


def _conv_bn_relu(inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> nn.Sequential:
    conv = nn.Conv2d(inputs, outputs, kernel, stride, kernel // 2, groups=groups, bias=False)
    return nn.Sequential(conv, nn.BatchNorm2d(outputs), nn.ReLU6(inplace=True))


class InvertedResidual(nn.Module):
    """Expand by 1x1, filter each channel by 3x3, project by 1x1; added to the input where the shapes agree."""

    def __init__(self, inputs: int, outputs: int, stride: int, expand: int) -> None:
        super().__init__()
        hidden = inputs * expand
        widen = [_conv_bn_relu(inputs, hidden, 1)] if expand > 1 else []
        filter_ = _conv_bn_relu(hidden, hidden, 3, stride, groups=hidden)
        self.conv = nn.Sequential(*widen, filter_, nn.Conv2d(hidden, outputs, 1, bias=False), nn.BatchNorm2d(outputs))
        self.residual = stride == 1 and inputs == outputs

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv(x) if self.residual else self.conv(x)


# expansion, output channels, blocks, stride of the first block
_STAGES = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 3, 2), (6, 320, 1, 1))


class Trunk(nn.Sequential):
    """The nineteen blocks 0..18 before the classifier; block 3 has stride 4, 6 stride 8, 13 stride 16, 17 stride 32."""

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        blocks: list[nn.Module] = [_conv_bn_relu(3, 32, 3, stride=2)]
        channels = 32
        for expand, outputs, repeats, stride in _STAGES:
            for i in range(repeats):
                blocks.append(InvertedResidual(channels, outputs, stride if i == 0 else 1, expand))
                channels = outputs
        super().__init__(*blocks, _conv_bn_relu(channels, 1280, 1))
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    def forward(self, x: Tensor, taps: Sequence[int] = (18,)) -> list[Tensor]:
        """Return the outputs of the blocks named in ``taps``, for RGB images [N, 3, H, W] in [0, 1]."""
        if not taps or not all(0 <= tap < len(self) for tap in taps):
            raise ValueError(f"taps must be block numbers 0..{len(self) - 1}, got {tuple(taps)}")
        x = (x - self.mean) / self.std
        found: dict[int, Tensor] = {}
        for i, block in enumerate(self):
            x = block(x)
            if i in taps:
                found[i] = x
            if i == max(taps):
                break
        return [found[tap] for tap in taps]


class MobileNetV2(nn.Module):
    """MobileNetV2 (width 1) with the state-dict keys of the published ImageNet file.

    ``net.features(x, taps)`` gives intermediate features of images [N, 3, H, W] in [0, 1]; ``net(x)`` the 1000 logits.
    """

    def __init__(self) -> None:
        super().__init__()
        self.features = Trunk()
        self.classifier = nn.Sequential(nn.Identity(), nn.Linear(1280, 1000))

    def forward(self, x: Tensor) -> Tensor:
        return self.classifier(self.features(x)[0].mean((2, 3)))

    def fold(self) -> MobileNetV2:
        """Fold every batch norm into its convolution, in place: faster, and train() no longer changes the result."""
        self.eval()
        for module in self.modules():
            if isinstance(module, nn.Sequential):
                for i in range(len(module) - 1):
                    conv, norm = module[i], module[i + 1]
                    if isinstance(conv, nn.Conv2d) and isinstance(norm, nn.BatchNorm2d):
                        module[i], module[i + 1] = fuse_conv_bn_eval(conv, norm), nn.Identity()
        return self


def mobilenet_v2(weights: str | Path | None = None) -> MobileNetV2:
    """Return the frozen ImageNet network on the CPU, batch norms folded; gradients flow to the images only.

    Args:
        weights: passed to :func:`mmif.backbones.weights.find_weights`.
    """
    net = MobileNetV2()
    state = torch.load(io.BytesIO(find_weights("mobilenet_v2", weights)), map_location="cpu", weights_only=True)
    net.load_state_dict(state)
    return net.fold().requires_grad_(False)
