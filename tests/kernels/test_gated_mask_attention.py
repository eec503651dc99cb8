"""The kernels of gated mask-aware attention against the reference, forward and backward."""

import itertools

import pytest
import torch
from tolerances import assert_close_to_reference
from torch import Tensor

from mmif.ops import dispatch, gated_mask_attention
from mmif.ops._attention_ref import gated_mask_attention_ref, gated_mask_attention_saved_ref
from mmif.ops.gated_mask_attention import MAX_FEATURES, MODES, STREAMED_FEATURES

pytestmark = [
    pytest.mark.triton,
    pytest.mark.filterwarnings("ignore:divide by zero encountered in log2:RuntimeWarning"),  # NumPy's, of a closed gate
]

OP = "gated_mask_attention"
# Batch, channels, height, width, patch sizes. Tokens and features are multiples of no block, images are not square.
SIZES = {
    "two": (3, 8, 4, 12, (2, 4)),
    "three": (1, 6, 6, 12, (2, 1, 3)),
    "many_tokens": (1, 3, 9, 15, (1,)),  # narrow: five blocks of keys
    "middle": (1, 20, 12, 40, (4,)),  # 320 features
    "wide": (1, 60, 9, 15, (3,)),  # 540 features: they stream
    "narrow_and_wide": (2, 36, 8, 12, (2, 4)),  # 72 and 288 features
}
sizes = pytest.mark.parametrize("size", SIZES.values(), ids=SIZES)
modes = pytest.mark.parametrize("mode", MODES)
dtypes = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])


def channels_last(t: Tensor) -> Tensor:
    return t.contiguous(memory_format=torch.channels_last)


def sliced(t: Tensor) -> Tensor:
    """Every second column of a wider tensor, which is not a number in between."""
    wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), float("nan"))
    wide[..., ::2] = t
    return wide[..., ::2]


LAYOUTS = {
    "contiguous": lambda t: t,
    "channels_last": channels_last,
    "sliced": sliced,
    "expanded": lambda t: t[:, :1].expand_as(t),
    "fused": lambda t: channels_last(torch.cat([t, t + 1], 1))[:, : t.shape[1]],
}


def arguments(size, mode, dtype, device, layout=lambda t: t):
    """Arguments of the registered op, all but the backend; two patches of the first head are closed."""
    n, c, h, w, patch_sizes = size
    q, k, v = (layout(torch.randn(n, c, h, w, dtype=torch.float64).to(device, dtype)) for _ in range(3))
    if mode == "map":
        patch_sizes = patch_sizes[:1] * len(patch_sizes)
        tokens = h * w // patch_sizes[0] ** 2
        gate = torch.rand(n, len(patch_sizes), tokens, tokens, dtype=torch.float64)
    else:
        gate = torch.rand(n, len(patch_sizes), h, w, dtype=torch.float64)
        gate[:, 0, : patch_sizes[0], : 2 * patch_sizes[0]] = 0
    gate = layout(gate.to(device, dtype))
    return q, k, v, None if mode == "none" else gate, None, patch_sizes, mode


def gradients(function, args, dy):
    """Gradients of the tensors among ``args``."""
    leaves = [a.detach().requires_grad_() if isinstance(a, Tensor) else a for a in args]
    y = function(*leaves)
    return torch.autograd.grad(y, [leaf for leaf in leaves if isinstance(leaf, Tensor)], dy.to(y.dtype))


def run(*args):
    return torch.ops.mmif.gated_mask_attention(*args, "triton")


def check(args, dtype, dy=None, op=OP):
    assert_close_to_reference(run(*args), gated_mask_attention_saved_ref, args, op=OP, dtype=dtype)
    dy = torch.randn(args[0].shape, dtype=torch.float64).to(args[0]) if dy is None else dy
    grads = gradients(lambda *a: run(*a)[0], args, dy)

    def expected(*values):
        return gradients(gated_mask_attention_ref, values[:-1], values[-1])

    assert_close_to_reference(grads, expected, (*args, dy), grad=True, op=op, dtype=dtype)


@sizes
@modes
def test_equals_the_reference(size, mode, device):
    check(arguments(size, mode, torch.float32, device), torch.float32)


@pytest.mark.parametrize("size", ["two", "narrow_and_wide", "wide"])
@modes
def test_equals_the_reference_in_float16_and_channels_last(size, mode, device):
    check(arguments(SIZES[size], mode, torch.float16, device, channels_last), torch.float16)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("mode", ["post", "map"])
@dtypes
def test_layouts(mode, layout, dtype, device):
    args = arguments(SIZES["two"], mode, dtype, device, LAYOUTS[layout])
    op = f"{OP} of equal channels" if layout == "expanded" else OP
    check(args, dtype, op=op)
    check(args, dtype, LAYOUTS[layout](torch.randn_like(args[0])), op=op)


def test_tensors_of_different_layouts(device):
    q, k, v, *rest = arguments(SIZES["two"], "log", torch.float32, device)
    check((q, channels_last(k), sliced(v), *rest), torch.float32)
    check((channels_last(q), k, v, *rest), torch.float32)


@pytest.mark.parametrize("index", range(4))
@pytest.mark.parametrize("size", ["two", "wide", "many_tokens"])
def test_every_configuration(index, size, device):
    from mmif.kernels import tuning

    with tuning.forced(index):
        check(arguments(SIZES[size], "post", torch.float16, device), torch.float16)


