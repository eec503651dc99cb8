"""Filters, resampling and convolutions in the order that NVlabs documents them, by SciPy and loops."""

import numpy as np
import scipy.signal
import torch

from mmif.compat.stylegan import setup_filter

FIR = setup_filter([1, 3, 3, 1])
TAPS = torch.tensor([0.5, 1.25, -0.75])  # exact in float32, separable, not symmetric
MATRIX = torch.tensor([[1.0, 2.0, -1.0, 0.5], [0.25, 3.0, 0.5, 1.0]])
FILTERS = {"taps": TAPS, "matrix": MATRIX, "identity": None}


def spread(x, up):
    """Insert up - 1 zeros after every pixel."""
    y = np.zeros((*x.shape[:2], x.shape[2] * up[1], x.shape[3] * up[0]))
    y[:, :, :: up[1], :: up[0]] = x
    return y


def pad(x, left, right, top, bottom):
    """Pad with zeros, then crop where negative."""
    x = np.pad(x, ((0, 0), (0, 0), (max(top, 0), max(bottom, 0)), (max(left, 0), max(right, 0))))
    return x[:, :, max(-top, 0) : x.shape[2] - max(-bottom, 0), max(-left, 0) : x.shape[3] - max(-right, 0)]


def fir(x, f, flip=False):
    """Convolve every image with the filter, or correlate it, where the filter fits inside."""
    f = np.ones((1, 1)) if f is None else f.double().numpy()
    f = np.outer(f, f) if f.ndim == 1 else f
    f = f[::-1, ::-1] if flip else f
    return np.stack([[scipy.signal.convolve2d(c, f, "valid") for c in sample] for sample in x])


def size(f):
    """Width and height of a filter."""
    return (1, 1) if f is None else (f.shape[-1], f.shape[0])


def resampled(x, f, up=(1, 1), down=(1, 1), pads=(0, 0, 0, 0), flip=False, gain=1.0):
    return gain * fir(pad(spread(x, up), *pads), f, flip)[:, :, :: down[1], :: down[0]]


def correlate(x, w, groups=1):
    """Valid cross-correlation by loops."""
    out, per_group, kh, kw = w.shape
    y = np.zeros((len(x), out, x.shape[2] - kh + 1, x.shape[3] - kw + 1))
    for o in range(out):
        first = o // (out // groups) * per_group
        for i in range(per_group):
            for a in range(kh):
                for b in range(kw):
                    window = x[:, first + i, a : a + y.shape[2], b : b + y.shape[3]]
                    y[:, o] += w[o, i, a, b] * window
    return y


def keep_size(f, up, down):
    """The padding that a filter needs; both directions add up."""
    fw, fh = size(f)
    pads = np.zeros(4, int)
    if up > 1:
        pads += [(fw + up - 1) // 2, (fw - up) // 2, (fh + up - 1) // 2, (fh - up) // 2]
    if down > 1:
        pads += [(fw - down + 1) // 2, (fw - down) // 2, (fh - down + 1) // 2, (fh - down) // 2]
    return pads


def convolved(x, w, f, up, down, pads, groups=1, flip_weight=True, flip_filter=False):
    """The documented order: upsample, pad, filter, convolve, filter, downsample."""
    pads = keep_size(f, up, down) + pads
    y = up**2 * fir(pad(spread(x, (up, up)), *pads), f if up > 1 else None, flip_filter)
    y = correlate(y, w if flip_weight else w[:, :, ::-1, ::-1], groups)
    return fir(y, f if down > 1 else None, flip_filter)[:, :, ::down, ::down]


def modulated(x, weight, styles, f, up, down, pads, demodulate, flip_weight):
    """Weights per sample, as the StyleGAN2 paper writes it."""
    out = []
    for sample, style in zip(x, styles, strict=True):
        w = weight * style[None, :, None, None]
        if demodulate:
            w = w / np.sqrt((w**2).sum(axis=(1, 2, 3), keepdims=True) + 1e-8)
        out.append(convolved(sample[None], w, f, up, down, pads, flip_weight=flip_weight)[0])
    return np.stack(out)


def images(*shape):
    return torch.randn(*(shape or (2, 3, 5, 6)), dtype=torch.float64)


def assert_equal(got, expected):
    assert got.dtype == torch.float64
    np.testing.assert_allclose(got.detach().numpy(), expected, rtol=1e-12, atol=1e-12)
