"""The kernels of the adaptive contextual bottleneck against the references, forward and backward."""

import dataclasses

import pytest
import torch
import torch.nn.functional as F
from tolerances import assert_close_to_reference
from torch import Tensor

from mmif.config import from_preset
from mmif.model.bottleneck import AdaptiveContextualBottleneck
from mmif.ops import dispatch
from mmif.ops.acb_fusion import acb_fusion, acb_fusion_code
from mmif.ops.acb_mix import acb_mix_ref
from mmif.ops.acb_paths import acb_blend_ref, acb_paths_ref, channels_last
from mmif.ops.acb_pool import acb_pool_ref

pytestmark = pytest.mark.triton

OPS = torch.ops.mmif
REFS = {"acb_paths": acb_paths_ref, "acb_pool": acb_pool_ref, "acb_mix": acb_mix_ref, "acb_blend": acb_blend_ref}
DTYPES = pytest.mark.parametrize("dtype", [torch.float32, torch.float16], ids=["fp32", "fp16"])
# Batch, channels, height, width, dilations: channels that are no multiple of a block, dilations up to the last row.
SIZES = pytest.mark.parametrize(
    "size",
    [(3, 12, 5, 7, (1, 4)), (1, 20, 9, 9, (3, 1, 8)), (2, 8, 2, 2, (1,)), (1, 8, 16, 16, (5,))],
    ids=["5x7", "9x9", "2x2", "16x16"],
)


def sliced(t: Tensor) -> Tensor:
    """Every second column of a wider tensor, which is not a number in between."""
    wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), float("nan"))
    wide[..., ::2] = t
    return wide[..., ::2]


LAYOUTS = {"contiguous": lambda t: t, "channels_last": channels_last, "sliced": sliced}


def has_clear_maxima(paths, gates, weight, bias):
    """Rounding cannot move a maximum, which would change the gradients altogether."""
    for path in paths.unbind(1):
        z = F.conv2d(torch.cat([path, gates], 1).double(), weight.double(), bias.double(), padding=1)
        first, second = z.flatten(2).topk(2).values.unbind(2)
        if (first - second < 3e-3 * first).any():
            return False
    return True


def arguments(op, size, dtype, device, layout="contiguous"):
    """Arguments of a registered op, all but the backend."""
    n, c, h, w, dilations = size
    r = len(dilations)
    shapes = {
        "acb_paths": [(n, c, h, w), (r, c, c, 3, 3), (r, c)],
        "acb_pool": [(n, r, c, h, w), (n, 2 * c, h, w), (c, 3 * c, 3, 3), (c,)],
        "acb_mix": [(n, r, c, h, w), (n, r, c), (n, c, h, w)],
        "acb_blend": [(n, c, h, w), (r, c, c, 3, 3), (r, c), (n, r), (n, c, h, w)],
    }[op]
    tensors = [torch.randn(shape, dtype=torch.float64).to(device, dtype) for shape in shapes]
    while op == "acb_pool" and not has_clear_maxima(*tensors):
        tensors = [torch.randn_like(t) for t in tensors]
    tensors = [LAYOUTS[layout](t) if t.ndim >= 4 else t for t in tensors]
    return (*tensors, dilations) if op in ("acb_paths", "acb_blend") else tuple(tensors)


def run(op, args):
    """The kernel's output; of several the floating ones."""
    out = getattr(OPS, op)(*args, backend="triton")
    return out if isinstance(out, Tensor) else out[:2]


def reference(op):
    return lambda *args: REFS[op](*args)[:2] if op == "acb_pool" else REFS[op](*args)


def gradients(function, count):
    """A function of ``count`` tensors, further arguments and cotangents that returns the gradients of the tensors."""

    def run(*values):
        cotangents = [v for v in values[count:] if isinstance(v, Tensor)]
        rest = [v for v in values[count:] if not isinstance(v, Tensor)]
        leaves = [v.detach().requires_grad_() for v in values[:count]]
        out = function(*leaves, *rest)
        return torch.autograd.grad((out,) if isinstance(out, Tensor) else out, leaves, cotangents)

    return run


