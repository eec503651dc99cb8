"""The ops and the whole model under autocast: which dtype comes out, and that both routes to an op agree."""

import pytest
import torch

from mmif import MMInvertFill, from_preset, ops

X, B, STYLES = torch.randn(2, 8, 8, 8), torch.randn(8), torch.randn(2, 8)
WEIGHT, F4 = torch.randn(16, 8, 3, 3), ops.setup_filter([1, 3, 3, 1])
ACB = (torch.randn(2, 16, 8, 8), torch.randn(1, 8, 8, 3, 3), torch.randn(1, 8), torch.randn(8, 24, 3, 3), B)
CALLS = {
    # As PyTorch's convolutions and products: autocast's dtype.
    "modulated_conv2d": (lambda: ops.modulated_conv2d(X, WEIGHT, STYLES), torch.bfloat16),
    "modulated_conv2d_up": (
        lambda: ops.modulated_conv2d(X, WEIGHT, STYLES, up=2, resample_filter=F4),
        torch.bfloat16,
    ),
    "gated_mask_attention": (lambda: ops.gated_mask_attention(X, X, X, mode="none"), torch.bfloat16),
    "acb_fusion": (lambda: ops.acb_fusion(X, *ACB, torch.randn(8, 8), B, dilations=[1]), torch.bfloat16),
    # Point-wise and filtering: the dtype of x.
    "bias_act": (lambda: ops.bias_act(X, B, act="swish"), torch.float32),
    "upfirdn2d": (lambda: ops.upfirdn2d(X, F4, up=2, padding=2), torch.float32),
}


@pytest.mark.parametrize("name", CALLS)
@pytest.mark.parametrize("route", ["reference", "registered"])
def test_dtype_and_value(request, name, route):
    if route == "registered":
        request.getfixturevalue("registered")
    call, dtype = CALLS[name]
    torch.manual_seed(1)
    plain = call()
    torch.manual_seed(1)
    with torch.autocast("cpu", torch.bfloat16):
        out = call()
    assert plain.dtype == torch.float32
    assert out.dtype == dtype
    tolerance = 0.05 if dtype == torch.bfloat16 else 0.0
    assert (out.float() - plain).abs().max() <= tolerance * plain.abs().max()


@pytest.mark.parametrize("name", CALLS)
def test_autocast_is_no_reason_to_break_a_graph(name):
    torch.compiler.reset()
    compiled = torch.compile(CALLS[name][0], fullgraph=True, backend="eager")
    with torch.autocast("cpu", torch.bfloat16):
        assert compiled().dtype == CALLS[name][1]


def test_a_float32_bias_meets_the_output_of_a_convolution():
    with torch.autocast("cpu", torch.bfloat16):
        y = torch.nn.functional.conv2d(X, WEIGHT)
        assert ops.bias_act(y, torch.randn(16)).dtype == torch.bfloat16
    with pytest.raises(ValueError, match=r"b must be torch.bfloat16"):  # without autocast the mistake stays one
        ops.bias_act(y, torch.randn(16))


def test_float64_is_left_alone():
    with torch.autocast("cpu", torch.bfloat16):
        assert ops.modulated_conv2d(X.double(), WEIGHT.double(), STYLES.double()).dtype == torch.float64


def test_the_model_runs_and_trains():
    model = MMInvertFill(from_preset("tiny-32")).eval()
    image, hole = torch.rand(2, 3, 32, 32) * 2 - 1, torch.zeros(2, 1, 32, 32)
    hole[..., 8:20, 8:20] = 1
    noise = model.make_noise([(0, 0), (0, 1)])
    with torch.no_grad():
        plain = model(image, hole, noise=noise).image
    with torch.autocast("cpu", torch.bfloat16):
        out = model(image, hole, noise=noise).image
    assert (out - plain).abs().max() < 0.1 * plain.abs().max()
    out.square().mean().backward()
    gradients = [p.grad for p in model.generator.synthesis.parameters() if p.grad is not None]
    assert gradients
    assert all(g.isfinite().all() and g.dtype == torch.float32 for g in gradients)
