"""K1, the fused epilogue, and K2, upfirdn2d and bias_act: shapes of the 256x256 generators, batch 8 unless said."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import nvlabs
import torch
from comparison import Case, Contest, Outputs, Setup, compiled, doubles

from mmif.ops import setup_filter
from mmif.ops._epilogue import Epilogue, ToRGB
from mmif.ops.bias_act import bias_act_grad_ref, bias_act_ref
from mmif.ops.conv_epilogue import BLUR_PADDING, UP_PADDING, conv_epilogue_ref
from mmif.ops.upfirdn2d import upfirdn2d_ref

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
FORMATS = {"nhwc": torch.channels_last, "nchw": torch.contiguous_format}
TAPS = [1.0, 3.0, 3.0, 1.0]
GAIN, CLAMP = math.sqrt(2), 256.0
NAMES = {HALF: "fp16", BRAIN: "bf16", SINGLE: "fp32"}
# Resampling by two as the networks do it: factors (up x, up y, down x, down y), padding, gain.
RESAMPLING = {
    "up": ((2, 2, 1, 1), UP_PADDING, 4.0),
    "down": ((1, 1, 2, 2), (1, 1, 1, 1), 1.0),
    "blur": ((1, 1, 1, 1), BLUR_PADDING, 4.0),
}

# form, images, channels, side of the output, dtype
EPILOGUES = [
    *[("layer", 8, c, side, HALF) for c, side in ((512, 16), (512, 32), (512, 64), (256, 128), (128, 256), (64, 256))],
    *[("up layer", 8, c, side, HALF) for c, side in ((512, 32), (512, 64), (256, 128), (128, 256), (64, 256))],
    *[("toRGB", 8, c, side, HALF) for c, side in ((512, 32), (256, 128), (128, 256))],
    *[(form, 1, 128, 256, HALF) for form in ("layer", "up layer", "toRGB")],
    *[("layer", 8, 128, 256, dtype) for dtype in (BRAIN, SINGLE)],
]
# kind, images, channels, side of the input, dtype, memory format
FILTERS = [
    *[("up", 8, c, side, HALF, f) for c, side in ((512, 32), (256, 64), (128, 128)) for f in FORMATS],
    *[("down", 8, c, side, HALF, f) for c, side in ((512, 64), (128, 256)) for f in FORMATS],
    *[("blur", 8, c, side, HALF, f) for c, side in ((512, 65), (128, 257)) for f in FORMATS],
    *[("up", 8, 128, 128, dtype, "nhwc") for dtype in (BRAIN, SINGLE)],
    ("up", 8, 3, 128, SINGLE, "nchw"),
]
BIASES = [
    *[(order, 8, c, side, HALF, f) for order in (0, 1) for c, side in ((512, 32), (128, 256)) for f in FORMATS],
    *[(order, 8, 128, 256, SINGLE, "nhwc") for order in (0, 1)],
]


def epilogue_cases(quick: bool = False) -> Iterator[Case]:
    """K1: one pass over a convolution's output, against the chain of PyTorch operators, eager and compiled."""
    for form, n, c, side, dtype in _sized(EPILOGUES, quick):
        yield Case(
            "K1",
            f"{form} {n}x{c}x{side}x{side} {NAMES[dtype]}",
            dtype,
            ("mmif", "eager chain", "torch.compile"),
            lambda setup, shape=(form, n, c, side), dtype=dtype: _epilogue(setup, *shape, dtype),
        )


def filter_cases(quick: bool = False) -> Iterator[Case]:
    """K2: upfirdn2d and bias_act, forward and backward, against the reference and NVIDIA's own kernels."""
    peers = ("mmif", "reference", "torch.compile")
    for kind, n, c, side, dtype, layout in _sized(FILTERS, quick):
        yield Case(
            "K2",
            f"upfirdn2d {kind} {n}x{c}x{side}x{side} {NAMES[dtype]} {layout}",
            dtype,
            (*peers, "NVlabs plugin"),
            lambda setup, shape=(kind, n, c, side), dtype=dtype, layout=layout: _filter(setup, *shape, dtype, layout),
        )
    for order, n, c, side, dtype, layout in _sized(BIASES, quick):
        yield Case(
            "K2",
            f"bias_act {'backward' if order else 'forward'} {n}x{c}x{side}x{side} {NAMES[dtype]} {layout}",
            dtype,
            peers if order else (*peers, "NVlabs plugin"),
            lambda setup, shape=(order, n, c, side), dtype=dtype, layout=layout: _bias(setup, *shape, dtype, layout),
        )


def randn(setup: Setup, *shape: int, dtype: torch.dtype = SINGLE, layout: str = "nchw") -> torch.Tensor:
    """Random numbers on the device; the same ones in each run, which seeds."""
    made = torch.randn(shape, device=setup.device).to(dtype)
    return made.contiguous(memory_format=FORMATS[layout]) if made.ndim == 4 else made


