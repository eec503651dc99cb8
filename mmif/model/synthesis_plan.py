"""The synthesis network for inference: styles of all layers first, then two kernels per layer.

Each convolution reads an input that the epilogue before it has already multiplied by its styles, and each epilogue does
all that stands between two convolutions (:func:`mmif.ops.conv_epilogue`). The parameters are those of the network
itself; what is derived from them is kept until they change.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.model.layers import RESAMPLE_TAPS, EqualLinear
from mmif.model.synthesis import SynthesisBlock, SynthesisLayer
from mmif.model.synthesis import ToRGB as ToRGBLayer
from mmif.ops import ToRGB, conv_epilogue, demodulate, setup_filter


@dataclass(frozen=True, slots=True)
class Convolution:
    """One convolution with its epilogue's constants."""

    weight: Tensor  # [O, I, 3, 3], channels_last, or [I, O, 3, 3] where it is transposed
    bias: Tensor  # [O]
    noise_strength: Tensor
    in_channels: int
    out_channels: int
    up: bool
    resolution: int


@dataclass(frozen=True, slots=True)
class Affine:
    """The style layers of several convolutions as one batched product: ``styles = ws @ weight + bias``."""

    weight: Tensor  # [L, w_dim, I], padded with zeros to the widest
    bias: Tensor  # [L, 1, I]
    rows: Tensor  # [L], the row of ws that each reads; on the device, since copying it there stops a capture

    def __call__(self, ws: Tensor) -> Tensor:
        """``ws`` [N, K, w_dim] to styles [L, N, I], float32."""
        return torch.baddbmm(self.bias, ws.index_select(1, self.rows).transpose(0, 1).float(), self.weight)


class SynthesisPlan:
    """What inference derives from the parameters of a ``SynthesisNetwork`` (all but ``add_at="pre_upconv"``)."""

    def __init__(self, blocks: Sequence[SynthesisBlock], const: Tensor, clamp: float, dtype: torch.dtype):
        layers = _layers(blocks)
        self.convs = [_prepare(layer, dtype) for layer in layers.convs]
        self.conv_affine = _affine([layer.affine for layer in layers.convs], layers.conv_rows)
        self.to_rgbs = layers.to_rgbs
        self.rgb_affine = _affine(
            [layer.affine for layer in self.to_rgbs], layers.rgb_rows, [t.weight_scale for t in self.to_rgbs]
        )
        self.rgb_weights = [layer.weight.flatten(1).float() for layer in self.to_rgbs]
        self.w2 = _padded([(layer.weight.float() * layer.weight_scale).square().sum((2, 3)) for layer in layers.convs])
        self.const = const[None].to(dtype)
        self.filter = setup_filter(RESAMPLE_TAPS).to(const.device)
        self.clamp = clamp

    def __call__(self, ws: Tensor, noise: Sequence[Tensor], feats: dict[int, Tensor], replace_const: bool) -> Tensor:
        """Arguments and result as those of ``SynthesisNetwork.forward``; dtypes are the plan's own."""
        with torch.autocast(ws.device.type, enabled=False):
            return self._run(ws, noise, feats, replace_const)

    def _run(self, ws: Tensor, noise: Sequence[Tensor], feats: dict[int, Tensor], replace_const: bool) -> Tensor:
        styles, demod = demodulate(self.conv_affine(ws), self.w2)
        rgb_styles = self.rgb_affine(ws)
        x = self._start(ws.shape[0], feats.get(4), styles[0, :, : self.convs[0].in_channels], replace_const)
        image, block = None, 0
        for i, conv in enumerate(self.convs):
            following = self.convs[i + 1] if i + 1 < len(self.convs) else None
            to_rgb = None
            if not conv.up:
                rgb = self.to_rgbs[block]
                block_styles = rgb_styles[block, :, : conv.out_channels]
                to_rgb = ToRGB(
                    self.rgb_weights[block], block_styles, rgb.bias.float(), image, self.clamp, following is None
                )
                block += 1
            x, new_image = conv_epilogue(
                self._convolve(x, conv),
                demod=demod[i, :, : conv.out_channels],
                noise=noise[i].float(),
                noise_strength=conv.noise_strength,
                bias=conv.bias,
                skip=feats[conv.resolution].to(x.dtype) if conv.up and conv.resolution in feats else None,
                next_styles=None if following is None else styles[i + 1, :, : following.in_channels],
                to_rgb=to_rgb,
                resample_filter=self.filter,
                blur=conv.up,
                act="lrelu",
                clamp=self.clamp,
            )
            image = image if new_image is None else new_image
        assert image is not None
        return image

    def _start(self, n: int, feat: Tensor | None, styles: Tensor, replace_const: bool) -> Tensor:
        const = self.const.expand(n, -1, -1, -1)
        y, skip = (const, None) if feat is None else (feat.to(const.dtype), None if replace_const else const)
        return conv_epilogue(y, skip=skip, next_styles=styles)[0]

    @staticmethod
    def _convolve(x: Tensor, conv: Convolution) -> Tensor:
        if conv.up:
            return F.conv_transpose2d(x, conv.weight, stride=2)
        return F.conv2d(x, conv.weight, padding=1)


class _Layers(NamedTuple):
    """All convolutions and toRGB layers with the rows of ws they read; toRGB shares the next convolution's row."""

    convs: list[SynthesisLayer]
    conv_rows: list[int]
    to_rgbs: list[ToRGBLayer]
    rgb_rows: list[int]


def _layers(blocks: Sequence[SynthesisBlock]) -> _Layers:
    convs: list[SynthesisLayer] = []
    rows: list[int] = []
    rgb_rows: list[int] = []
    for block in blocks:
        for layer in [block.conv1] if block.first else [block.conv0, block.conv1]:
            rows.append(len(convs))
            convs.append(layer)
        rgb_rows.append(len(convs))
    return _Layers(convs, rows, [block.torgb for block in blocks], rgb_rows)


def _prepare(layer: SynthesisLayer, dtype: torch.dtype) -> Convolution:
    weight = (layer.weight * layer.weight_scale).to(dtype)
    up = layer.up == 2
    shaped = weight.transpose(0, 1).contiguous() if up else weight
    return Convolution(
        shaped.contiguous(memory_format=torch.channels_last),
        layer.bias.float(),
        layer.noise_strength.float(),
        weight.shape[1],
        weight.shape[0],
        up,
        layer.resolution,
    )


def _affine(layers: Sequence[EqualLinear], rows: list[int], scales: Sequence[float] | None = None) -> Affine:
    factors = scales or [1.0] * len(layers)
    weights = [s * layer.weight.float() * layer.scale for s, layer in zip(factors, layers, strict=True)]
    biases = [s * layer.bias.float()[:, None] for s, layer in zip(factors, layers, strict=True)]
    return Affine(
        _padded(weights).mT.contiguous(), _padded(biases).mT.contiguous(), torch.tensor(rows, device=weights[0].device)
    )


def _padded(matrices: Sequence[Tensor]) -> Tensor:
    """Stack matrices of several sizes, filled up with zeros."""
    height, width = (max(m.shape[d] for m in matrices) for d in (0, 1))
    return torch.stack([F.pad(m, (0, width - m.shape[1], 0, height - m.shape[0])) for m in matrices])
