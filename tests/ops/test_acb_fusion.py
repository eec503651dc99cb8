"""acb_fusion against the formula as printed, with the convolution of the concatenation; identities; bad input."""

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck
from torch.utils.flop_counter import FlopCounterMode

from mmif.ops.acb_fusion import acb_fusion, acb_fusion_code
from mmif.ops.acb_pool import _dense_bwd, _sparse_bwd, mean_of_conv3x3

NAMES = ("x", "gates", "path_weight", "path_bias", "fuse_weight", "fuse_bias", "fc_weight", "fc_bias")


def arguments(channels=4, paths=4, size=(5, 7), dtype=torch.float64):
    c, r = channels, paths
    shapes = ((2, c, *size), (2, 2 * c, *size), (r, c, c, 3, 3), (r, c), (c, 3 * c, 3, 3), (c,), (c, c), (c,))
    return {name: torch.randn(shape, dtype=dtype) for name, shape in zip(NAMES, shapes, strict=True)}


def oracle(x, gates, path_weight, path_bias, fuse_weight, fuse_bias, fc_weight, fc_bias, dilations):
    """Eq. 1 and its inline formulas word by word: all 3C channels go into the convolution of every path."""
    paths, exps = [], []
    for weight, bias, d in zip(path_weight, path_bias, dilations, strict=True):
        f_r = torch.relu(F.conv2d(F.pad(x, (d,) * 4, mode="reflect"), weight, bias, dilation=d))
        g_r = F.conv2d(torch.cat([f_r, gates], 1), fuse_weight, fuse_bias, padding=1)
        mean, peak = F.adaptive_avg_pool2d(g_r, 1).flatten(1), F.adaptive_max_pool2d(g_r, 1).flatten(1)
        a_r = torch.sigmoid(F.linear(mean, fc_weight, fc_bias) + F.linear(peak, fc_weight, fc_bias))
        paths.append(f_r)
        exps.append(a_r.exp()[:, :, None, None])
    return sum(e / sum(exps) * f_r for e, f_r in zip(exps, paths, strict=True)) + x


@pytest.mark.parametrize("dilations", [(1, 2, 3, 4), (1,), (4, 4)], ids=str)
def test_equals_the_formula(dilations):
    args = arguments(paths=len(dilations))
    got = acb_fusion(**args, dilations=dilations)
    torch.testing.assert_close(got, oracle(**args, dilations=dilations), rtol=1e-12, atol=1e-12)


def test_registered_ops_equal_the_formula(registered):
    args = {name: t.requires_grad_() for name, t in arguments().items()}
    out, expected = acb_fusion(**args, dilations=(1, 2, 3, 4)), oracle(**args, dilations=(1, 2, 3, 4))
    assert out.grad_fn is not None
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(out)
    for got, want in zip(*(torch.autograd.grad(y, args.values(), cotangent) for y in (out, expected)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


def test_equal_paths_give_x_plus_the_path():
    args = arguments()
    args["path_weight"] = args["path_weight"][:1].expand(4, -1, -1, -1, -1)
    args["path_bias"] = args["path_bias"][:1].expand(4, -1)
    path = torch.ops.mmif.acb_paths(args["x"], args["path_weight"][:1], args["path_bias"][:1], (2,))[:, 0]
    torch.testing.assert_close(acb_fusion(**args, dilations=(2, 2, 2, 2)), args["x"] + path)


def test_path_weights_add_up_to_one():
    ones, logits = torch.ones(2, 4, 3, 5, 7, dtype=torch.float64), 9 * torch.randn(2, 4, 3, dtype=torch.float64)
    mixed = torch.ops.mmif.acb_mix(ones, logits, torch.zeros(2, 3, 5, 7, dtype=torch.float64))
    torch.testing.assert_close(mixed, torch.ones_like(mixed), rtol=1e-14, atol=0)


def test_the_maximum_lies_where_the_op_says():
    paths, gates = torch.randn(2, 3, 4, 5, 7), torch.randn(2, 6, 5, 7)
    weight, bias = torch.randn(3, 10, 3, 3), torch.randn(3)
    _, peak, where = torch.ops.mmif.acb_pool(paths, gates, weight, bias)
    for r in range(3):
        z = F.conv2d(torch.cat([paths[:, r], gates], 1), weight, bias, padding=1)
        torch.testing.assert_close(z.flatten(2).gather(2, where[:, r, :, None])[..., 0], peak[:, r])


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (5, 1), (2, 2), (7, 11)], ids=str)
def test_mean_of_conv3x3(size):
    x, weight = torch.randn(2, 3, *size, dtype=torch.float64), torch.randn(4, 3, 3, 3, dtype=torch.float64)
    bias = torch.randn(4, dtype=torch.float64)
    torch.testing.assert_close(mean_of_conv3x3(x, weight, bias), F.conv2d(x, weight, bias, padding=1).mean((2, 3)))
    torch.testing.assert_close(mean_of_conv3x3(x, weight), F.conv2d(x, weight, padding=1).mean((2, 3)))


