"""narrow_conv3x3 against NumPy and SciPy, its registered body against the reference, bad input."""

from __future__ import annotations

import numpy as np
import pytest
import scipy.signal
import torch
from tolerances import assert_close_to_reference

from mmif.ops import ToRGB, dispatch, setup_filter
from mmif.ops._epilogue import Epilogue
from mmif.ops.narrow_conv3x3 import narrow_conv3x3, narrow_conv3x3_ref

FIR = setup_filter([1, 3, 3, 1])
PARTS = ("demod", "noise", "bias", "skip", "next_styles", "to_rgb", "prev")
HALF = pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16], ids=["float16", "bfloat16"])


def arguments(n, height, width, channels_in, channels_out, dtype, parts=PARTS, noise_n=None):
    """Arguments of the public function; the toRGB layer is there with either of its two parts."""
    small = torch.promote_types(dtype, torch.float32)
    c = channels_out

    def normal(*shape, dtype=small):
        return torch.randn(shape, dtype=torch.float64).to(dtype)

    made = {
        "x": normal(n, channels_in, height, width, dtype=dtype).contiguous(memory_format=torch.channels_last),
        "weight": (normal(c, channels_in, 3, 3, dtype=torch.float64) / (3 * channels_in**0.5)).to(dtype),
        "demod": normal(n, c),
        "noise": normal(n if noise_n is None else noise_n, 1, height, width),
        "noise_strength": normal(),
        "bias": normal(c),
        "skip": normal(n, c, height, width, dtype=dtype),
        "next_styles": normal(n, c),
        "resample_filter": FIR,
    }
    if "noise" not in parts:
        made["noise_strength"] = None
    for part in ("demod", "noise", "bias", "skip", "next_styles"):
        made[part] = made[part] if part in parts else None
    prev = normal(n, 3, height // 2, width // 2) if "prev" in parts else None
    rgb = ToRGB(normal(3, c), normal(n, c) / c**0.5, normal(3), prev, clamp=0.9)
    return made | {"to_rgb": rgb if {"to_rgb", "prev"} & set(parts) else None}


def flat(made, act="lrelu", rgb_only=False, **options):
    """The same for the registered op."""
    options = {"alpha": 0.2, "gain": 2**0.5, "clamp": 0.8} | options
    names = ("demod", "noise", "bias", "skip", "next_styles")
    epilogue = Epilogue(**{name: made[name] for name in names}, strength=made["noise_strength"], act=act, **options)
    rgb = made["to_rgb"]
    epilogue = epilogue.with_to_rgb(rgb and rgb._replace(last=rgb_only))
    return (made["x"], made["weight"], *epilogue._replace(f=made["resample_filter"]))


def check(args):
    """The body that is registered here is as close to the truth as the rule asks."""
    out, image = torch.ops.mmif.narrow_conv3x3(*args)
    assert out.is_contiguous(memory_format=torch.channels_last) or Epilogue(*args[2:]).rgb_only
    assert_close_to_reference((out, image), narrow_conv3x3_ref, args, op="narrow_conv3x3", dtype=args[0].dtype)


def oracle(x, weight, demod, noise, noise_strength, bias, skip, next_styles, to_rgb, resample_filter):
    """In float64 and in another way: shifted products, one channel of a formula at a time, SciPy's upsampling."""
    n, _, height, width = x.shape
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    y = np.zeros((n, len(weight), height, width))
    for ky in range(3):
        for kx in range(3):
            shifted = padded[:, :, ky : ky + height, kx : kx + width]
            y += np.einsum("oi,nihw->nohw", weight[:, :, ky, kx], shifted)
    v = y * demod[:, :, None, None] + noise * noise_strength + bias[:, None, None]
    a = np.clip(2**0.5 * np.maximum(v, 0.2 * v), -0.8, 0.8) + skip
    rgb = np.einsum("kc,nc,nchw->nkhw", to_rgb.weight, to_rgb.styles, a) + to_rgb.bias[:, None, None]
    up = to_rgb.prev
    for axis in (2, 3):
        up = scipy.signal.upfirdn(2 * resample_filter, up, up=2, axis=axis)
        up = np.take(up, range(1, 1 + x.shape[axis]), axis)
    return a * next_styles[:, :, None, None], np.clip(rgb, -0.9, 0.9) + up


def test_reference_equals_the_formula():
    made = arguments(2, 6, 4, 5, 3, torch.float64)
    numpy = {name: value.double().numpy() for name, value in made.items() if name != "to_rgb"}
    rgb = made["to_rgb"]
    expected = oracle(**numpy, to_rgb=ToRGB(*(t.numpy() for t in rgb[:4]), rgb.clamp))
    for backend in ("auto", "reference"):
        got = narrow_conv3x3(**made, act="lrelu", clamp=0.8, backend=backend)
        for ours, theirs in zip(got, expected, strict=True):
            np.testing.assert_allclose(ours.numpy(), theirs, rtol=1e-12, atol=1e-12)


@HALF
@pytest.mark.parametrize(
    ("shape", "channels"),
    [
        ((1, 16, 16), (64, 64)),
        ((2, 34, 18), (32, 32)),
        ((1, 20, 48), (16, 16)),
        ((1, 18, 14), (48, 48)),
        ((1, 2, 2), (16, 64)),
        ((2, 4, 6), (64, 16)),
        ((1, 4, 34), (48, 32)),
        ((1, 30, 8), (32, 48)),
    ],
    ids=str,
)
def test_whole_layers(shape, channels, dtype):
    check(flat(arguments(*shape, *channels, dtype)))


@HALF
@pytest.mark.parametrize("shape", [(1, 1, 1), (2, 17, 1), (1, 1, 33), (1, 15, 31), (3, 5, 7)], ids=str)
def test_sizes_that_no_tile_fits(shape, dtype):
    check(flat(arguments(*shape, 32, 32, dtype, [part for part in PARTS if part != "prev"])))


@pytest.mark.parametrize("parts", [(), *[(part,) for part in PARTS]], ids=lambda parts: "".join(parts) or "none")
@pytest.mark.parametrize(("act", "gain"), [("linear", 1.0), ("relu", 1.5)])
def test_each_part_of_the_epilogue_alone(parts, act, gain):
    check(flat(arguments(2, 6, 20, 16, 48, torch.float16, parts), act, alpha=0.0, gain=gain, clamp=-1.0))


def test_one_noise_for_all_images():
    check(flat(arguments(3, 4, 4, 16, 32, torch.float16, ("noise",), noise_n=1)))


def test_only_the_image_is_made():
    out, image = torch.ops.mmif.narrow_conv3x3(*flat(arguments(2, 4, 18, 32, 64, torch.float16), rgb_only=True))
    assert out.shape == (0,)
    assert image.shape == (2, 3, 4, 18)
    check(flat(arguments(2, 4, 18, 32, 64, torch.float16), rgb_only=True))


def test_an_empty_batch_gives_empty_outputs():
    out, image = torch.ops.mmif.narrow_conv3x3(*flat(arguments(0, 4, 6, 16, 32, torch.float16)))
    assert out.shape == (0, 32, 4, 6)
    assert image.shape == (0, 3, 4, 6)


def test_any_layout_of_the_inputs():
    made = arguments(2, 6, 8, 16, 32, torch.float16)
    rows = torch.randn(2, 64)[:, 16:48]  # one layer's part of the styles of all
    strange = {
        "x": made["x"].contiguous(),
        "weight": made["weight"].flip(0).mT,
        "demod": rows,
        "next_styles": rows.expand(2, 32)[:1].expand(2, 32),
        "noise": made["noise"].mT.contiguous().mT,
        "skip": made["skip"][:1].expand(2, -1, -1, -1),
        "bias": torch.randn(64)[::2],
    }
    check(flat(made | strange))


@pytest.mark.parametrize("value", [float("nan"), float("inf")], ids=str)
def test_nan_and_infinity_stay_where_they_belong(value):
    made = arguments(1, 20, 20, 16, 16, torch.bfloat16, ("bias",))
    made["x"][0, 3, 15, 16] = value
    out, _ = torch.ops.mmif.narrow_conv3x3(*flat(made, gain=1.0, clamp=-1.0))
    touched = torch.zeros(20, 20, dtype=torch.bool)
    touched[14:17, 15:18] = True
    assert torch.equal(~out[0].isfinite(), touched.expand(16, 20, 20))


def test_fake_has_the_strides_of_the_real_output():
    for rgb_only in (False, True):
        args = flat(arguments(2, 4, 6, 16, 32, torch.float16), rgb_only=rgb_only)
        torch.library.opcheck(
            torch.ops.mmif.narrow_conv3x3.default, args, test_utils=("test_schema", "test_faketensor")
        )


def test_the_public_function_calls_the_registered_op(monkeypatch):
    made, calls = arguments(1, 4, 4, 16, 16, torch.float16), []
    monkeypatch.setattr(dispatch, "choose", lambda *_, **__: "cuda")
    monkeypatch.setattr(torch.ops.mmif, "narrow_conv3x3", lambda *args: calls.append(args) or args[:2])
    narrow_conv3x3(**made, act="lrelu", gain=1.5, clamp=0.8)
    expected = flat(made, gain=1.5)
    assert len(calls[0]) == len(expected)
    assert all(got is want or got == want for got, want in zip(calls[0], expected, strict=True))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"x": torch.zeros(16, 4, 4)}, r"x must be \[N, I, H, W\] .*got \(16, 4, 4\) and \(32, 16, 3, 3\)"),
        ({"x": torch.zeros(1, 16, 0, 4)}, r"a pixel or more, got \(1, 16, 0, 4\)"),
        ({"weight": torch.zeros(32, 16, 1, 1)}, r"weight \[O, I, 3, 3\], got .* and \(32, 16, 1, 1\)"),
        ({"weight": torch.zeros(32, 8, 3, 3)}, r"weight \[O, I, 3, 3\], got .* and \(32, 8, 3, 3\)"),
        (
            {"weight": torch.zeros(32, 16, 3, 3).half()},
            "must share a floating dtype, got torch.float32 and torch.float16",
        ),
        (
            {"x": torch.zeros(1, 16, 4, 4).int(), "weight": torch.zeros(32, 16, 3, 3).int()},
            "must share a floating dtype, got torch.int32 and torch.int32",
        ),
        ({"demod": torch.zeros(1, 16)}, r"demod must be torch.float32 \(1, 32\), got torch.float32 \(1, 16\)"),
        ({"bias": torch.zeros(32).half()}, r"bias must be torch.float32 \(32,\), got torch.float16 \(32,\)"),
        ({"skip": torch.zeros(1, 16, 4, 4)}, r"skip must be torch.float32 \(1, 32, 4, 4\), got .* \(1, 16, 4, 4\)"),
        ({"noise": torch.zeros(1, 1, 4, 4)}, "noise and noise_strength must be given together"),
        ({"to_rgb": ToRGB(torch.zeros(3, 32), torch.zeros(1, 32), torch.zeros(3), torch.zeros(1, 3, 2, 2))}, "filter"),
        ({"act": "tanh"}, "act must be linear, relu or lrelu, got 'tanh'"),
    ],
    ids=[
        *("x_rank", "no_pixel", "window", "channels", "weight_half", "integer", "demod", "bias_half", "skip"),
        *("noise_alone", "prev_without_filter", "act"),
    ],
)
def test_bad_input(wrong, message):
    good = {"x": torch.zeros(1, 16, 4, 4), "weight": torch.zeros(32, 16, 3, 3)}
    narrow_conv3x3(**good)
    with pytest.raises(ValueError, match=message):
        narrow_conv3x3(**good | wrong)
