"""K7, the adaptive contextual bottleneck at 256 channels and 32x32 pixels: both forms of it, then its three steps.

K7a is the form that was released, as it was and collapsed; K7b the paper's, as printed and split. The collapse and the
split are granted to the peers, too: "reference" has them, "as released" and "as printed" have not.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from comparison import Case, Contest, Outputs, Setup, doubles, lazily
from torch import Tensor

from cases.stylegan_ops import BRAIN, HALF, NAMES, SINGLE, randn
from mmif.ops.acb_fusion import acb_fusion, acb_fusion_code
from mmif.ops.acb_mix import acb_mix_ref
from mmif.ops.acb_paths import acb_blend_ref, acb_paths_ref
from mmif.ops.acb_pool import acb_pool_ref, mean_of_conv3x3

CHANNELS, SIDE, DILATIONS = 256, 32, (1, 2, 3, 4)
BATCHES = (8, 1)
CONV = 9 * CHANNELS**2 * SIDE**2  # multiply-adds of a 3x3 convolution from C to C channels
# Convolutions' worth of multiply-adds, the gate's own left out: paths, and what is left of the fuse convolution.
WORTH = {"paper": 4 + 4 + 2, "code": 4}
# In the backward pass: data and weights of the paths. What a contender makes besides, dense gradients of the pooled
# convolutions or the paths once more, is not counted.
BACKWARD = {"paper": 2 * 4, "code": 2 * 4}


def bottleneck_cases(quick: bool = False) -> Iterator[Case]:
    """K7a and K7b with channels_last tensors, then each step of K7b alone."""
    size, batches, dtype = ((8, 8), (2,), SINGLE) if quick else ((CHANNELS, SIDE), BATCHES, HALF)
    for form, plain in (("code", "as released"), ("paper", "as printed")):
        for n in batches:
            for backward in (False, True):
                yield _case(form, n, *size, dtype, backward, ("mmif", "reference", plain, "torch.compile"))
    if not quick:
        yield _case("paper", BATCHES[0], *size, BRAIN, False, ("mmif", "reference", "as printed", "torch.compile"))
    for step in STEPS:
        for n in batches:
            shape = (n, *size)
            yield Case("K7", _name(step, n, *size, dtype), dtype, ("mmif", "reference", "torch.compile"),
                       partial(_step, step, shape, dtype))  # fmt: skip


def _case(
    form: str, n: int, c: int, side: int, dtype: torch.dtype, backward: bool, contenders: tuple[str, ...]
) -> Case:
    name = _name(f"bottleneck {form}", n, c, side, dtype) + (" backward" if backward else "")
    contest = partial(_bottleneck, form, (n, c, side), dtype, backward, contenders[2])
    return Case("K7", name, dtype, contenders, contest)


def _name(what: str, n: int, c: int, side: int, dtype: torch.dtype) -> str:
    return f"{what} {n}x{c}x{side}x{side} {NAMES[dtype]}"


def _bottleneck(
    form: str, shape: tuple[int, int, int], dtype: torch.dtype, backward: bool, plain: str, setup: Setup
) -> Contest:
    n, c, side = shape
    x, raw, before = (randn(setup, n, c, side, side, dtype=dtype, layout="nhwc") for _ in range(3))
    gate, before = raw.sigmoid(), before.sigmoid()
    weights = _weights(setup, c, dtype, one_per_path=form == "code")
    if form == "code":
        ours, given, slow = acb_fusion_code, (x, raw, before, *weights), _as_released
    else:
        gates = torch.cat([gate, before], 1).contiguous(memory_format=torch.channels_last)
        ours, given, slow = acb_fusion, (x, gates, *weights), _as_printed
    cotangent = randn(setup, n, c, side, side, dtype=dtype, layout="nhwc") if backward else None
    ours = partial(ours, dilations=DILATIONS)
    reference = _collapsed if form == "code" else _split
    functions: dict[str, Callable[..., Tensor]] = {"mmif": ours, "reference": reference, plain: slow}
    calls: dict[str, Callable[[], Outputs]] = {
        name: partial(_run, function, given, cotangent) for name, function in functions.items()
    }
    missing: dict[str, str] = {}
    if setup.compile:
        calls["torch.compile"] = lazily(lambda: partial(_run, _compile(reference), given, cotangent))
    else:
        missing["torch.compile"] = "--no-compile"
    truth = partial(_run, slow, doubles(given), None if cotangent is None else cotangent.double())
    macs = n * CONV * (WORTH[form] + (BACKWARD[form] if backward else 0))
    return Contest(calls, truth, missing, inputs=(*given, cotangent), macs=macs)


def _weights(setup: Setup, c: int, dtype: torch.dtype, one_per_path: bool) -> list[Tensor]:
    """Weights and biases of the paths, of the fuse convolution, and of what makes the mixing weights."""
    r = len(DILATIONS)
    paths = randn(setup, r * c, c, 3, 3, dtype=dtype, layout="nhwc").unflatten(0, (r, c)) / (9 * c) ** 0.5
    fuse = randn(setup, c, 3 * c, 3, 3, dtype=dtype, layout="nhwc") / (27 * c) ** 0.5
    biases = randn(setup, r, c, dtype=dtype), randn(setup, c, dtype=dtype)
    fc = randn(setup, r if one_per_path else c, c, dtype=dtype) / c**0.5
    return [paths, biases[0], fuse, biases[1], fc, *([] if one_per_path else [randn(setup, c, dtype=dtype)])]


def _paths(x: Tensor, weight: Tensor, bias: Tensor) -> list[Tensor]:
    padded = (F.pad(x, (d, d, d, d), mode="reflect") for d in DILATIONS)
    return [F.relu(F.conv2d(p, w, b, dilation=d)) for p, w, b, d in zip(padded, weight, bias, DILATIONS, strict=True)]


def _as_released(
    x: Tensor, raw: Tensor, before: Tensor, weight: Tensor, bias: Tensor, fuse: Tensor, fuse_bias: Tensor, fc: Tensor
) -> Tensor:
    """The code's form with its 768-channel convolution."""
    pooled = F.conv2d(torch.cat([x, raw, before], 1), fuse, fuse_bias, padding=1).mean((2, 3))
    mix = torch.tanh(F.linear(pooled, fc)).softmax(1)
    gate = raw.sigmoid()
    mixed = sum(p[:, None, None, None] * path for p, path in zip(mix.unbind(1), _paths(x, weight, bias), strict=True))
    return x * (1 - gate) + gate * mixed