def test_mean_of_conv3x3_stays_in_the_range_of_float16():
    x, weight = torch.full((1, 1, 128, 128), 8.0).half(), torch.ones(1, 1, 3, 3).half()  # their sum is 131072
    expected = F.conv2d(x.double(), weight.double(), padding=1).mean((2, 3)).half()
    assert torch.equal(mean_of_conv3x3(x, weight), expected)


def test_multiplications_are_those_of_the_split_form():
    """R paths, R times C of the 3C fuse channels, and the 2C shared ones once: docs/numerics.md."""
    c, r, (h, w) = 4, 4, (5, 7)
    args = arguments(c, r, (h, w))
    conv = 9 * c * c * 2 * h * w  # C to C channels, batch of two
    linear = c * c * 2 * r
    for function, convs, linears in ((acb_fusion, r + r + 2, 1), (oracle, r + 3 * r, 2)):
        with FlopCounterMode(display=False) as counter:
            function(**args, dilations=(1, 2, 3, 4))
        assert counter.get_total_flops() == 2 * (convs * conv + linears * linear)


def test_gradients_of_the_registered_ops():
    def leaf(*shape):
        return torch.randn(shape, dtype=torch.float64, requires_grad=True)

    ops = torch.ops.mmif
    gradcheck(lambda *a: ops.acb_paths(*a, (1, 2)), (leaf(1, 2, 3, 4), leaf(2, 2, 2, 3, 3), leaf(2, 2)))
    pool = (leaf(1, 2, 2, 3, 4), leaf(1, 4, 3, 4), leaf(2, 6, 3, 3), leaf(2))
    gradcheck(lambda *a: ops.acb_pool(*a)[:2], pool)
    gradcheck(ops.acb_mix, (leaf(2, 3, 2, 2, 3), leaf(2, 3, 2), leaf(2, 2, 2, 3)))
    blend = (leaf(1, 2, 3, 4), leaf(2, 2, 2, 3, 3), leaf(2, 2), leaf(1, 2), leaf(1, 2, 3, 4))
    gradcheck(lambda *a: ops.acb_blend(*a, (1, 2)), blend)


@pytest.mark.parametrize("size", [(1, 1), (1, 6), (2, 2), (5, 7)], ids=str)
def test_the_backward_of_the_pool_needs_no_convolution(size):
    def rand(*shape):
        return torch.randn(shape, dtype=torch.float64)

    where = torch.randint(size[0] * size[1], (2, 3, 5))
    args = (rand(2, 3, 5), rand(2, 3, 5), where, rand(2, 3, 4, *size), rand(2, 6, *size), rand(5, 10, 3, 3))
    for got, want in zip(_sparse_bwd(*args), _dense_bwd(*args), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-12, atol=1e-12)


def test_the_backward_convolves_nothing_but_the_paths():
    """Twice each, for their input and for their weight: 2 R, where the formula as printed has 2 R + 2 R 3."""
    args = {name: t.requires_grad_() for name, t in arguments().items()}
    conv = 9 * 4 * 4 * 2 * 5 * 7  # a 3x3 convolution, 4 to 4 channels, batch of two
    for function, convs in ((acb_fusion, 8), (oracle, 32)):
        out = function(**args, dilations=(1, 2, 3, 4))
        with FlopCounterMode(display=False) as counter:
            out.sum().backward()
        assert counter.get_flop_counts()["Global"][torch.ops.aten.convolution_backward] == 2 * convs * conv


def test_not_a_number_stays_one():
    args = arguments()
    args["x"][0, 0, 2, 3] = float("nan")
    assert acb_fusion(**args, dilations=(1, 2, 3, 4))[0].isnan().any()


