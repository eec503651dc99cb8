"""gated_mask_attention against F.scaled_dot_product_attention on patches cut by loops; gates; gradients; bad input."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.autograd import gradcheck

from mmif.ops import gated_mask_attention
from mmif.ops._attention_ref import merge_patches, split_patches
from mmif.ops.gated_mask_attention import MODES, _limits

PIXEL_MODES = [mode for mode in MODES if mode != "map"]  # the gate is a map of pixels
GATED = [mode for mode in PIXEL_MODES if mode != "none"]
SIZES = (1, 2, 4)

modes = pytest.mark.parametrize("mode", PIXEL_MODES)
gated_modes = pytest.mark.parametrize("mode", GATED)


def corners(height, width, p):
    return [(top, left) for top in range(0, height, p) for left in range(0, width, p)]


def cut(x, p):
    """Tokens ``[N, L, C p p]``, patch by patch in reading order."""
    patches = [x[:, :, top : top + p, left : left + p].flatten(1) for top, left in corners(*x.shape[2:], p)]
    return torch.stack(patches, dim=1)


def paste(tokens, shape, p):
    out = tokens.new_zeros(shape)
    for i, (top, left) in enumerate(corners(*shape[2:], p)):
        out[:, :, top : top + p, left : left + p] = tokens[:, i].reshape(shape[0], shape[1], p, p)
    return out


def attend(q, k, v, gate, mode):
    """Tokens ``[N, L, D]`` and one gate per token ``[N, L]``."""
    if mode == "post":
        return F.scaled_dot_product_attention(q, k, v * gate[..., None])
    if mode == "log":
        return F.scaled_dot_product_attention(q, k, v, attn_mask=gate.log()[:, None, :])
    if mode in ("none", "value"):  # the gate of the values is per pixel and was applied before
        return F.scaled_dot_product_attention(q, k, v)
    out = torch.zeros_like(q)
    for n in range(len(q)):
        for i in range(q.shape[1]):
            scores = [(gate[n, j] * q[n, i].dot(k[n, j]) / math.sqrt(q.shape[2])).exp() for j in range(k.shape[1])]
            out[n, i] = sum(score * value for score, value in zip(scores, v[n], strict=True)) / sum(scores)
    return out


def oracle(q, k, v, gate, sizes, mode):
    channels, heads = q.shape[1] // len(sizes), []
    for i, p in enumerate(sizes):
        head = slice(i * channels, (i + 1) * channels)
        g = gate[:, i : i + 1]
        values = v[:, head] * g if mode == "value" else v[:, head]
        tokens = attend(cut(q[:, head], p), cut(k[:, head], p), cut(values, p), cut(g, p).mean(2), mode)
        heads.append(paste(tokens, values.shape, p))
    return torch.cat(heads, 1)


def arguments(shape=(2, 6, 4, 8), heads=3):
    q, k, v = torch.randn(3, *shape, dtype=torch.float64)
    return q, k, v, torch.rand(shape[0], heads, *shape[2:], dtype=torch.float64)


@modes
def test_equals_scaled_dot_product_attention(mode):
    q, k, v, gate = arguments()
    got = gated_mask_attention(q, k, v, None if mode == "none" else gate, patch_sizes=SIZES, mode=mode)
    torch.testing.assert_close(got, oracle(q, k, v, gate, SIZES, mode), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("p", [1, 2, 3, 6])
def test_split_equals_the_loop_and_merge_is_its_inverse(p):
    x = torch.randn(2, 5, 6, 12)
    tokens = split_patches(x, p)
    assert torch.equal(tokens, cut(x, p))
    assert torch.equal(merge_patches(tokens, p, (6, 12)), x)


@gated_modes
def test_an_open_gate_is_plain_attention(mode):
    q, k, v, gate = arguments()
    open_gate = gated_mask_attention(q, k, v, torch.ones_like(gate), patch_sizes=SIZES, mode=mode)
    plain = gated_mask_attention(q, k, v, patch_sizes=SIZES, mode="none")
    torch.testing.assert_close(open_gate, plain, rtol=1e-13, atol=1e-13)


def test_rows_of_mode_log_add_up_to_one():
    q, k, v, gate = arguments()
    out = gated_mask_attention(q, k, torch.ones_like(v), gate, patch_sizes=SIZES, mode="log")
    torch.testing.assert_close(out, torch.ones_like(v), rtol=1e-13, atol=1e-13)


def leaves(q, k, v, gate):
    return [t.clone().requires_grad_() for t in (q, k, v, gate)]


def run(q, k, v, gate, mode, sizes=SIZES):
    return torch.ops.mmif.gated_mask_attention(q, k, v, gate, None, sizes, mode)[0]


def public(q, k, v, gate, mode, sizes=SIZES):
    return gated_mask_attention(q, k, v, gate, patch_sizes=sizes, mode=mode)


both = pytest.mark.parametrize("attention", [run, public], ids=["registered", "reference"])


@both
@gated_modes
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["float32", "float16"])
def test_all_keys_closed(attention, mode, dtype):
    """Output and gradient are 0 where the gate is a factor; in mode ``logit`` the output is the mean of the values."""
    q, k, v, gate = (t.to(dtype) for t in arguments())
    gate[1] = 0
    inputs = leaves(q, k, v, gate)
    out = attention(*inputs, mode)
    gradients = torch.autograd.grad(out, inputs, torch.randn_like(out))
    assert all(t.isfinite().all() for t in (out, *gradients))
    if mode == "logit":
        torch.testing.assert_close(out[1, :2], v[1, :2].mean((1, 2), keepdim=True).expand(2, 4, 8))
        return
    assert not out[1].any()
    assert not any(gradient[1].any() for gradient in gradients[:3])
    if mode == "log":
        assert not gradients[3][1].any()


@both
def test_closed_keys_count_for_nothing_in_mode_log(attention):
    """Keys that are closed give what their removal gives, however large their scores are."""
    q, k, v, gate = (t.float() for t in arguments((1, 2, 4, 4), 1))
    k[:, :, 2:] *= 1e4
    gate[:, :, 2:] = 0
    gate[:, :, :2] *= 1e-6
    inputs = leaves(q, k, v, gate)
    out = attention(*inputs, "log", (2,))
    assert all(g.isfinite().all() for g in torch.autograd.grad(out.sum(), inputs))
    for top in (0, 2):  # the queries of one half attend to the open keys of the upper half
        alone = attention(q[:, :, top : top + 2], k[:, :, :2], v[:, :, :2], gate[:, :, :2], "log", (2,))
        torch.testing.assert_close(out[:, :, top : top + 2], alone)


@modes
def test_scores_stay_in_the_range_of_float16(mode):
    q, _, v, gate = (t.half() for t in arguments((1, 32, 8, 8), 1))
    out = public(q * 12, q * 12, v, None if mode == "none" else gate, mode, (8,))  # q k^T is about 3e5
    assert out.isfinite().all()


@modes
def test_gradients(mode):
    q, k, v, gate = leaves(*arguments((1, 2, 2, 4), 2))
    if mode == "none":
        gradcheck(lambda *qkv: run(*qkv, None, mode, (1, 2)), (q, k, v))
    else:
        with torch.no_grad():
            gate.clamp_(0.1, 0.9)
        gradcheck(lambda *inputs: run(*inputs, mode, (1, 2)), (q, k, v, gate))


def map_arguments(shape=(2, 4, 4, 8)):
    """For two heads of patches of 2x2."""
    tokens = shape[2] * shape[3] // 4
    return *torch.randn(3, *shape, dtype=torch.float64), torch.rand(shape[0], 2, tokens, tokens, dtype=torch.float64)


def test_a_gate_for_every_pair():
    q, k, v, gate = map_arguments()
    heads = []
    for i, (q_, k_, v_) in enumerate(zip(*(t.chunk(2, 1) for t in (q, k, v)), strict=True)):
        alpha = (cut(q_, 2) @ cut(k_, 2).mT / math.sqrt(8)).softmax(-1)
        heads.append(paste((alpha * gate[:, i]) @ cut(v_, 2), v_.shape, 2))
    torch.testing.assert_close(public(q, k, v, gate, "map", (2, 2)), torch.cat(heads, 1), rtol=1e-12, atol=1e-12)


def test_a_gate_that_is_the_same_for_all_queries_is_mode_post():
    q, k, v, gate = map_arguments()
    keys = gate[:, :, 0]
    pixels = keys.unflatten(2, (2, 4)).repeat_interleave(2, 2).repeat_interleave(2, 3)
    rows = keys[:, :, None].expand_as(gate)
    torch.testing.assert_close(public(q, k, v, rows, "map", (2, 2)), public(q, k, v, pixels, "post", (2, 2)))


def test_gradients_of_a_gate_for_every_pair():
    gradcheck(lambda *inputs: run(*inputs, "map", (2, 2)), leaves(*map_arguments((1, 2, 2, 4))))


@pytest.mark.parametrize("mode", MODES)
def test_weights_can_be_rebuilt_from_the_statistics(mode):
    """For a head of 1x1 patches: exp(score - statistic), with what the mode does to the score."""
    q, k, _, gate = (t[:, :, :2, :3] for t in arguments((2, 4, 4, 8), 1))
    gate[0, :, :, 1] = 0
    if mode == "map":
        gate = torch.rand(2, 1, 6, 6, dtype=torch.float64)
    gates = None if mode == "none" else gate
    y, stats = torch.ops.mmif.gated_mask_attention(q, k, q, gates, None, (1,), mode)
    scores = cut(q, 1) @ cut(k, 1).mT / 2
    key_gate = gate[:, 0] if mode == "map" else cut(gate, 1)[:, None, :, 0]
    if mode == "logit":
        scores = scores * key_gate
    if mode == "log":
        torch.testing.assert_close(stats[:, 1], scores.where(key_gate > 0, -math.inf).amax(-1))
    weights = (scores - stats[:, 0, :, None]).exp()
    factor = key_gate if mode in ("post", "log", "map") else 1.0
    values = q * gate if mode == "value" else q
    torch.testing.assert_close(paste((weights * factor) @ cut(values, 1), q.shape, 1), y)


def test_the_statistics_of_a_closed_row():
    q, k, v, gate = arguments((1, 2, 2, 2), 1)
    _, stats = torch.ops.mmif.gated_mask_attention(q, k, v, torch.zeros_like(gate), None, (1,), "log")
    assert torch.equal(stats, torch.tensor([[[math.inf] * 4, [0.0] * 4]], dtype=torch.float64))


@pytest.mark.parametrize("wanted", [False, True], ids=["inference", "training"])
def test_the_residual_is_added(wanted, request):
    q, k, v, gate = (t.float() for t in arguments())
    residual = torch.randn_like(q)
    expected = residual + public(q, k, v, gate, "post")
    torch.testing.assert_close(gated_mask_attention(q, k, v, gate, residual=residual, patch_sizes=SIZES), expected)
    request.getfixturevalue("registered")
    got = gated_mask_attention(q.requires_grad_(wanted), k, v, gate, residual=residual, patch_sizes=SIZES)
    torch.testing.assert_close(got.detach(), expected)
    if wanted:
        inside = torch.autograd.grad(got.sum(), q)[0]
        torch.testing.assert_close(inside, torch.autograd.grad(public(q, k, v, gate, "post").sum(), q)[0])


def test_a_residual_of_a_wider_dtype_promotes(registered):
    q, k, v, gate = (t.half() for t in arguments())
    residual = torch.randn(q.shape)
    got = gated_mask_attention(q, k, v, gate, residual=residual, patch_sizes=SIZES)
    torch.testing.assert_close(got, residual + public(q, k, v, gate, "post"), rtol=0, atol=0)


def test_a_residual_inside_has_no_gradient():
    inputs = leaves(*arguments())
    with pytest.raises(RuntimeError, match="residual must be None where a gradient is wanted, got a tensor"):
        torch.ops.mmif.gated_mask_attention(*inputs, inputs[0], SIZES, "post")


def test_limits_of_the_kernels():
    def limits(shape, sizes):
        return _limits(torch.empty(shape, device="meta"), patch_sizes=sizes, mode="none")

    assert limits((1, 64, 256, 256), (2, 4)) is None
    assert limits((1, 256, 64, 64), (1, 4)) is None
    assert limits((1, 512, 8, 8), (4, 4)) is None
    assert "must be <= 4096, got 16384 with patches of 8x8" in limits((1, 512, 8, 8), (4, 8))
    assert "must be <= 1024 where C / P * p * p is > 512, got 4096 of 1024 features" in limits((1, 64, 256, 256), (4,))
    assert "batch must be <= 65535, got 65536" in limits((65536, 4, 8, 8), (2,))


def test_a_second_order_gradient_is_an_error_not_a_zero():
    inputs = leaves(*arguments())
    dq = torch.autograd.grad(run(*inputs, "post").sum(), inputs[0], create_graph=True)[0]
    with pytest.raises(RuntimeError, match="gated_mask_attention_bwd"):
        dq.sum().backward()


@pytest.mark.parametrize(
    ("kwargs", "message"),
    [
        ({"mode": "soft"}, r"mode must be one of post, logit, value, log, none, map; got 'soft'"),
        ({"q": torch.zeros(4, 4, 4)}, r"q, k, v must be \[N, C, H, W\] of one shape, got \(4, 4, 4\), \(1, 4, 4, 4\)"),
        ({"k": torch.zeros(1, 4, 4, 2)}, r"of one shape, got \(1, 4, 4, 4\), \(1, 4, 4, 2\), \(1, 4, 4, 4\)"),
        ({"v": torch.zeros(1, 2, 4, 4)}, r"of one shape, got \(1, 4, 4, 4\), \(1, 4, 4, 4\), \(1, 2, 4, 4\)"),
        ({"k": torch.zeros(1, 4, 4, 4).half()}, r"share a floating dtype, got torch.float32, torch.float16"),
        (dict.fromkeys("qkv", torch.zeros(1, 4, 4, 4).int()), r"share a floating dtype, got torch.int32, torch.int32"),
        ({"patch_sizes": ()}, r"patch_sizes must divide H and W .*, got \(\) for \(1, 4, 4, 4\)"),
        ({"patch_sizes": (3, 1)}, r"patch_sizes must divide H and W .*, got \(3, 1\) for \(1, 4, 4, 4\)"),
        ({"patch_sizes": (0, 1)}, r"patch_sizes must divide H and W .*, got \(0, 1\) for \(1, 4, 4, 4\)"),
        ({"patch_sizes": (1, 2, 4)}, r"their number must divide C, got \(1, 2, 4\) for \(1, 4, 4, 4\)"),
        ({"gate": None}, r"a gate goes with every mode but 'none', got mode 'post' and no gate"),
        ({"mode": "none"}, r"a gate goes with every mode but 'none', got mode 'none' and a gate"),
        (
            {"gate": torch.zeros(1, 1, 4, 4)},
            r"gate must be torch.float32 of shape \(1, 2, 4, 4\), got .*\(1, 1, 4, 4\)",
        ),
        ({"gate": torch.zeros(1, 2, 4, 4).half()}, r"gate must be torch.float32 of shape .*, got torch.float16"),
        ({"gate": torch.zeros(1, 2, 4, 4).bool()}, r"gate must be torch.float32 of shape .*, got torch.bool"),
        ({"mode": "map"}, r"patch_sizes must be equal in mode 'map', whose gate is \[N, P, L, L\]; got \(2, 4\)"),
        (
            {"mode": "map", "patch_sizes": (2, 2), "gate": torch.zeros(1, 2, 8, 8)},
            r"gate must be torch.float32 of shape \(1, 2, 4, 4\), got .*\(1, 2, 8, 8\)",
        ),
        (
            {"residual": torch.zeros(1, 4, 4, 1)},
            r"residual must be floating of shape \(1, 4, 4, 4\), got torch.float32 \(1, 4, 4, 1\)",
        ),
    ],
    ids=[
        *("mode", "rank", "k_shape", "v_shape", "k_half", "integer", "no_size", "size_3", "size_0", "three_heads"),
        *("no_gate", "superfluous_gate", "gate_shape", "gate_half", "gate_bool"),
        *("map_of_two_sizes", "map_shape", "residual_shape"),
    ],
)
def test_bad_input(kwargs, message):
    good = dict.fromkeys("qkv", torch.zeros(1, 4, 4, 4)) | {"gate": torch.zeros(1, 2, 4, 4)}
    with pytest.raises(ValueError, match=f"gated_mask_attention: .*{message}"):
        gated_mask_attention(**{**good, **kwargs})


@both
def test_mode_log_hides_no_nan(attention):
    q, k, v, gate = arguments((1, 2, 4, 4), 1)
    q[0, 0, 0, 0] = math.nan
    out = attention(q, k, v, gate, "log", (2,))
    out = out if isinstance(out, torch.Tensor) else out[0]
    assert out[:, :, :2, :2].isnan().all()
    assert out[:, :, 2:].isfinite().all()
