"""Modulated layers as NVIDIA's public StyleGAN2 code formulates them, written anew in PyTorch: what K3 to K5 must beat.

Two formulations, named after what the convolution sees. *Per-sample weights*: styles and demodulation go into the
weights, one set per image, and one grouped convolution takes the batch. *Scaled*: input and output are scaled and the
weight is shared. Both take the demodulation from the per-sample weights in full. FIR filter, bias and activation are
ours here, so that what is compared is the layer and not these kernels.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.model.generator import SynthesisNetwork
from mmif.model.synthesis import SynthesisBlock
from mmif.ops import bias_act, upfirdn2d
from mmif.ops.conv_epilogue import BLUR_PADDING

EPS = 1e-8
CLAMP = 256.0

# x, weight [O, I, 3, 3], styles [N, I], noise [N, 1, H, W], its strength, bias [O], filter of an up-layer or None
Layer = Callable[[Tensor, Tensor, Tensor, Tensor, Tensor, Tensor, Tensor | None], Tensor]


def per_sample_weights(
    x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, f: Tensor | None
) -> Tensor:
    """One grouped convolution with a weight for each image."""
    n, i, height, width = x.shape
    weight, styles = _normalised(weight, styles)
    w = weight[None] * styles[:, None, :, None, None]
    w = (w * _demodulation(w)[:, :, None, None, None]).to(x.dtype)
    grouped = x.reshape(1, n * i, height, width)
    if f is None:
        y = F.conv2d(grouped, w.flatten(0, 1), padding=1, groups=n)
    else:
        y = F.conv_transpose2d(grouped, w.transpose(1, 2).flatten(0, 1), stride=2, groups=n)
    y = _filtered(y.unflatten(1, (n, -1)).squeeze(0), f) + (noise * strength).to(x.dtype)
    return bias_act(y, bias.to(x.dtype), act="lrelu", clamp=CLAMP)


def scaled(
    x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, f: Tensor | None
) -> Tensor:
    """Scale, convolve with the shared weight, scale and add the noise in one operator."""
    weight, styles = _normalised(weight, styles)
    d = _demodulation(weight[None] * styles[:, None, :, None, None])
    x = x * styles.to(x.dtype)[:, :, None, None]
    w = weight.to(x.dtype)
    y = F.conv2d(x, w, padding=1) if f is None else F.conv_transpose2d(x, w.transpose(0, 1), stride=2)
    y = torch.addcmul((noise * strength).to(x.dtype), _filtered(y, f), d.to(x.dtype)[:, :, None, None])
    return bias_act(y, bias.to(x.dtype), act="lrelu", clamp=CLAMP)


def synthesis(network: SynthesisNetwork, layer: Layer, x: Tensor, ws: Tensor, noise: Sequence[Tensor]) -> Tensor:
    """The synthesis network without RGB branch: 3x3 layers by ``layer``, all else as there, from ``x`` [N, C, 4, 4]."""
    image, i = None, 0
    for block in network.blocks:
        assert isinstance(block, SynthesisBlock)
        for conv in [block.conv1] if block.first else [block.conv0, block.conv1]:
            styles = conv.affine(ws[:, i])
            x = layer(x, conv.weight, styles, noise[i], conv.noise_strength, conv.bias, conv.resample_filter)
            i += 1
        new = block.torgb(x, ws[:, i]).float()
        image = new if image is None else block._upsample(image) + new
    assert image is not None
    return image


def _normalised(weight: Tensor, styles: Tensor) -> tuple[Tensor, Tensor]:
    """Both without constants that the demodulation takes out: float16 then holds all sums."""
    return weight / weight.abs().amax((1, 2, 3), keepdim=True), styles / styles.abs().amax(1, keepdim=True)


def _demodulation(w: Tensor) -> Tensor:
    return torch.rsqrt(w.square().sum((2, 3, 4)) + EPS)


def _filtered(y: Tensor, f: Tensor | None) -> Tensor:
    return y if f is None else upfirdn2d(y, f, padding=BLUR_PADDING, gain=4.0)
