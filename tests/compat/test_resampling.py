"""NVlabs' filters and resampling, with their paddings, against SciPy; gradients; bad input."""

import numpy as np
import pytest
import scipy.signal
import torch
from stylegan_oracles import FILTERS, FIR, MATRIX, TAPS, assert_equal, images, resampled, size
from torch.autograd import gradcheck, gradgradcheck

from mmif.compat.stylegan import downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d


@pytest.mark.parametrize("f", FILTERS.values(), ids=FILTERS)
@pytest.mark.parametrize("flip", [False, True], ids=["convolve", "correlate"])
def test_upfirdn2d(f, flip):
    x = images()
    expected = resampled(x.numpy(), f, (2, 3), (3, 2), (4, -1, 2, 3), flip, 2.5)
    assert_equal(upfirdn2d(x, f, [2, 3], (3, 2), [4, -1, 2, 3], flip, 2.5), expected)
    pair = resampled(x.numpy(), f, pads=(3, 3, 2, 2))
    assert_equal(upfirdn2d(x, f, padding=(3, np.int64(2))), pair)  # (x, y)


def test_upfirdn2d_of_one_line_is_scipy_upfirdn():
    x = images(1, 1, 1, 7)
    expected = scipy.signal.upfirdn(TAPS.double().numpy(), x[0, 0, 0].numpy(), up=3, down=2)
    got = upfirdn2d(x, TAPS[None], up=(3, 1), down=(2, 1), padding=(2, 0, 0, 0))[0, 0, 0]
    assert_equal(got, expected[: len(got)])
    assert len(got) == 11


