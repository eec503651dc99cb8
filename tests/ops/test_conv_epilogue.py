"""conv_epilogue and demodulate against loops and NumPy; bad input."""

import numpy as np
import pytest
import scipy.signal
import torch

from mmif.ops import ToRGB, conv_epilogue, demodulate, setup_filter
from mmif.ops._epilogue import Epilogue

F4 = setup_filter([1, 3, 4, 2])  # not symmetric, so that a flip would show
N, C, H, W = 2, 4, 6, 4


def upsampled(plane, taps):
    """Zeros between the pixels, a full convolution, the window that centres four taps."""
    wide = np.zeros((2 * plane.shape[0], 2 * plane.shape[1]))
    wide[::2, ::2] = plane
    return 4 * scipy.signal.convolve2d(wide, np.outer(taps, taps))[1:-2, 1:-2]


def given(dtype=torch.float64, blur=False):
    randn = torch.randn
    return {
        "y": randn(N, C, H + blur, W + blur, dtype=dtype),
        "demod": randn(N, C, dtype=dtype),
        "noise": randn(N, 1, H, W, dtype=dtype),
        "noise_strength": torch.tensor(0.3, dtype=dtype),
        "bias": randn(C, dtype=dtype),
        "skip": randn(N, C, H, W, dtype=dtype),
        "next_styles": randn(N, C, dtype=dtype),
        "resample_filter": F4,
        "blur": blur,
    }


def rgb_of(prev=True, **options):
    double = {"dtype": torch.float64}
    below = torch.randn(N, 3, H // 2, W // 2, **double) if prev else None
    return ToRGB(torch.randn(3, C, **double), torch.randn(N, C, **double), torch.randn(3, **double), below, **options)


@pytest.mark.parametrize("blur", [False, True], ids=["", "blur"])
def test_a_layer_is_what_its_equation_says(blur):
    a = given(blur=blur)
    out, image = conv_epilogue(**a, act="lrelu", alpha=0.1, gain=1.5, clamp=0.9)
    assert image is None
    taps = F4.double().numpy()
    for n in range(N):
        for c in range(C):
            y = a["y"][n, c].numpy()
            if blur:
                y = 4 * scipy.signal.convolve2d(np.pad(y, 1), np.outer(taps, taps), mode="valid")
            v = y * a["demod"][n, c].item() + a["noise"][n, 0].numpy() * 0.3 + a["bias"][c].item()
            v = np.clip(1.5 * np.where(v > 0, v, 0.1 * v), -0.9, 0.9) + a["skip"][n, c].numpy()
            np.testing.assert_allclose(out[n, c].numpy(), v * a["next_styles"][n, c].item(), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("prev", [True, False], ids=["prev", "lowest"])
def test_to_rgb_reads_the_layer_before_the_next_styles(prev):
    a, rgb = given(), rgb_of(prev, clamp=0.8)
    out, image = conv_epilogue(**a, act="relu", to_rgb=rgb)
    layer = (out / a["next_styles"][:, :, None, None]).numpy()
    assert image is not None
    for n in range(N):
        for k in range(3):
            weights = (rgb.weight[k] * rgb.styles[n]).numpy()
            expected = np.clip(np.tensordot(weights, layer[n], 1) + rgb.bias[k].item(), -0.8, 0.8)
            if rgb.prev is not None:
                expected = expected + upsampled(rgb.prev[n, k].numpy(), F4.double().numpy())
            np.testing.assert_allclose(image[n, k].numpy(), expected, rtol=1e-9, atol=1e-9)


def test_the_last_layer_writes_the_image_alone():
    a, rgb = given(), rgb_of()
    full = conv_epilogue(**a, to_rgb=rgb)[1]
    out, image = conv_epilogue(**a, to_rgb=rgb._replace(last=True))
    assert out.numel() == 0
    assert torch.equal(image, full)


def test_demodulation_brings_the_output_to_unit_norm():
    weight, styles = torch.randn(3, 5, 4, 9), torch.randn(3, 2, 4) * 1e4  # [L, O, I, taps]
    scaled, d = demodulate(styles, weight.square().sum(3))
    assert scaled.abs().amax(2).allclose(torch.ones(3, 2))
    modulated = weight[:, None] * scaled[:, :, None, :, None] * d[..., None, None]  # [L, N, O, I, taps]
    assert modulated.flatten(3).norm(dim=3).allclose(torch.ones(3, 2, 5), atol=1e-5)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"y": torch.zeros(N, C, H)}, r"y must be floating point \[N, C, H, W\] .*, got torch.float32 \(2, 4, 6\)"),
        ({"act": "tanh"}, r"act must be linear, relu or lrelu, got 'tanh'"),
        ({"demod": torch.zeros(N, 3)}, r"demod must be torch.float32 \(2, 4\), got torch.float32 \(2, 3\)"),
        ({"bias": torch.zeros(C).half()}, r"bias must be torch.float32 \(4,\), got torch.float16 \(4,\)"),
        ({"skip": torch.zeros(N, C, H, W + 1)}, r"skip must be torch.float32 \(2, 4, 6, 4\), got"),
        ({"noise_strength": None}, r"noise and noise_strength must be given together"),
        ({"noise": torch.zeros(3, 1, H, W)}, r"noise must be torch.float32 \(2, 1, 6, 4\), got"),
        ({"blur": True, "resample_filter": None}, r"a resample_filter must be given where something is filtered"),
        (
            {"resample_filter": torch.zeros(3)},
            r"resample_filter must be torch.float32 \(4,\), got torch.float32 \(3,\)",
        ),
        ({"blur": True, "to_rgb": rgb_of()}, r"to_rgb and blur must not be asked for together"),
        ({"blur": True, "y": torch.zeros(N, C, 1, 5)}, r"y must be at least 2x2 to be filtered, got \(2, 4, 1, 5\)"),
    ],
)
def test_bad_input(change, message):
    with pytest.raises(ValueError, match=f"conv_epilogue: {message}"):
        conv_epilogue(**{**given(torch.float32), **change})


def test_bad_input_of_demodulate():
    with pytest.raises(
        ValueError, match=r"demodulate: styles must be \[L, N, I\] and w2 \[L, O, I\], got \(1, 2, 3\) and"
    ):
        demodulate(torch.zeros(1, 2, 3), torch.zeros(1, 2, 4))
    with pytest.raises(ValueError, match=r"demodulate: styles and w2 must be float32, got torch.float64 and"):
        demodulate(torch.zeros(1, 2, 3).double(), torch.zeros(1, 2, 3))


def test_a_gradient_is_an_error_and_never_silently_zero():
    y = torch.randn(1, 8, 2, 2, requires_grad=True)
    out, _ = torch.ops.mmif.conv_epilogue(y, False, *Epilogue())
    with pytest.raises(RuntimeError, match="no autograd formula was registered"):
        out.sum().backward()
