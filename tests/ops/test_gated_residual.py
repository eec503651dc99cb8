"""gated_residual against its formula; gradients; bad input."""

import pytest
import torch
from torch.autograd import gradcheck

from mmif.ops import gated_residual


def tensors(*shape, dtype=torch.float64):
    return [torch.randn(shape, dtype=dtype) for _ in range(3)]


def registered(z, body, gate):
    return torch.ops.mmif.gated_residual(z, body, gate)


routes = pytest.mark.parametrize("run", [gated_residual, registered], ids=["reference", "registered"])


@routes
@pytest.mark.parametrize("shape", [(2, 3, 5, 7), (13,), ()], ids=str)
def test_equals_the_formula(run, shape):
    z, body, gate = tensors(*shape)
    torch.testing.assert_close(run(z, body, gate), z + body / (1 + torch.exp(-gate)))


def test_gradients():
    assert gradcheck(registered, [t.requires_grad_() for t in tensors(2, 3, 2)])


def test_a_second_order_gradient_is_an_error_not_a_zero():
    z, body, gate = (t.requires_grad_() for t in tensors(2, 3))
    dgate = torch.autograd.grad(registered(z, body, gate).square().sum(), gate, create_graph=True)[0]
    with pytest.raises(RuntimeError, match="gated_residual_bwd"):
        dgate.square().sum().backward()


def test_keeps_the_dtype_of_z_under_autocast():
    z, body, gate = tensors(2, 3, 4, dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        y = gated_residual(z, body.bfloat16(), gate)
    assert y.dtype == torch.float32
    torch.testing.assert_close(y, gated_residual(z, body.bfloat16().float(), gate))


Z = torch.zeros(2, 3)


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ((Z.int(), Z, Z), r"z must be floating point, got torch.int32"),
        ((Z, Z[:1], Z), r"body must be torch.float32 of the shape of z, \(2, 3\), got torch.float32 \(1, 3\)"),
        ((Z, Z, Z.half()), r"gate must be torch.float32 of the shape of z, \(2, 3\), got torch.float16 \(2, 3\)"),
    ],
    ids=["integers", "body", "gate"],
)
def test_bad_tensors(args, message):
    with pytest.raises(ValueError, match=f"gated_residual: {message}"):
        gated_residual(*args)