def test_the_affine_map_is_a_batch_norm_in_evaluation(registered):
    args, norm = arguments(), torch.nn.BatchNorm2d(4, dtype=torch.float64).eval()
    for t in (norm.weight.data, norm.bias.data, norm.running_mean, norm.running_var):
        t.copy_(torch.rand_like(t))
    expected = F.leaky_relu(norm(acb_fusion(**args, dilations=(1, 2, 3, 4))), 0.2)
    scale = norm.weight / (norm.running_var + norm.eps).sqrt()
    shift = norm.bias - norm.running_mean * scale
    for backend in ("reference", None):
        out = acb_fusion(**args, dilations=(1, 2, 3, 4), scale=scale, shift=shift, slope=0.2, backend=backend)
        torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    with pytest.raises(RuntimeError, match="acb_mix: no gradient goes through its affine map"):
        out.sum().backward()


CODE = ("x", "raw_gate", "gate_prev", "path_weight", "path_bias", "fuse_weight", "fuse_bias", "fc_weight")


def code_arguments(channels=4, paths=2, size=(5, 7)):
    c, r = channels, paths
    shapes = (*[(2, c, *size)] * 3, (r, c, c, 3, 3), (r, c), (c, 3 * c, 3, 3), (c,), (r, c))
    return {name: torch.randn(shape, dtype=torch.float64) for name, shape in zip(CODE, shapes, strict=True)}


def code_oracle(x, raw_gate, gate_prev, path_weight, path_bias, fuse_weight, fuse_bias, fc_weight, dilations):
    """The released formula word by word."""
    att = F.conv2d(torch.cat([x, raw_gate, gate_prev], 1), fuse_weight, fuse_bias, padding=1).mean((2, 3))
    p = torch.tanh(att @ fc_weight.t()).softmax(1)
    mix = torch.zeros_like(x)
    for i, (weight, bias, d) in enumerate(zip(path_weight, path_bias, dilations, strict=True)):
        path = torch.relu(F.conv2d(F.pad(x, (d,) * 4, mode="reflect"), weight, bias, dilation=d))
        mix = mix + p[:, i, None, None, None] * path
    return x * (1 - torch.sigmoid(raw_gate)) + mix * torch.sigmoid(raw_gate)


@pytest.mark.parametrize("route", ["reference", "registered"])
def test_the_released_variant_equals_its_formula(request, route):
    if route == "registered":
        request.getfixturevalue("registered")
    args = {name: t.requires_grad_() for name, t in code_arguments().items()}
    out, expected = acb_fusion_code(**args, dilations=(1, 3)), code_oracle(**args, dilations=(1, 3))
    torch.testing.assert_close(out, expected, rtol=1e-12, atol=1e-12)
    cotangent = torch.randn_like(out)
    for got, want in zip(*(torch.autograd.grad(y, args.values(), cotangent) for y in (out, expected)), strict=True):
        torch.testing.assert_close(got, want, rtol=1e-11, atol=1e-11)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"raw_gate": (2, 4, 5, 6)}, r"x, raw_gate and gate_prev must share a shape \[N, C, H, W\], got .*5, 6"),
        ({"gate_prev": (2, 8, 5, 7)}, r"x, raw_gate and gate_prev must share a shape"),
        ({"fc_weight": (4, 4)}, r"fc_weight must have the shape \(2, 4\), got \(4, 4\)"),
        ({"path_bias": (2,)}, r"path_bias must have the shape \(2, 4\), got \(2,\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_shapes_of_the_released_variant(change, message):
    args = code_arguments() | {name: torch.zeros(shape, dtype=torch.float64) for name, shape in change.items()}
    with pytest.raises(ValueError, match=f"acb_fusion: {message}"):
        acb_fusion_code(**args, dilations=(1, 2))


def test_a_second_order_gradient_is_an_error_not_a_zero(registered):
    args = {name: t.requires_grad_() for name, t in arguments().items()}
    out = acb_fusion(**args, dilations=(1, 2, 3, 4))
    dx = torch.autograd.grad(out.sum(), args["x"], create_graph=True)[0]
    with pytest.raises(RuntimeError, match=r"acb_\w+_bwd"):
        dx.square().sum().backward()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"x": (4, 5, 7)}, r"x must be \[N, C, H, W\] and gates \[N, 2C, H, W\], got \(4, 5, 7\) and \(2, 8, 5, 7\)"),
        ({"gates": (2, 4, 5, 7)}, r"gates \[N, 2C, H, W\], got \(2, 4, 5, 7\) and \(2, 4, 5, 7\)"),
        ({"path_weight": (3, 4, 4, 3, 3)}, r"path_weight must have the shape \(4, 4, 4, 3, 3\), got \(3, 4, 4, 3, 3\)"),
        ({"path_bias": (4,)}, r"path_bias must have the shape \(4, 4\), got \(4,\)"),
        ({"fuse_weight": (4, 4, 3, 3)}, r"fuse_weight must have the shape \(4, 12, 3, 3\), got \(4, 4, 3, 3\)"),
        ({"fuse_bias": (3,)}, r"fuse_bias must have the shape \(4,\), got \(3,\)"),
        ({"fc_weight": (4, 3)}, r"fc_weight must have the shape \(4, 4\), got \(4, 3\)"),
        ({"fc_bias": (1,)}, r"fc_bias must have the shape \(4,\), got \(1,\)"),
    ],
    ids=lambda value: next(iter(value)) if isinstance(value, dict) else "",
)
def test_bad_shapes(change, message):
    args = arguments() | {name: torch.zeros(shape, dtype=torch.float64) for name, shape in change.items()}
    with pytest.raises(ValueError, match=f"acb_fusion: .*{message}"):
        acb_fusion(**args, dilations=(1, 2, 3, 4))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"scale": torch.ones(4)}, "scale and shift must be given together, got one of them"),
        ({"scale": torch.ones(3), "shift": torch.ones(4)}, r"scale must have the shape \(4,\), got \(3,\)"),
    ],
    ids=["alone", "too_short"],
)
def test_bad_affine_map(change, message):
    with pytest.raises(ValueError, match=f"acb_fusion: {message}"):
        acb_fusion(**arguments(), dilations=(1, 2, 3, 4), **change)