@modes
def test_one_token(mode, device):
    """Its weight does not depend on q and k: their gradients are what rounding leaves."""
    args = arguments((2, 3, 1, 1, (1,)), mode, torch.float32, device)
    if mode != "none":
        args[3].fill_(0.5)
    y, _ = run(*args)
    assert_close_to_reference(y, gated_mask_attention_ref, args, op=OP, dtype=torch.float32)
    dy = torch.randn_like(y)
    got = gradients(lambda *a: run(*a)[0], args, dy)
    expected = gradients(gated_mask_attention_ref, args, dy)
    for a, b in zip(got, expected, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


@dtypes
@pytest.mark.parametrize("size", ["two", "wide"])
@pytest.mark.parametrize("mode", ["post", "logit", "value", "log"])
def test_all_keys_closed(mode, size, dtype, device):
    args = arguments(SIZES[size], mode, dtype, device)
    args[3].zero_()
    y, stats = run(*args)
    grads = gradients(lambda *a: run(*a)[0], args, torch.randn_like(y))
    assert all(t.isfinite().all() for t in (y, *grads))
    if mode == "logit":
        assert_close_to_reference(y, gated_mask_attention_ref, args, op=OP, dtype=dtype)
        return
    assert not y.any()
    assert not any(t.any() for t in grads[:3])
    if mode == "log":
        assert (stats[:, 0] == float("inf")).all()
        assert not grads[3].any()


@pytest.mark.parametrize("size", ["many_tokens", "wide"])
def test_closed_keys_count_for_nothing_in_mode_log(size, device):
    """However large their scores are, and however small the open gates."""
    q, k, v, gate, *rest = arguments(SIZES[size], "log", torch.float32, device)
    gate *= 1e-4
    gate[:, :, 3:] = 0
    k[:, :, 3:] *= 100
    check((q, k, v, gate, *rest), torch.float32)
    half = (*(t.half() for t in (q, k, v, gate)), *rest)
    assert_close_to_reference(run(*half)[0], gated_mask_attention_ref, half, op=OP, dtype=torch.float16)


@modes
@pytest.mark.parametrize("size", ["many_tokens", "wide"])
def test_large_scores(mode, size, device):
    q, k, *rest = arguments(SIZES[size], mode, torch.float32, device)
    args = (q * 300, k * 300, *rest)
    y, _ = run(*args)
    assert y.isfinite().all()
    assert all(t.isfinite().all() for t in gradients(lambda *a: run(*a)[0], args, torch.randn_like(y)))
    half = [t.half() if isinstance(t, Tensor) else t for t in (q * 12, k * 12, *rest)]  # q k^T leaves float16's range
    assert_close_to_reference(run(*half)[0], gated_mask_attention_ref, half, op=OP, dtype=torch.float16)


@dtypes
@pytest.mark.parametrize("size", ["two", "wide"])
def test_the_residual_is_added_before_rounding(size, dtype, device):
    q, k, v, gate, _, *rest = arguments(SIZES[size], "post", dtype, device)
    args = (q, k, v, gate, channels_last(torch.randn_like(q)), *rest)
    assert_close_to_reference(run(*args)[0], gated_mask_attention_ref, args, op=OP, dtype=dtype)
    if dtype == torch.float16:
        exact = gated_mask_attention_ref(*[t.float() if isinstance(t, Tensor) else t for t in args])
        assert (run(*args)[0] - exact).abs().max() <= 2**-11 * exact.abs().max() * 1.5  # products take float16 weights


@pytest.mark.parametrize("mode", ["post", "map"])
def test_opcheck(mode, device):
    q, k, v, gate, *rest = arguments(SIZES["two"], mode, torch.float32, device, channels_last)
    inputs = [t.detach().requires_grad_() for t in (q, k, v, gate)]
    torch.library.opcheck(torch.ops.mmif.gated_mask_attention.default, (*inputs, *rest, "triton"))


def test_the_public_function_calls_the_kernel(device):
    q, k, v, gate, _, patch_sizes, mode = arguments(SIZES["two"], "post", torch.float32, device)
    expected = gated_mask_attention(q, k, v, gate, residual=v, patch_sizes=patch_sizes, backend="reference")
    with dispatch.use("triton"):
        got = gated_mask_attention(q, k, v, gate, residual=v, patch_sizes=patch_sizes, mode=mode)
    torch.testing.assert_close(got, expected)
    assert not torch.equal(got, expected)  # another order of summation


@pytest.mark.parametrize(
    ("shape", "dtype", "reason"),
    [
        ((1, 4, 4, 4), torch.float64, "must be float16, bfloat16 or float32, got torch.float64"),
        ((0, 4, 4, 4), torch.float32, "a tensor is empty"),
        ((1, 2 * MAX_FEATURES, 4, 4), torch.float32, f"must be <= {MAX_FEATURES}, got"),
    ],
    ids=["float64", "batch0", "features"],
)
def test_what_the_kernels_cannot_take(shape, dtype, reason, device):
    x = torch.zeros(shape, dtype=dtype, device=device)
    with pytest.raises(
        dispatch.BackendUnavailable, match=f"gated_mask_attention: backend 'triton' cannot run: .*{reason}"
    ):
        gated_mask_attention(x, x, x, mode="none", backend="triton")
    assert gated_mask_attention(x, x, x, mode="none").shape == shape


def test_limits_and_kernels_agree():
    from mmif.kernels.attention import heads

    assert heads.STREAMED == STREAMED_FEATURES


def test_every_configuration_has_its_own_place():
    """No two are the same, and the first of each list asks for the least."""
    from mmif.kernels.attention import bwd as backward
    from mmif.kernels.attention import fwd as forward
    from mmif.kernels.attention import heads

    for module, capability, (channels, side) in itertools.product((forward, backward), (80, 86, 90, 100), heads.SHAPES):
        image = torch.empty(1, channels, side, side, dtype=torch.float16, device="meta")
        found = module.configs(capability, image.dtype, heads.heads_of(image, (2, 4), "post"))
        assert len(set(found)) == len(found) <= 6
