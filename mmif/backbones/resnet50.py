"""The dilated ResNet-50 that was trained to segment ADE20K; its weights come from the user."""

from __future__ import annotations

from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.backbones.imagenet import MEAN, STD


class _Bottleneck(nn.Module):
    def __init__(self, inputs: int, width: int, stride: int, dilation: int):
        super().__init__()
        outputs = 4 * width
        self.conv1 = nn.Conv2d(inputs, width, 1, bias=False)
        self.bn1 = nn.BatchNorm2d(width)
        self.conv2 = nn.Conv2d(width, width, 3, stride, dilation, dilation, bias=False)
        self.bn2 = nn.BatchNorm2d(width)
        self.conv3 = nn.Conv2d(width, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs)
        self.downsample = None
        if stride > 1 or inputs != outputs:
            self.downsample = nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride, bias=False), nn.BatchNorm2d(outputs))

    def forward(self, x: Tensor) -> Tensor:
        y = F.relu(self.bn1(self.conv1(x)))
        y = F.relu(self.bn2(self.conv2(y)))
        y = self.bn3(self.conv3(y))
        return F.relu(y + (x if self.downsample is None else self.downsample(x)))


class ResNet50Dilated(nn.Module):
    """ResNet-50 with a three-convolution stem, stride 8: layers 3 and 4 dilated by 2 and 4 instead of strided.

    Returns the outputs of layers 1 to 4 for images [N, 3, H, W] in [0, 1]: 256 channels at H/4, then 512, 1024 and
    2048 at H/8. The keys of its state dict are those of the published ADE20K encoder.
    """

    mean: Tensor
    std: Tensor

    def __init__(self) -> None:
        super().__init__()
        for i, (inputs, outputs, stride) in enumerate(((3, 64, 2), (64, 64, 1), (64, 128, 1)), start=1):
            self.add_module(f"conv{i}", nn.Conv2d(inputs, outputs, 3, stride, 1, bias=False))
            self.add_module(f"bn{i}", nn.BatchNorm2d(outputs))
        self.layer1 = self._layer(128, 64, blocks=3, stride=1, dilation=1)
        self.layer2 = self._layer(256, 128, blocks=4, stride=2, dilation=1)
        self.layer3 = self._layer(512, 256, blocks=6, stride=1, dilation=2)
        self.layer4 = self._layer(1024, 512, blocks=3, stride=1, dilation=4)
        self.register_buffer("mean", torch.tensor(MEAN).view(3, 1, 1), persistent=False)
        self.register_buffer("std", torch.tensor(STD).view(3, 1, 1), persistent=False)

    @staticmethod
    def _layer(inputs: int, width: int, blocks: int, stride: int, dilation: int) -> nn.Sequential:
        # Where a stride was traded for dilation, the first block dilates by half: it sees the undilated grid.
        layers = [_Bottleneck(inputs, width, stride, max(dilation // 2, 1))]
        layers += [_Bottleneck(4 * width, width, 1, dilation) for _ in range(blocks - 1)]
        return nn.Sequential(*layers)

    def forward(self, x: Tensor) -> list[Tensor]:
        x = (x - self.mean) / self.std
        for i in (1, 2, 3):
            x = F.relu(self.get_submodule(f"bn{i}")(self.get_submodule(f"conv{i}")(x)))
        x = F.max_pool2d(x, 3, 2, 1)
        outputs = []
        for layer in (self.layer1, self.layer2, self.layer3, self.layer4):
            x = layer(x)
            outputs.append(x)
        return outputs


def load_resnet50_ade20k(path: str | Path | None) -> ResNet50Dilated:
    """Load the published ADE20K encoder from ``path``; ValueError says what is wrong with the file."""
    if not path:
        raise ValueError(
            "resnet50_ade20k needs its weights: give the file encoder_epoch_20.pth of "
            "ade20k-resnet50dilated-ppm_deepsup with --perceptual-weights"
        )
    net = ResNet50Dilated()
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        net.load_state_dict(state)
    except OSError as error:
        raise ValueError(f"the perceptual weights {path} cannot be read: {error}") from error
    except Exception as error:
        first = str(error).strip().splitlines()[0]
        raise ValueError(f"{path} does not hold the ADE20K ResNet-50 encoder: {first}") from error
    return net