@pytest.mark.parametrize(
    ("dilations", "message"),
    [
        ((), r"dilations must be >= 1 and smaller than the image \(5, 7\), got \(\)"),
        ((0, 1, 2, 3), r"dilations must be >= 1 and smaller than the image \(5, 7\), got \(0, 1, 2, 3\)"),
        ((1, 2, 3, 5), r"dilations must be >= 1 and smaller than the image \(5, 7\), got \(1, 2, 3, 5\)"),
    ],
    ids=["none", "zero", "too_large"],
)
def test_bad_dilations(dilations, message):
    with pytest.raises(ValueError, match=f"acb_fusion: {message}"):
        acb_fusion(**arguments(), dilations=dilations)


@pytest.mark.parametrize("name", NAMES)
def test_bad_dtype(name):
    args = arguments() | {name: arguments()[name].float()}
    with pytest.raises(ValueError, match=r"acb_fusion: all tensors must share a floating dtype, got .*torch.float32"):
        acb_fusion(**args, dilations=(1, 2, 3, 4))


def test_integer_tensors():
    args = {name: t.int() for name, t in arguments().items()}
    with pytest.raises(ValueError, match=r"acb_fusion: all tensors must share a floating dtype, got torch.int32"):
        acb_fusion(**args, dilations=(1, 2, 3, 4))


def test_autocast_leaves_the_window_sums_in_float32():
    x, weight = 8 * torch.rand(1, 6, 128, 128), 0.1 * torch.randn(4, 6, 3, 3)
    with torch.autocast("cpu", torch.float16):
        got = mean_of_conv3x3(x.half(), weight.half())
    torch.testing.assert_close(got.float(), mean_of_conv3x3(x, weight), rtol=1e-2, atol=1e-2)


def test_the_released_variant_is_in_one_dtype_also_where_autocast_widens_the_softmax(monkeypatch):
    """As it does on CUDA devices."""
    softmax = torch.Tensor.softmax
    monkeypatch.setattr(torch.Tensor, "softmax", lambda t, *args: softmax(t.float(), *args))
    x, r = torch.rand(1, 4, 6, 6).half(), 2
    weights = [torch.rand(shape).half() for shape in ((r, 4, 4, 3, 3), (r, 4), (4, 12, 3, 3), (4,), (r, 4))]
    assert acb_fusion_code(x, x, x, *weights, dilations=(1, 2)).dtype == torch.float16


@pytest.mark.parametrize("dilations", [(1.0, 2, 3, 4), ("1", 2, 3, 4)], ids=["float", "text"])
def test_dilations_are_integers(dilations):
    with pytest.raises(ValueError, match="acb_fusion: dilations must be integers, got"):
        acb_fusion(**arguments(), dilations=dilations)