def _collapsed(
    x: Tensor, raw: Tensor, before: Tensor, weight: Tensor, bias: Tensor, fuse: Tensor, fuse_bias: Tensor, fc: Tensor
) -> Tensor:
    """The references of the code's form, which a compiler can see through."""
    pooled = mean_of_conv3x3(torch.cat([x, raw, before], 1), fuse, fuse_bias)
    mix = torch.tanh(F.linear(pooled, fc)).softmax(1)
    return acb_blend_ref(x, weight, bias, mix, raw.sigmoid(), DILATIONS)


def _split(
    x: Tensor,
    gates: Tensor,
    weight: Tensor,
    bias: Tensor,
    fuse: Tensor,
    fuse_bias: Tensor,
    fc: Tensor,
    fc_bias: Tensor,
) -> Tensor:
    """The references of the paper's form."""
    paths = acb_paths_ref(x, weight, bias, DILATIONS)
    mean, peak, _ = acb_pool_ref(paths, gates, fuse, fuse_bias)
    return acb_mix_ref(paths, torch.sigmoid(F.linear(mean + peak, fc, 2 * fc_bias)), x)


def _as_printed(
    x: Tensor,
    gates: Tensor,
    weight: Tensor,
    bias: Tensor,
    fuse: Tensor,
    fuse_bias: Tensor,
    fc: Tensor,
    fc_bias: Tensor,
) -> Tensor:
    """Eq. 1 with a 768-channel convolution for each path."""
    paths, logits = _paths(x, weight, bias), []
    for path in paths:
        z = F.conv2d(torch.cat([path, gates], 1), fuse, fuse_bias, padding=1)
        logits.append(torch.sigmoid(F.linear(z.mean((2, 3)), fc, fc_bias) + F.linear(z.amax((2, 3)), fc, fc_bias)))
    return acb_mix_ref(torch.stack(paths, 1), torch.stack(logits, 1), x)


STEPS = ("acb_paths", "acb_pool", "acb_mix", "acb_blend")


def _step(step: str, shape: tuple[int, int, int], dtype: torch.dtype, setup: Setup) -> Contest:
    """One registered op in its Triton body, where there is a GPU, against its reference."""
    n, c, side = shape
    x, gate = (randn(setup, n, c, side, side, dtype=dtype, layout="nhwc") for _ in range(2))
    gates = randn(setup, n, 2 * c, side, side, dtype=dtype, layout="nhwc").sigmoid()
    weight, bias, fuse, fuse_bias, *_ = _weights(setup, c, dtype, one_per_path=False)
    paths = torch.ops.mmif.acb_paths(x, weight, bias, DILATIONS)
    mix = randn(setup, n, len(DILATIONS)).softmax(1).to(dtype)
    logits = randn(setup, n, len(DILATIONS), c, dtype=dtype)
    args, reference, macs = {
        "acb_paths": ((x, weight, bias, DILATIONS), acb_paths_ref, 4),
        "acb_pool": ((paths, gates, fuse, fuse_bias), _mean_and_peak, 4 + 2),
        "acb_mix": ((paths, logits, x), acb_mix_ref, 0),
        "acb_blend": ((x, weight, bias, mix, gate.sigmoid(), DILATIONS), acb_blend_ref, 4),
    }[step]
    op = getattr(torch.ops.mmif, step)
    body = "triton" if setup.device == "cuda" else "reference"
    calls: dict[str, Callable[[], Outputs]] = {
        "mmif": lambda: _floating(op(*args, backend=body)),
        "reference": lambda: reference(*args),
    }
    missing: dict[str, str] = {}
    if setup.compile:
        calls["torch.compile"] = lazily(lambda: partial(_compile(reference), *args))
    else:
        missing["torch.compile"] = "--no-compile"
    exact = doubles(args)
    return Contest(calls, lambda: reference(*exact), missing, inputs=args, macs=n * CONV * macs)


def _mean_and_peak(*args: Tensor) -> Outputs:
    return acb_pool_ref(*args)[:2]


def _floating(outputs: Outputs) -> Outputs:
    """Without the positions of the maxima, which rounding moves."""
    return outputs if isinstance(outputs, Tensor) else [t for t in outputs if t.is_floating_point()]


def _compile(function: Callable[..., Any]) -> Any:
    return torch.compile(function, dynamic=False)


def _run(function: Callable[..., Tensor], given: Sequence[Tensor], cotangent: Tensor | None) -> Outputs:
    """The output; with a cotangent all gradients are made, and the one of the feature is held to the truth.

    Not the others: rounding moves the pixel of a maximum, and with it where its gradient goes.
    """
    if cotangent is None:
        return function(*given)
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in given]
        out = function(*leaves)
        return out.detach(), torch.autograd.grad(out, leaves, cotangent)[0]
