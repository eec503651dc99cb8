"""What may be changed in place between a call and its backward pass: the table of docs/compat.md."""

import pytest
import torch
from stylegan_oracles import FIR, images

from mmif.compat import stylegan

WEIGHT, STYLES, BIAS = images(4, 3, 3, 3), images(2, 3), images(3)
NOISE = images(2, 1, 5, 6)


def modulated(x, **options):
    return stylegan.modulated_conv2d(x, WEIGHT, STYLES, padding=1, **options)


CALLS = {  # a call, and what may be changed
    "linear": (lambda x: stylegan.bias_act(x, BIAS, gain=0.5), {"input", "output"}),
    "linear_clamp": (lambda x: stylegan.bias_act(x, clamp=0.5), {"input", "output"}),
    "relu": (lambda x: stylegan.bias_act(x, act="relu"), {"input"}),
    "lrelu_clamp": (lambda x: stylegan.bias_act(x, BIAS, act="lrelu", clamp=0.5), {"input"}),
    "fused_leaky_relu": (lambda x: stylegan.fused_leaky_relu(x, BIAS), {"input"}),
    "tanh": (lambda x: stylegan.bias_act(x, BIAS, act="tanh"), {"output"}),
    "swish_clamp": (lambda x: stylegan.bias_act(x, act="swish", clamp=0.5), {"output"}),
    "upfirdn2d": (lambda x: stylegan.upfirdn2d(x, FIR, padding=2), {"input", "output"}),
    "upsample2d": (lambda x: stylegan.upsample2d(x, FIR), {"input", "output"}),
    "downsample2d": (lambda x: stylegan.downsample2d(x, FIR), {"input", "output"}),
    "filter2d": (lambda x: stylegan.filter2d(x, FIR), {"input", "output"}),
    "rosinality_upfirdn2d": (lambda x: stylegan.rosinality.upfirdn2d(x, FIR, pad=(2, 1)), {"input", "output"}),
    "modulated_conv2d": (modulated, set()),
    "modulated_conv2d_noise": (lambda x: modulated(x, noise=NOISE), {"output"}),
    "modulated_conv2d_to_rgb": (lambda x: modulated(x, demodulate=False), {"output"}),
}


def gradient(run, changed=None):
    x = images().requires_grad_()
    inside = x * 1.0  # what a layer made; a leaf must never be changed
    y = run(inside)
    dy = torch.ones_like(y)
    if changed is not None:
        {"input": inside, "output": y}[changed].add_(3.0)
    return torch.autograd.grad(y, x, dy)[0]


@pytest.mark.parametrize("changed", ["input", "output"])
@pytest.mark.parametrize("name", CALLS)
def test_what_the_table_allows_changes_no_gradient_and_the_rest_is_an_error(name, changed, registered):
    run, allowed = CALLS[name]
    torch.manual_seed(1)
    expected = gradient(run)
    torch.manual_seed(1)
    if changed in allowed:
        torch.testing.assert_close(gradient(run, changed), expected, rtol=0, atol=0)
    else:
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            gradient(run, changed)


@pytest.mark.parametrize("name", ["linear", "linear_clamp", "upfirdn2d", "upsample2d", "downsample2d", "filter2d"])
def test_residual_joins_and_image_sums_also_work_on_the_references(name):
    """What both code bases add to in place: results of linear layers and of resampled images."""
    run, _ = CALLS[name]
    torch.manual_seed(1)
    expected = gradient(run)
    torch.manual_seed(1)
    torch.testing.assert_close(gradient(run, "output"), expected, rtol=0, atol=0)