def check_gradients(op, args, dtype, function=None, ref=None):
    tensors = [a for a in args if isinstance(a, Tensor)]
    rest = [a for a in args if not isinstance(a, Tensor)]
    ref = ref or reference(op)
    out = ref(*args)
    cotangents = [torch.randn_like(t) for t in ((out,) if isinstance(out, Tensor) else out)]
    values = (*tensors, *rest, *cotangents)
    got = gradients(function or (lambda *a: run(op, a)), len(tensors))(*values)
    assert_close_to_reference(got, gradients(ref, len(tensors)), values, grad=True, op=op, dtype=dtype)


def check(op, args, dtype):
    assert_close_to_reference(run(op, args), reference(op), args, op=op, dtype=dtype)
    check_gradients(op, args, dtype)


@pytest.mark.parametrize("op", REFS)
@SIZES
@DTYPES
def test_equals_reference(op, size, dtype, device):
    check(op, arguments(op, size, dtype, device), dtype)


@pytest.mark.parametrize("op", REFS)
@pytest.mark.parametrize("layout", ["channels_last", "sliced"])
def test_layouts(op, layout, device):
    check(op, arguments(op, (2, 12, 5, 7, (2, 4)), torch.float32, device, layout), torch.float32)


@pytest.mark.parametrize(
    ("op", "index"),
    [(op, i) for op, last in zip(REFS, (4, 2, 3, 3), strict=True) for i in range(1, last + 1)],
)
def test_every_configuration(op, index, device):
    from mmif.kernels import tuning

    with tuning.forced(index):
        check(op, arguments(op, (1, 12, 5, 7, (2, 4)), torch.float16, device), torch.float16)


def test_paths_may_change_the_number_of_channels(device):
    x, weight = torch.randn(2, 12, 5, 6, device=device), torch.randn(2, 20, 12, 3, 3, device=device)
    args = (x, weight, torch.randn(2, 20, device=device), (1, 3))
    check("acb_paths", args, torch.float32)


@DTYPES
@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
def test_mix_with_an_affine_map(dtype, layout, device):
    paths, logits, x = arguments("acb_mix", (2, 12, 5, 7, (1, 2)), dtype, device, layout)
    args = (paths, logits, x, torch.randn(12, device=device), torch.randn(12, device=device), 0.2)
    out = OPS.acb_mix(*args, backend="triton")
    assert out.stride() == x.stride()
    assert_close_to_reference(out, acb_mix_ref, args, op="acb_mix", dtype=dtype)


def test_the_position_is_that_of_the_maximum(device):
    args = arguments("acb_pool", (2, 12, 9, 9, (1, 2)), torch.float32, device)
    torch.testing.assert_close(OPS.acb_pool(*args, backend="triton")[2], acb_pool_ref(*args)[2])


def test_of_equal_maxima_the_first_counts(device):
    """Small integers, all exact: a plateau in every tile of every channel."""
    paths = torch.zeros(1, 2, 8, 16, 16, device=device)
    paths[:, 0, :, 3, 4:9] = paths[:, 0, :, 14, 2:] = paths[:, 1, :, 15, 15] = 1
    weight = torch.zeros(8, 24, 3, 3, device=device)
    weight[:, :8, 1, 1] = 1
    args = (paths, torch.zeros(1, 16, 16, 16, device=device), weight, torch.zeros(8, device=device))
    _, peak, where = OPS.acb_pool(*args, backend="triton")
    assert (peak == 8).all()
    torch.testing.assert_close(where[0, :, 0].cpu(), torch.tensor([3 * 16 + 4, 15 * 16 + 15]))
    torch.testing.assert_close(where, acb_pool_ref(*args)[2])


def test_not_a_number_is_the_maximum(device):
    args = arguments("acb_pool", (1, 8, 16, 16, (1, 2)), torch.float32, device)
    args[0][0, 1, 0, 9, 5] = float("nan")  # its 3x3 neighbourhood becomes so, which starts a row and a column before
    mean, peak, where = OPS.acb_pool(*args, backend="triton")
    assert mean[0, 1].isnan().all()
    assert peak[0, 1].isnan().all()
    assert (where[0, 1] == 8 * 16 + 4).all()
    assert peak[0, 0].isfinite().all()


