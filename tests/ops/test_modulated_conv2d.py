"""modulated_conv2d against loops with one weight per sample; gradients of any order; range of float16; bad input."""

import numpy as np
import pytest
import torch
from torch.autograd import gradcheck, gradgradcheck

from mmif.ops import modulated_conv2d, setup_filter
from mmif.ops.modulated_conv2d import modulated_conv2d_ref

FIR = setup_filter([1, 3, 3, 1])


def correlate(x, w):
    """Valid cross-correlation of ``[I, H, W]`` with ``[O, I, kh, kw]`` by loops over the taps and channels."""
    kh, kw = w.shape[2:]
    y = np.zeros((len(w), x.shape[1] - kh + 1, x.shape[2] - kw + 1))
    for o in range(len(w)):
        for i in range(len(x)):
            for a in range(kh):
                for b in range(kw):
                    y[o] += w[o, i, a, b] * x[i, a : a + y.shape[1], b : b + y.shape[2]]
    return y


def upsample(x, f, before, after):
    """Insert a zero after every pixel, pad, convolve every channel with ``f``, keep the valid part, times 4."""
    zeros = np.zeros((len(x), 2 * x.shape[1], 2 * x.shape[2]))
    zeros[:, ::2, ::2] = x
    zeros = np.pad(zeros, ((0, 0), (before, after), (before, after)))
    return 4 * np.stack([correlate(channel[None], f[None, None, ::-1, ::-1])[0] for channel in zeros])