def _sized(rows: Sequence[tuple[Any, ...]], quick: bool) -> list[tuple[Any, ...]]:
    """The rows of a table; ``quick``: with small tensors, each row once."""
    small = [(kind, 2, min(c, 8), 6, *rest) for kind, _, c, _, *rest in rows]
    return list(dict.fromkeys(small)) if quick else list(rows)


def _epilogue(setup: Setup, form: str, n: int, c: int, side: int, dtype: torch.dtype) -> Contest:
    blur, to_rgb = form == "up layer", form == "toRGB"
    y = randn(setup, n, c, side + blur, side + blur, dtype=dtype, layout="nhwc")
    noise, strength = randn(setup, n, 1, side, side), torch.tensor(0.3, device=setup.device)
    demod, styles, rgb_styles = (randn(setup, n, c).sigmoid() + 0.5 for _ in range(3))
    epilogue = Epilogue(
        demod=demod,
        noise=noise,
        strength=strength,
        bias=randn(setup, c),
        next_styles=styles,
        f=setup_filter(TAPS).to(setup.device),
        act="lrelu",
        alpha=0.2,
        gain=GAIN,
        clamp=CLAMP,
    )
    if to_rgb:
        prev = randn(setup, n, 3, side // 2, side // 2)
        epilogue = epilogue.with_to_rgb(ToRGB(randn(setup, 3, c), rgb_styles, randn(setup, 3), prev, CLAMP))
    args: tuple[Any, ...] = (y, blur, *epilogue)
    calls = {
        "mmif": lambda: torch.ops.mmif.conv_epilogue(*args),
        "eager chain": lambda: conv_epilogue_ref(*args),
    }
    return _contest(setup, calls, conv_epilogue_ref, args, pick=None if to_rgb else 0)


def _filter(setup: Setup, kind: str, n: int, c: int, side: int, dtype: torch.dtype, layout: str) -> Contest:
    factors, padding, gain = RESAMPLING[kind]
    x = randn(setup, n, c, side, side, dtype=dtype, layout=layout)
    args: tuple[Any, ...] = (x, setup_filter(TAPS).to(setup.device), factors, padding, False, gain)
    calls = {
        "mmif": lambda: torch.ops.mmif.upfirdn2d(*args),
        "reference": lambda: upfirdn2d_ref(*args),
    }
    theirs = nvlabs.load(setup.nvlabs)
    if isinstance(theirs, nvlabs.Ops):
        calls["NVlabs plugin"] = lambda: theirs.upfirdn2d(x, TAPS, factors[0], factors[2], padding, gain)
    return _contest(setup, calls, upfirdn2d_ref, args)


def _bias(setup: Setup, order: int, n: int, c: int, side: int, dtype: torch.dtype, layout: str) -> Contest:
    x, b = randn(setup, n, c, side, side, dtype=dtype, layout=layout), randn(setup, c, dtype=dtype)
    y = randn(setup, n, c, side, side, dtype=dtype, layout=layout)
    op, ref = torch.ops.mmif.bias_act, bias_act_ref
    args: tuple[Any, ...] = (x, b, 1, "lrelu", 0.2, GAIN, CLAMP)
    if order:
        op, ref = torch.ops.mmif.bias_act_grad, bias_act_grad_ref
        args = (x, None, None, y, 1, "lrelu", 0.2, GAIN, CLAMP, 1, True)
    calls: dict[str, Callable[[], Outputs]] = {"mmif": lambda: op(*args), "reference": lambda: ref(*args)}
    theirs = nvlabs.load(setup.nvlabs)
    if not order and isinstance(theirs, nvlabs.Ops):
        calls["NVlabs plugin"] = lambda: theirs.bias_act(x, b, "lrelu", GAIN, CLAMP)
    return _contest(setup, calls, ref, args)


def _contest(
    setup: Setup,
    calls: dict[str, Callable[[], Outputs]],
    reference: Callable[..., Outputs],
    args: tuple[Any, ...],
    pick: int | None = None,
) -> Contest:
    """The contest of ``calls`` and the compiled reference; with ``pick`` over one of several outputs."""
    missing = {}
    if setup.compile:
        calls["torch.compile"] = compiled(reference, args)
    else:
        missing["torch.compile"] = "--no-compile"
    theirs = nvlabs.load(setup.nvlabs)
    if isinstance(theirs, str):
        missing["NVlabs plugin"] = theirs

    def truth() -> Outputs:
        return reference(*doubles(args))

    if pick is not None:
        picked = {name: lambda call=call: call()[pick] for name, call in calls.items()}
        return Contest(picked, lambda: truth()[pick], missing, inputs=args)
    return Contest(calls, truth, missing, inputs=args)