def test_relu_keeps_not_a_number(device):
    x, weight, bias, dilations = arguments("acb_paths", (1, 8, 5, 7, (1,)), torch.float32, device)
    x[0, 0, 2, 3] = float("nan")
    out = run("acb_paths", (x, weight, bias, dilations))
    assert torch.equal(out.isnan(), acb_paths_ref(x, weight, bias, dilations).isnan())


def fusion_arguments(dtype, device, c=8, size=(6, 7), dilations=(1, 3)):
    r = len(dilations)
    images = [(2, c, *size), (2, 2 * c, *size)]
    parameters = [(r, c, c, 3, 3), (r, c), (c, 3 * c, 3, 3), (c,), (c, c), (c,)]
    # Small parameters: with larger ones a few roundings decide how far off the reference's few gradients of fc are.
    scaled = [(0.5, shape) for shape in images] + [(0.1, shape) for shape in parameters]
    return [scale * torch.randn(shape, dtype=torch.float64).to(device, dtype) for scale, shape in scaled]


@DTYPES
def test_the_whole_fusion(dtype, device):
    def call(backend):
        return lambda *args: acb_fusion(*args, dilations=(1, 3), backend=backend)

    args = fusion_arguments(dtype, device)
    assert_close_to_reference(call("triton")(*args), call("reference"), args, op="acb_fusion", dtype=dtype)
    check_gradients("acb_fusion", args, dtype, call("triton"), call("reference"))


@DTYPES
def test_the_released_variant(dtype, device):
    def call(backend):
        return lambda *args: acb_fusion_code(*args, dilations=(1, 3), backend=backend)

    x, gates, path_weight, path_bias, fuse_weight, fuse_bias, fc_weight, _ = fusion_arguments(dtype, device)
    args = [x, *gates.chunk(2, 1), path_weight, path_bias, fuse_weight, fuse_bias, fc_weight[:2]]
    assert_close_to_reference(call("triton")(*args), call("reference"), args, op="acb_fusion", dtype=dtype)
    check_gradients("acb_fusion", args, dtype, call("triton"), call("reference"))


@pytest.mark.parametrize("variant", ["paper", "code"])
@pytest.mark.parametrize("post", [True, False], ids=["post", "bare"])
@pytest.mark.parametrize("training", [True, False], ids=["training", "evaluation"])
def test_the_module(variant, post, training, device):
    config = dataclasses.replace(from_preset("tiny-32").encoder, acb_variant=variant, acb_post=post)
    block = AdaptiveContextualBottleneck(8, config).to(device).train(training)
    if block.post.norm is not None:
        for buffer in (block.post.norm.running_mean, block.post.norm.running_var, block.post.norm.weight.data):
            buffer.uniform_(0.5, 1.5)
    x, gate = torch.randn(2, 8, 6, 6, device=device), torch.rand(2, 8, 6, 6, device=device)
    results = []
    for backend in ("reference", "triton"):
        with dispatch.use(backend), torch.set_grad_enabled(training):
            out, _ = block(x, gate)
            if training:
                out.square().sum().backward()
        grads = {name: p.grad for name, p in block.named_parameters() if p.grad is not None}
        assert len(grads) >= 6 * training
        results.append((out.detach(), *grads.values()))
        block.zero_grad()
    for got, want in zip(*results, strict=True):
        torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"dtype": torch.float64}, "tensors must be float16, bfloat16 or float32, got torch.float64"),
        ({"dilations": (1,) * 9}, "paths must be <= 8, and times the batch <= 65535, got 9 and 18"),
    ],
    ids=["float64", "paths"],
)
def test_what_the_kernels_cannot_take(change, reason, device):
    settings = {"dtype": torch.float32, "dilations": (1, 3)} | change
    args = fusion_arguments(device=device, **settings)
    with pytest.raises(dispatch.BackendUnavailable, match=reason):
        acb_fusion(*args, dilations=settings["dilations"], backend="triton")


def test_an_empty_batch(device):
    x, gates, *parameters = fusion_arguments(torch.float32, device)
    with pytest.raises(dispatch.BackendUnavailable, match="a tensor is empty"):
        acb_fusion(x[:0], gates[:0], *parameters, dilations=(1, 3), backend="triton")
