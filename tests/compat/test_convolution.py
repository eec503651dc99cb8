"""conv2d_resample and modulated_conv2d against loops; range of float16; gradients; bad input."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from stylegan_oracles import FILTERS, FIR, MATRIX, TAPS, assert_equal, convolved, images, modulated
from torch.autograd import gradcheck, gradgradcheck
from torch.utils._python_dispatch import TorchDispatchMode

from mmif.compat import conv2d_gradfix
from mmif.compat.stylegan import conv2d_resample, modulated_conv2d


def kernel(shape, groups=1):
    return images(4, 4 // groups, *shape)


@pytest.mark.parametrize("f", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (3, 1), (1, 2), (1, 3), (2, 2)], ids="up{0[0]}down{0[1]}".format)
@pytest.mark.parametrize("shape", [(1, 1), (3, 3), (2, 3)], ids=str)
@pytest.mark.parametrize("padding", [0, (1, 2), (2, 1, 0, 3), (-1, 2, -1, -1)], ids=str)
def test_conv2d_resample(f, factors, shape, padding):
    x, w = images(1, 4, 7, 8), kernel(shape)
    sides = {1: (padding,) * 4}.get(np.size(padding)) or (padding if len(padding) == 4 else (1, 1, 2, 2))
    expected = convolved(x.numpy(), w.numpy(), f, *factors, sides)
    assert_equal(conv2d_resample(x, w, f, *factors, padding), expected)


@pytest.mark.parametrize("factors", [(1, 1), (2, 1), (1, 2), (2, 2)], ids="up{0[0]}down{0[1]}".format)
@pytest.mark.parametrize("groups", [1, 2, 4])
@pytest.mark.parametrize("flips", [(True, False), (False, False), (False, True)], ids=str)
def test_conv2d_resample_groups_and_flips(factors, groups, flips):
    x, w = images(2, 4, 5, 6), kernel((3, 2), groups)
    expected = convolved(x.numpy(), w.numpy(), MATRIX, *factors, (1, 1, 1, 1), groups, *flips)
    assert_equal(conv2d_resample(x, w, MATRIX, *factors, 1, groups, *flips), expected)


def test_flip_weight_is_what_conv2d_does():
    x, w = images(2, 4, 5, 6), kernel((3, 3))
    assert torch.equal(conv2d_resample(x, w, padding=1), F.conv2d(x, w, padding=1))
    assert torch.equal(conv2d_resample(x, w, padding=1, flip_weight=False), F.conv2d(x, w.flip(2, 3), padding=1))


@pytest.mark.parametrize(
    ("k", "up", "down", "padding", "f"),
    [
        ((3, 3), 1, 1, 1, None),
        ((1, 1), 1, 1, 0, None),
        ((3, 3), 2, 1, 1, FIR),
        ((3, 3), 2, 1, [1, 1], TAPS),
        ((3, 3), 2, 1, 1, None),
        ((3, 3), 2, 1, 1, MATRIX),
        ((3, 3), 1, 1, (1, 0), None),
        ((3, 3), 1, 1, -1, None),
        ((2, 4), 2, 1, 1, FIR),
        ((3, 3), 3, 1, 1, FIR),
        ((3, 3), 1, 2, 1, FIR),
        ((3, 3), 2, 2, 1, FIR),
    ],
    ids=[
        *("layer", "torgb", "up", "up_taps", "up_identity", "up_matrix"),
        *("oblong_padding", "crop", "oblong_kernel", "up3", "down", "up_down"),
    ],
)
@pytest.mark.parametrize("demodulate", [True, False], ids=["demodulated", "plain"])
@pytest.mark.parametrize("flip_weight", [True, False], ids=["correlate", "convolve"])
def test_modulated_conv2d(k, up, down, padding, f, demodulate, flip_weight):
    x, weight, styles = images(2, 3, 5, 6), images(4, 3, *k), images(2, 3)
    sides = np.repeat(padding, 4 // np.size(padding))
    expected = modulated(x.numpy(), weight.numpy(), styles.numpy(), f, up, down, sides, demodulate, flip_weight)
    noise = images(2, 1, *expected.shape[2:])
    for fused in (True, False):
        got = modulated_conv2d(x, weight, styles, noise, up, down, padding, f, demodulate, flip_weight, fused)
        assert_equal(got, expected + noise.numpy())


def test_noise_of_any_shape_that_broadcasts():
    x, weight, styles = images(2, 3, 5, 6), images(4, 3, 1, 1), images(2, 3)
    plain = modulated_conv2d(x, weight, styles)
    for shape in ((5, 6), (1, 1, 5, 6), (2, 1, 5, 6), (2, 4, 5, 6)):
        noise = images(*shape).float()
        assert torch.equal(modulated_conv2d(x, weight, styles, noise=noise), plain + noise.double())


@pytest.mark.parametrize("down", [1, 2], ids=["op", "composed"])
@pytest.mark.parametrize("scale", [1e-4, 1.0, 1e6])
def test_float16_is_normalised_first(scale, down):
    """Weights and styles of a size that float16 cannot hold, or whose products it cannot."""
    x, weight, styles = (
        8 * images(2, 32, 8, 8).half(),
        (scale * images(8, 32, 3, 3)).float(),
        1e3 * images(2, 32).float(),
    )
    got = modulated_conv2d(x, weight, styles, padding=1, down=down, resample_filter=FIR)
    doubles = (t.double().numpy() for t in (x, weight, styles))
    truth = modulated(*doubles, FIR, 1, down, (1, 1, 1, 1), True, True)
    assert got.dtype == torch.float16
    error = got.double().numpy() - truth
    assert 10 * np.log10(np.abs(truth).max() ** 2 / np.square(error).mean()) >= 50


def test_float16_holds_the_sum_of_a_convolution_before_it_is_demodulated():
    """1000 * 32 * 9 is more than float16 holds, the result 1000 * sqrt(32 * 9) is not."""
    x, weight, styles = torch.full((1, 32, 3, 3), 1e3).half(), torch.ones(1, 32, 3, 3), torch.ones(1, 32)
    assert modulated_conv2d(x, weight, styles).item() == pytest.approx(1e3 * (32 * 9) ** 0.5, rel=1e-3)
    assert modulated_conv2d(x, weight, styles, padding=1)[0, 0, 1, 1].item() == pytest.approx(16970.6, rel=1e-3)


def test_float16_gradients_reach_float32_parameters():
    x = images(2, 4, 6, 6).half()
    weight, styles = (1e3 * images(4, 4, 3, 3)).float().requires_grad_(), images(2, 4).float().requires_grad_()
    y = modulated_conv2d(x, weight, styles, padding=1)
    y.float().square().sum().backward()
    for parameter in (weight, styles):
        gradient = parameter.grad
        assert gradient.dtype == torch.float32
        assert gradient.isfinite().all()
        assert gradient.abs().max() > 0
        # The output does not change with the scale of its parameters, so the gradient is at right angles to them.
        assert (gradient * parameter).sum().abs() < 2e-2 * gradient.norm() * parameter.norm()


@pytest.mark.parametrize(
    ("run", "shapes"),
    [
        (lambda x, w: conv2d_resample(x, w, FIR, up=2, padding=1, groups=2), [(1, 2, 2, 2), (2, 1, 3, 3)]),
        (lambda x, w: conv2d_resample(x, w, FIR, down=2, padding=1), [(1, 2, 4, 4), (1, 2, 3, 3)]),
        (lambda x, w: conv2d_resample(x, w, padding=(1, 0), flip_weight=False), [(1, 2, 3, 4), (1, 2, 2, 3)]),
        (
            lambda x, w, s, n: modulated_conv2d(x, w, s, n, up=2, padding=1, resample_filter=FIR, flip_weight=False),
            [(2, 1, 2, 2), (2, 1, 3, 3), (2, 1), (4, 4)],
        ),
        (
            lambda x, w, s: modulated_conv2d(x, w, s, down=2, resample_filter=FIR),
            [(1, 2, 4, 4), (2, 2, 1, 1), (1, 2)],
        ),
    ],
    ids=["up", "down", "convolve", "modulated_up", "modulated_down"],
)
def test_gradients_of_order_one_and_two(run, shapes):
    inputs = [images(*shape).requires_grad_() for shape in shapes]
    gradcheck(run, inputs)
    gradgradcheck(lambda *args: run(*args).square(), inputs)


class Convolutions(TorchDispatchMode):
    """Records which gradients every backward pass of a convolution computes: input, weight, bias."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        if func is torch.ops.aten.convolution_backward.default:
            self.masks.append(args[-1])
        return func(*args, **(kwargs or {}))


