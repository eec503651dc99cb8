"""NVlabs' ops under their names and parameters, by plain PyTorch in the documented order: any order of gradient, slow.

Written from the documentation of ``torch_utils.ops``; ``tests/compat/test_networks.py`` holds them to the oracles.
"""

import torch
import torch.nn.functional as F

SQRT2 = 2**0.5
ACTIVATIONS = {  # function and default gain
    "linear": (lambda x, alpha: x, 1.0),
    "relu": (lambda x, alpha: F.relu(x), SQRT2),
    "lrelu": (F.leaky_relu, SQRT2),
    "tanh": (lambda x, alpha: torch.tanh(x), 1.0),
    "sigmoid": (lambda x, alpha: torch.sigmoid(x), 1.0),
    "swish": (lambda x, alpha: F.silu(x), SQRT2),
}


def bias_act(x, b=None, dim=1, act="linear", alpha=None, gain=None, clamp=None, impl="cuda"):
    function, default = ACTIVATIONS[act]
    if b is not None:
        x = x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])
    x = function(x, 0.2 if alpha is None else alpha) * (default if gain is None else gain)
    return x if clamp is None else x.clamp(-clamp, clamp)


def upfirdn2d(x, f, up=1, down=1, padding=0, flip_filter=False, gain=1, impl="cuda"):
    n, c, h, w = x.shape
    left, right, top, bottom = [padding] * 4 if isinstance(padding, int) else padding
    x = F.pad(x.reshape(n, c, h, 1, w, 1), (0, up - 1, 0, 0, 0, up - 1)).reshape(n, c, h * up, w * up)
    x = F.pad(x, (left, right, top, bottom))
    f = torch.ones(1, 1) if f is None else f
    f = (torch.outer(f, f) if f.ndim == 1 else f).to(x.dtype)
    f = f if flip_filter else f.flip(0, 1)
    return gain * F.conv2d(x, f.expand(c, 1, *f.shape), groups=c)[:, :, ::down, ::down]


def _size(f):
    return 1 if f is None else f.shape[-1]


def _keep_size(f, up=1, down=1):
    """Padding for one resampling by a square filter."""
    taps = _size(f)
    if up > 1:
        return [(taps + up - 1) // 2, (taps - up) // 2] * 2
    return [(taps - down + 1) // 2, (taps - down) // 2] * 2


def filter2d(x, f, padding=0, flip_filter=False, gain=1, impl="cuda"):
    return upfirdn2d(x, f, padding=[p + padding for p in [_size(f) // 2, (_size(f) - 1) // 2] * 2], gain=gain)


def upsample2d(x, f, up=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    return upfirdn2d(x, f, up=up, padding=[p + padding for p in _keep_size(f, up=up)], gain=gain * up**2)


def downsample2d(x, f, down=2, padding=0, flip_filter=False, gain=1, impl="cuda"):
    return upfirdn2d(x, f, down=down, padding=[p + padding for p in _keep_size(f, down=down)], gain=gain)


def conv2d_resample(x, w, f=None, up=1, down=1, padding=0, groups=1, flip_weight=True, flip_filter=False):
    pads = [padding] * 4
    for factors in [{"up": up}] * (up > 1) + [{"down": down}] * (down > 1):
        pads = [a + b for a, b in zip(pads, _keep_size(f, **factors), strict=True)]
    x = upfirdn2d(x, f if up > 1 else None, up=up, padding=pads, gain=up**2)
    x = F.conv2d(x, w if flip_weight else w.flip(2, 3), groups=groups)
    return upfirdn2d(x, f if down > 1 else None, down=down)


def modulated(x, weight, styles, noise, up, down, padding, resample_filter, demodulate, flip_weight):
    """Weights per sample, the batch as groups, the noise added in place."""
    n, o = x.shape[0], weight.shape[0]
    w = weight[None] * styles[:, None, :, None, None]
    if demodulate:
        w = w * (w.square().sum((2, 3, 4), keepdim=True) + 1e-8).rsqrt()
    x = x.reshape(1, -1, *x.shape[2:])
    x = conv2d_resample(x, w.flatten(0, 1), resample_filter, up, down, padding, groups=n, flip_weight=flip_weight)
    x = x.reshape(n, o, *x.shape[2:])
    return x if noise is None else x.add_(noise)