def oracle(x, weight, styles, f, up, demodulate):
    """Form the weights of every sample, as the StyleGAN2 paper writes it, and convolve sample by sample."""
    k, out = weight.shape[2], []
    for sample, style in zip(x, styles, strict=True):
        w = weight * style[None, :, None, None]
        if demodulate:
            w = w / np.sqrt((w**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
        if up == 1:
            padded = np.pad(sample, ((0, 0), (k // 2, k // 2), (k // 2, k // 2)))
            out.append(correlate(padded, w))
        else:  # first the filter and then the convolution, the other way round than the op
            taps = len(f)
            upsampled = upsample(sample, f, k // 2 + (taps + 1) // 2, k // 2 + (taps - 2) // 2)
            out.append(correlate(upsampled, w[:, :, ::-1, ::-1]))
    return np.stack(out)


def arguments(k=3, size=(3, 4), dtype=torch.float64):
    x = torch.randn(2, 3, *size, dtype=torch.float64).to(dtype)
    return x, torch.randn(2, 3, k, k, dtype=torch.float64).to(dtype), torch.randn(2, 3, dtype=torch.float64).to(dtype)


@pytest.mark.parametrize("demodulate", [True, False], ids=["demodulated", "plain"])
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("k", [1, 3, 5])
def test_equals_weights_per_sample(k, up, demodulate):
    x, weight, styles = arguments(k, size=(5, 3))
    f = FIR if up == 2 else None
    expected = oracle(*(t.numpy() for t in (x, weight, styles)), np.outer(FIR, FIR).astype(np.float64), up, demodulate)
    got = modulated_conv2d(x, weight, styles, up=up, demodulate=demodulate, resample_filter=f)
    assert got.shape == (2, 2, 5 * up, 3 * up)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize(
    "taps", [[1.0], [1, 1], [1, 2, 1], [[1, 2, 0], [0, 3, 1], [4, 0, 5]], [1, 2, 3, 4, 6]], ids=str
)
def test_up_with_other_filters(taps):
    x, weight, styles = arguments()
    f = setup_filter(taps)
    f2 = (torch.outer(f.double(), f.double()) if f.ndim == 1 else f.double()).numpy()
    expected = oracle(*(t.numpy() for t in (x, weight, styles)), f2, 2, True)
    got = modulated_conv2d(x, weight, styles, up=2, resample_filter=f)
    np.testing.assert_allclose(got.numpy(), expected, rtol=1e-12, atol=1e-12)


def test_a_filter_without_upsampling_is_not_used():
    x, weight, styles = arguments()
    assert torch.equal(modulated_conv2d(x, weight, styles, resample_filter=FIR), modulated_conv2d(x, weight, styles))


def test_demodulated_output_has_unit_variance():
    x, weight, styles = torch.randn(2, 64, 32, 32), torch.randn(16, 64, 3, 3), torch.rand(2, 64) + 0.1
    inside = modulated_conv2d(x, weight, styles)[:, :, 1:-1, 1:-1]
    assert inside.var().item() == pytest.approx(1, abs=0.05)


@pytest.mark.parametrize("demodulate", [True, False], ids=["demodulated", "plain"])
@pytest.mark.parametrize("up", [1, 2])
def test_gradients_of_order_one_and_two(up, demodulate):
    x, weight, styles = (t[:, :2].clone().requires_grad_() for t in arguments(size=(2, 3)))
    f = FIR if up == 2 else None

    def run(x, weight, styles):
        return torch.ops.mmif.modulated_conv2d(x, weight, styles, f, up, demodulate)

    gradcheck(run, (x, weight, styles))
    gradgradcheck(run, (x, weight, styles))


@pytest.mark.parametrize(
    ("dtype", "decibels"), [(torch.float16, 50), (torch.bfloat16, 40)], ids=["float16", "bfloat16"]
)
@pytest.mark.parametrize("up", [1, 2])
@pytest.mark.parametrize("style_dtype", [None, torch.float32], ids=["styles_at_dtype", "styles_float32"])
def test_styles_up_to_a_thousand_stay_in_range(dtype, decibels, up, style_dtype):
    """The convolution of x * styles and the sum of squares both leave the range of float16 when taken literally."""
    x, weight = 8 * torch.randn(2, 32, 8, 8).to(dtype), 32 * torch.randn(8, 32, 3, 3).to(dtype)
    styles = (torch.rand(2, 32) * 2000 - 1000).to(style_dtype or dtype)
    inputs = [t.requires_grad_() for t in (x, weight, styles)]
    f = FIR if up == 2 else None
    y = torch.ops.mmif.modulated_conv2d(*inputs, f, up, True)
    truth = modulated_conv2d_ref(x.double(), weight.double(), styles.double(), f, up, True)
    assert peak_signal_to_noise(y, truth) >= decibels
    for gradient in torch.autograd.grad(y.sum(), inputs):
        assert gradient.isfinite().all()


def test_the_gradient_of_the_styles_is_summed_outside_float16():
    """A sum over the image that float16 cannot hold, in float32 styles."""
    x, weight = torch.full((1, 2, 64, 64), 8.0).half(), torch.ones(1, 2, 1, 1).half()
    styles = torch.ones(1, 2, requires_grad=True)
    y = torch.ops.mmif.modulated_conv2d(x, weight, styles, None, 1, False)
    (dstyles,) = torch.autograd.grad(y, styles, torch.full_like(y, 4.0))
    assert dstyles.tolist() == [[64 * 64 * 8 * 4] * 2]


def peak_signal_to_noise(y, truth):
    return 10 * torch.log10(truth.abs().max() ** 2 / (y.double() - truth).square().mean()).item()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"x": torch.zeros(3, 4, 4)}, r"x must be \[N, I, H, W\] .*, got \(3, 4, 4\) and \(2, 3, 3, 3\)"),
        ({"weight": torch.zeros(2, 3, 3)}, r"weight \[O, I, k, k\] with odd k, got .* and \(2, 3, 3\)"),
        ({"weight": torch.zeros(2, 3, 2, 2)}, r"weight \[O, I, k, k\] with odd k, got .* and \(2, 3, 2, 2\)"),
        ({"weight": torch.zeros(2, 3, 1, 3)}, r"weight \[O, I, k, k\] with odd k, got .* and \(2, 3, 1, 3\)"),
        ({"weight": torch.zeros(2, 4, 3, 3)}, r"weight must have 3 input channels .*, got \(2, 4, 3, 3\) and \(1, 3\)"),
        ({"styles": torch.zeros(2, 3)}, r"styles the shape \(1, 3\), got \(2, 3, 3, 3\) and \(2, 3\)"),
        (
            {"weight": torch.zeros(2, 3, 3, 3).half()},
            r"x and weight must share a floating dtype .*, got .*torch.float16",
        ),
        ({"styles": torch.zeros(1, 3).long()}, r"styles be floating, got torch.float32, torch.float32, torch.int64"),
        (
            {"x": torch.zeros(1, 3, 4, 4).int(), "weight": torch.zeros(2, 3, 3, 3).int()},
            r"share a floating dtype .*, got torch.int32, torch.int32, torch.float32",
        ),
        ({"up": 3}, r"up must be 1, or 2 with a resample_filter, got up=3"),
        ({"up": 2}, r"up must be 1, or 2 with a resample_filter, got up=2"),
        (
            {"up": 2, "resample_filter": torch.ones(4).double()},
            r"resample_filter must be float32 \[taps\] or \[taps, taps\], got torch.float64 \(4,\)",
        ),
        ({"up": 2, "resample_filter": torch.ones(2, 4)}, r"resample_filter must be .*, got torch.float32 \(2, 4\)"),
        ({"up": 2, "resample_filter": torch.tensor(1.0)}, r"resample_filter must be .*, got torch.float32 \(\)"),
    ],
    ids=[
        *("x_rank", "weight_rank", "even", "oblong", "channels", "styles", "weight_half", "styles_integer", "integer"),
        *("up_3", "up_without_filter", "filter_double", "filter_oblong", "filter_scalar"),
    ],
)
def test_bad_input(kwargs, message):
    good = {"x": torch.zeros(1, 3, 4, 4), "weight": torch.zeros(2, 3, 3, 3), "styles": torch.zeros(1, 3)}
    with pytest.raises(ValueError, match=f"modulated_conv2d: .*{message}"):
        modulated_conv2d(**{**good, **kwargs})