def test_no_weight_gradients_computes_none():
    x, w = images(1, 1, 4, 4).requires_grad_(), images(1, 1, 3, 3).requires_grad_()
    seen = Convolutions()
    seen.masks = []
    with conv2d_gradfix.no_weight_gradients(), seen:
        (dx,) = torch.autograd.grad(conv2d_gradfix.conv2d(x, w).square().sum(), x, create_graph=True)
    assert seen.masks == [[True, False, False]]
    assert torch.autograd.grad(dx.square().sum(), w)[0].abs().max() > 0  # R1 reaches the weights all the same


X, W, S = torch.zeros(1, 2, 4, 4), torch.zeros(2, 2, 3, 3), torch.zeros(1, 2)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: conv2d_resample(X, W, padding=()), r"conv2d_resample: padding must be 1, 2 or 4 integers, got \(\)"),
        (lambda: conv2d_resample(X, W, up=0), "conv2d_resample: up, down and groups must be >= 1, got 0, 1 and 1"),
        (lambda: conv2d_resample(X[0], W), r"conv2d_resample: x and w must be 4-D .*, got torch.float32 \(2, 4, 4\)"),
        (lambda: conv2d_resample(X, W.half()), "conv2d_resample: x and w must be .* floating dtype, .* torch.float16"),
        (lambda: conv2d_resample(X, W, groups=2), r"conv2d_resample: w must be \[O, I // groups, .* groups=2, got"),
        (lambda: conv2d_resample(X, W[:1, :1], groups=2), "conv2d_resample: w must be .* O a multiple of groups=2"),
        (lambda: conv2d_resample(X, W, padding=-1), r"conv2d_resample: the padded image .*, got \(4, 4\) with up=1"),
        (lambda: conv2d_resample(X, W, FIR, down=2, padding=(0, -2)), "conv2d_resample: the padded image must be"),
        (lambda: conv2d_resample(X, W, FIR[None], up=2), "upfirdn2d: f must be None"),
        (lambda: modulated_conv2d(X, W[0], S), r"modulated_conv2d: weight must be .* got \(2, 3, 3\), \(1, 2\) and"),
        (lambda: modulated_conv2d(X, W, S.T), r"modulated_conv2d: .* styles \[N, I\] .*, got \(2, 2, 3, 3\), \(2, 1\)"),
        (lambda: modulated_conv2d(X, W.int(), S), "modulated_conv2d: .* must be floating, got .*, torch.int32, "),
        (lambda: modulated_conv2d(X, W, S, padding="1"), "modulated_conv2d: padding must be 1, 2 or 4 integers, got 1"),
    ],
)
def test_bad_input(run, message):
    with pytest.raises(ValueError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)