@pytest.mark.parametrize("f", [*FILTERS.values(), FIR], ids=[*FILTERS, "even"])
@pytest.mark.parametrize("factor", [1, 2, 3, (2, 1)], ids=str)
def test_sizes_and_paddings_of_the_presets(f, factor):
    """Without padding the size is kept, multiplied or divided; a padding comes on top."""
    x = images(1, 2, 6, 6)
    fx, fy = (factor, factor) if isinstance(factor, int) else factor
    fw, fh = size(f)
    up = ((fw + fx - 1) // 2, (fw - fx) // 2, (fh + fy - 1) // 2, (fh - fy) // 2)
    down = ((fw - fx + 1) // 2, (fw - fx) // 2, (fh - fy + 1) // 2, (fh - fy) // 2)
    same = (fw // 2, (fw - 1) // 2, fh // 2, (fh - 1) // 2)
    more = np.array([1, 2, 0, 1])
    assert upsample2d(x, f, factor).shape == (1, 2, 6 * fy, 6 * fx)
    assert downsample2d(x, f, factor).shape == (1, 2, 6 // fy, 6 // fx)
    assert filter2d(x, f).shape == x.shape
    for extra in (more * 0, more):
        padding = [int(p) for p in extra]
        expected = resampled(x.numpy(), f, up=(fx, fy), pads=extra + up, gain=fx * fy * 0.5, flip=True)
        assert_equal(upsample2d(x, f, factor, padding, True, 0.5), expected)
        expected = resampled(x.numpy(), f, down=(fx, fy), pads=extra + down, gain=0.5, flip=True)
        assert_equal(downsample2d(x, f, factor, padding, True, 0.5), expected)
        expected = resampled(x.numpy(), f, pads=extra + same, gain=0.5, flip=True)
        assert_equal(filter2d(x, f, padding, True, 0.5), expected)


def test_upsampling_keeps_the_brightness_and_the_centre():
    x = torch.ones(1, 1, 8, 8)
    assert torch.equal(upsample2d(x, FIR)[:, :, 2:-2, 2:-2], torch.ones(1, 1, 12, 12))
    assert torch.equal(downsample2d(x, FIR)[:, :, 1:-1, 1:-1], torch.ones(1, 1, 2, 2))
    ramp = images(1, 1, 1, 8) * 0 + torch.arange(8)
    middle = upsample2d(ramp, setup_filter([[1, 3, 3, 1]]), up=(2, 1))[0, 0, 0]
    assert middle[2:-2].tolist() == [i / 2 - 0.25 for i in range(2, 14)]


def test_setup_filter():
    assert setup_filter(None).tolist() == setup_filter(3).tolist() == [[1.0]]
    assert torch.equal(setup_filter([1, 3, 3, 1]), torch.outer(*[torch.tensor([1.0, 3, 3, 1]) / 8] * 2))
    assert setup_filter([1] * 8).shape == (8,)
    assert setup_filter([1, 3], separable=True).tolist() == [0.25, 0.75]
    assert setup_filter([1] * 9, separable=False).shape == (9, 9)
    assert setup_filter([[1, 2]], normalize=False).tolist() == [[1, 2]]
    assert setup_filter([[1, 2], [3, 4]], "cpu", False, True).tolist() == [[4, 3], [2, 1]]
    assert setup_filter(np.array([[1, 3]]), gain=4).tolist() == [[1, 3]]
    assert setup_filter([1, 3], gain=4, separable=True).tolist() == [0.5, 1.5]  # applied twice: 2 * 2 = 4


@pytest.mark.parametrize("dtype", [torch.float16, torch.float64])
def test_filters_of_other_dtypes_are_taken_as_float32(dtype):
    x = images()
    assert torch.equal(upfirdn2d(x, FIR.to(dtype), padding=2), upfirdn2d(x, FIR, padding=2))


@pytest.mark.parametrize(
    "run",
    [
        lambda x: upfirdn2d(x, MATRIX, 2, 3, 3),
        lambda x: upsample2d(x, FIR),
        lambda x: downsample2d(x, FIR),
        lambda x: filter2d(x, TAPS),
    ],
    ids=["upfirdn2d", "upsample2d", "downsample2d", "filter2d"],
)
def test_gradients_of_order_one_and_two(run):
    x = images(1, 1, 3, 4).requires_grad_()
    gradcheck(run, x)
    gradgradcheck(lambda x: run(x).square(), x)


X = torch.zeros(1, 2, 4, 4)


@pytest.mark.parametrize(
    ("run", "message"),
    [
        (lambda: setup_filter([]), "setup_filter: f must be a number, a list or a matrix of taps, got shape"),
        (lambda: setup_filter([[[1]]]), r"setup_filter: f must be .*, got shape \(1, 1, 1\)"),
        (lambda: setup_filter([[1]], separable=True), r"setup_filter: a separable f must be a list .*, got \(1, 1\)"),
        (lambda: setup_filter([1] * 8, gain=-1), r"setup_filter: a separable f .* gain >= 0, got \(8,\), gain -1"),
        (lambda: upfirdn2d(X, torch.tensor(1.0)), r"upfirdn2d: f must be float32 \[taps\]"),
        (lambda: upsample2d(X, torch.ones(1, 1, 1)), r"upfirdn2d: f must be None, \[taps\] or \[fh, fw\], got shape"),
        (lambda: upfirdn2d(X, FIR, up=0), "upfirdn2d: up must be one or two integers >= 1"),
        (lambda: upsample2d(X, FIR, up=1.5), "upsample2d: up must be one or two integers, got 1.5"),
        (
            lambda: downsample2d(X, FIR, down=[2, 2, 2]),
            r"downsample2d: down must be one or two integers, got \[2, 2, 2\]",
        ),
        (lambda: filter2d(X, FIR, padding=[1, 2, 3]), r"filter2d: padding must be 1, 2 or 4 integers, got \[1, 2, 3\]"),
        (lambda: filter2d(X, FIR, padding=-3), r"upfirdn2d: the padded image must be at least as large as the filter"),
    ],
)
def test_bad_input(run, message):
    with pytest.raises(ValueError, match=message) as caught:
        run()
    assert "\n" not in str(caught.value)
