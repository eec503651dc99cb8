"""K3: one modulated 3x3 layer with noise, bias and activation, at each level of the 256x256 generators."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from comparison import Case, Contest, Outputs, Setup, compiled, doubles
from torch import Tensor

from cases.formulations import CLAMP, per_sample_weights, scaled
from cases.stylegan_ops import GAIN, HALF, NAMES, TAPS, randn
from mmif.config import GeneratorConfig
from mmif.ops import bias_act, conv_epilogue, demodulate, modulated_conv2d, setup_filter
from mmif.ops.bias_act import bias_act_ref
from mmif.ops.modulated_conv2d import modulated_conv2d_ref
from mmif.ops.narrow_conv3x3 import narrow_conv3x3

WIDTHS = {"config-f": 32768, "half width": 16384}
BATCHES = (8, 1)
STYLES = {
    f"NVlabs-style {name} {layout}": (layer, layout)
    for name, layer in (("per-sample weights", per_sample_weights), ("scaled", scaled))
    for layout in ("nchw", "nhwc")
}
COMPILED = "torch.compile max-autotune"
NARROW = 64  # channels up to which a convolution and its epilogue may be one kernel
# Levels that are compiled too: that takes up to a minute each.
SIDES_TO_COMPILE = (32, 64, 128, 256)

Shape = tuple[int, int, int, bool]  # channels in, channels out, side of the output, is it an up-layer


def levels(config: GeneratorConfig) -> Iterator[Shape]:
    """The 3x3 layers of a generator."""
    for side in config.resolutions:
        if side > 4:
            yield config.channels(side // 2), config.channels(side), side, True
        yield config.channels(side), config.channels(side), side, False


def macs(shape: Shape) -> int:
    """Multiply-adds for one image; those of a transposed convolution count at its input's resolution."""
    i, o, side, up = shape
    return i * o * 9 * (side // 2 if up else side) ** 2


def layer_cases(quick: bool = False) -> Iterator[Case]:
    """K3: first every level against the two formulations, then the large ones of config-f against the compiler."""
    if quick:
        shapes, wide = [(8, 8, 8, False), (8, 8, 8, True)], [(8, 8, 8, True)]
    else:
        every = {name: list(levels(GeneratorConfig(channel_base=base))) for name, base in WIDTHS.items()}
        shapes = list(dict.fromkeys(shape for found in every.values() for shape in found))
        wide = [shape for shape in every["config-f"] if shape[2] in SIDES_TO_COMPILE]
    for n in BATCHES:
        for shape in shapes:
            narrow = ("mmif narrow layer",) if max(shape[:2]) <= NARROW and not shape[3] else ()
            yield _case(n, shape, ("mmif fused layer", *narrow, "mmif ops", *STYLES))
    for shape in wide:
        yield _case(BATCHES[0], shape, ("mmif fused layer", COMPILED))


def _case(n: int, shape: Shape, contenders: tuple[str, ...]) -> Case:
    i, o, side, up = shape
    name = f"{'up layer' if up else 'layer'} {n}x{i}>{o}x{side}x{side} {NAMES[HALF]}"
    if COMPILED in contenders:
        name += " compiled"
    return Case("K3", name, HALF, contenders, partial(_contest, n, shape, contenders))


def _contest(n: int, shape: Shape, contenders: tuple[str, ...], setup: Setup) -> Contest:
    i, o, side, up = shape
    x = randn(setup, n, i, side // 2 if up else side, side // 2 if up else side, dtype=HALF, layout="nhwc")
    weight = randn(setup, o, i, 3, 3) / (i * 9) ** 0.5
    styles, bias = randn(setup, n, i).sigmoid() + 0.5, randn(setup, o)
    noise, strength = randn(setup, n, 1, side, side), torch.tensor(0.3, device=setup.device)
    f = setup_filter(TAPS).to(setup.device) if up else None
    half = weight.to(HALF).contiguous(memory_format=torch.channels_last)
    args = (x, half, styles, noise, strength, bias, f)
    calls: dict[str, Callable[[], Outputs]] = {
        "mmif fused layer": _fused(x, weight, styles, noise, strength, bias, f),
        "mmif narrow layer": _fused(x, weight, styles, noise, strength, bias, f, narrow=True),
        "mmif ops": lambda: _ops(*args),
    }
    formats = {"nchw": x.contiguous(), "nhwc": x}
    for name, (layer, layout) in STYLES.items():
        calls[name] = partial(layer, formats[layout], weight, styles, noise, strength, bias, f)
    missing = {}
    if COMPILED in contenders and setup.compile:
        calls[COMPILED] = compiled(_reference, args, mode="max-autotune-no-cudagraphs")
    elif COMPILED in contenders:
        missing[COMPILED] = "--no-compile"
    exact = doubles((x, weight, *args[2:]))
    return Contest(
        calls, lambda: _reference(*exact), missing, inputs=(x, half, styles, noise, bias), macs=n * macs(shape)
    )


def _fused(
    x: Tensor,
    weight: Tensor,
    styles: Tensor,
    noise: Tensor,
    strength: Tensor,
    bias: Tensor,
    f: Tensor | None,
    narrow: bool = False,
) -> Callable[[], Tensor]:
    """The layer as the generator's plan runs it, its demodulation included; ``narrow``: in one kernel.

    The layer before has scaled ``x`` by the styles; in return this one scales its output for the next, here by ones.
    """
    w2 = weight.square().sum((2, 3))[None]
    x = x * demodulate(styles[None], w2)[0][0].to(x.dtype)[:, :, None, None]
    w = weight.to(x.dtype)
    w = (w if f is None else w.transpose(0, 1).contiguous()).contiguous(memory_format=torch.channels_last)
    ones = torch.ones(x.shape[0], weight.shape[0], device=x.device)
    rest: dict[str, Any] = {"noise": noise, "noise_strength": strength, "bias": bias, "next_styles": ones}
    rest |= {"resample_filter": f, "act": "lrelu", "clamp": CLAMP}
    backend = "cuda" if x.is_cuda else None  # a shape that the kernel turns down is no measurement of it

    def call() -> Tensor:
        d = demodulate(styles[None], w2)[1][0]
        if narrow:
            return narrow_conv3x3(x, w, demod=d, **rest, backend=backend)[0]
        y = F.conv2d(x, w, padding=1) if f is None else F.conv_transpose2d(x, w, stride=2)
        return conv_epilogue(y, demod=d, **rest, blur=f is not None, backend=backend)[0]

    return call


def _ops(
    x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, f: Tensor | None
) -> Tensor:
    """The layer as training runs it."""
    y = modulated_conv2d(x, weight, styles, up=1 if f is None else 2, resample_filter=f)
    return bias_act(y + (noise * strength).to(y.dtype), bias.to(y.dtype), act="lrelu", clamp=CLAMP)


def _reference(
    x: Tensor, weight: Tensor, styles: Tensor, noise: Tensor, strength: Tensor, bias: Tensor, f: Tensor | None
) -> Tensor:
    y = modulated_conv2d_ref(x, weight, styles, f, 1 if f is None else 2, True)
    return bias_act_ref(y + (noise * strength).to(y.dtype), bias.to(y.dtype), 1, "lrelu", 0.2, GAIN, CLAMP)
