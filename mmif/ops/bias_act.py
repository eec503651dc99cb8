"""Add a bias, apply an activation, scale, clamp: StyleGAN2's point-wise epilogue.

Gradients: orders one to three in closed form (R1 and path length need two). Layouts: any.

What is kept for the backward pass is what a caller must not change in place: of ``relu`` and ``lrelu`` the output, of
the smooth activations the input, of ``linear`` neither. Where that does not show a clamp, a mask is kept, too.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _extension, dispatch
from mmif.ops._common import autocast_dtype, in_own_dtype

SMOOTH = "bias_act of smooth activations"  # apart: on a CPU, exponentials are faster in PyTorch


@dataclass(frozen=True, slots=True)
class Activation:
    """One activation: ``derivatives[k](z, alpha)`` is its derivative of order k at the pre-activation z."""

    derivatives: tuple[Callable[[Tensor, float], Tensor], ...]
    gain: float = 1.0  # keeps the variance of a normal input, He et al. 2015
    alpha: float = 0.0  # slope of the negative part, where there is one
    needs: Literal["input", "output", "nothing"] = "input"  # to find its derivative

    @property
    def piecewise_linear(self) -> bool:
        """Derivatives above the first vanish almost everywhere."""
        return self.needs != "input"


def _zero(z: Tensor, _alpha: float) -> Tensor:
    return torch.zeros_like(z)


def _step(z: Tensor, low: float) -> Tensor:
    return torch.where(z > 0, torch.ones_like(z), torch.full_like(z, low))


def _negative(z: Tensor, value: Tensor) -> Tensor:
    return torch.where(z > 0, torch.zeros_like(z), value)


def _sigmoid2(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (1 - 2 * s)


def _sigmoid3(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s) * (1 - 6 * s + 6 * s * s)


def _sigmoid1(z: Tensor) -> Tensor:
    s = torch.sigmoid(z)
    return s * (1 - s)


def _tanh1(z: Tensor) -> Tensor:
    return 1 - torch.tanh(z) ** 2


_SELU_SCALE, _SELU_ALPHA = 1.0507009873554805, 1.6732632423543772

ACTIVATIONS: dict[str, Activation] = {
    "linear": Activation((lambda z, a: z, lambda z, a: torch.ones_like(z), _zero, _zero), needs="nothing"),
    "relu": Activation(
        (lambda z, a: torch.relu(z), lambda z, a: _step(z, 0.0), _zero, _zero), math.sqrt(2), needs="output"
    ),
    "lrelu": Activation(
        (lambda z, a: F.leaky_relu(z, a), lambda z, a: _step(z, a), _zero, _zero),
        math.sqrt(2),
        alpha=0.2,
        needs="output",
    ),
    "tanh": Activation(
        (
            lambda z, a: torch.tanh(z),
            lambda z, a: _tanh1(z),
            lambda z, a: -2 * torch.tanh(z) * _tanh1(z),
            lambda z, a: _tanh1(z) * (6 * torch.tanh(z) ** 2 - 2),
        )
    ),
    "sigmoid": Activation(
        (
            lambda z, a: torch.sigmoid(z),
            lambda z, a: _sigmoid1(z),
            lambda z, a: _sigmoid2(z),
            lambda z, a: _sigmoid3(z),
        )
    ),
    "elu": Activation(
        (
            lambda z, a: F.elu(z),
            lambda z, a: torch.where(z > 0, torch.ones_like(z), torch.exp(z.clamp(max=0))),
            lambda z, a: _negative(z, torch.exp(z.clamp(max=0))),
            lambda z, a: _negative(z, torch.exp(z.clamp(max=0))),
        )
    ),
    "selu": Activation(
        (
            lambda z, a: F.selu(z),
            lambda z, a: _SELU_SCALE * torch.where(z > 0, torch.ones_like(z), _SELU_ALPHA * torch.exp(z.clamp(max=0))),
            lambda z, a: _negative(z, _SELU_SCALE * _SELU_ALPHA * torch.exp(z.clamp(max=0))),
            lambda z, a: _negative(z, _SELU_SCALE * _SELU_ALPHA * torch.exp(z.clamp(max=0))),
        )
    ),
    "softplus": Activation(
        (
            lambda z, a: F.softplus(z),
            lambda z, a: torch.sigmoid(z),
            lambda z, a: _sigmoid1(z),
            lambda z, a: _sigmoid2(z),
        )
    ),
    "swish": Activation(
        (
            lambda z, a: z * torch.sigmoid(z),
            lambda z, a: torch.sigmoid(z) + z * _sigmoid1(z),
            lambda z, a: 2 * _sigmoid1(z) + z * _sigmoid2(z),
            lambda z, a: 3 * _sigmoid2(z) + z * _sigmoid3(z),
        ),
        math.sqrt(2),
    ),
}


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    *,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> Tensor:
    """Return ``clamp(gain * act(x + b))``.

    Args:
        x: any shape, floating point.
        b: ``[x.shape[dim]]`` in the dtype of ``x`` (under autocast of any), or None.
        dim: dimension of ``x`` that the bias runs along; negative counts from the end.
        act: one of ``linear relu lrelu tanh sigmoid elu selu softplus swish``.
        alpha: slope of ``lrelu`` for negative inputs, >= 0; None: 0.2.
        gain: factor on the activation; None: the activation's own (sqrt(2) for relu, lrelu, swish, else 1).
        clamp: limit on the absolute value of the output; None: no limit.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        Tensor like ``x``. NaN stays NaN.

    Raises:
        ValueError: unknown activation, a bias of another size or dtype, or an alpha or clamp below zero.
    """
    if act not in ACTIVATIONS:
        raise ValueError(f"bias_act: act must be one of {', '.join(ACTIVATIONS)}; got {act!r}")
    if b is not None and b.is_floating_point() and autocast_dtype(x) is not None:
        b = b.to(x.dtype)
    _check(x, b, dim, alpha, clamp)
    spec = ACTIVATIONS[act]
    alpha = spec.alpha if alpha is None else float(alpha)
    gain = spec.gain if gain is None else float(gain)
    limit = -1.0 if clamp is None else float(clamp)  # the op's own code for "no limit"
    dim = dim % x.ndim if x.ndim else 0
    op = "bias_act" if spec.piecewise_linear else SMOOTH
    if dispatch.choose(op, x, b, backend=backend) == "reference":
        return bias_act_ref(x, b, dim, act, alpha, gain, limit)
    return torch.ops.mmif.bias_act(x, b, dim, act, alpha, gain, limit)


@in_own_dtype
def bias_act_ref(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float) -> Tensor:
    """Plain PyTorch, differentiable to any order. Same arguments as ``mmif::bias_act``."""
    y = ACTIVATIONS[act].derivatives[0](_add_bias(x, b, dim), alpha)
    if gain != 1.0:
        y = y * gain
    return y.clamp(-clamp, clamp) if clamp >= 0 else y


@in_own_dtype
def bias_act_grad_ref(
    dy: Tensor,
    x: Tensor | None,
    b: Tensor | None,
    y: Tensor,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    order: int,
    bias_grad: bool,
) -> tuple[Tensor, Tensor]:
    """Return ``dx = dy * gain * act^(order)(x + b)``, zero where the output was clamped, and its sum along ``dim``.

    ``x`` may be None for the piecewise linear activations: the sign of ``y`` tells the piece. Where neither a piece nor
    a clamp is asked of ``y``, any tensor of its shape will do. The sum, the gradient of the bias, is
    ``[dy.shape[dim]]``; without ``bias_grad`` it is ``[0]``.
    """
    spec = ACTIVATIONS[act]
    z = y * gain if x is None else _add_bias(x, b, dim)  # only the sign of y * gain is used
    dx = dy * (gain * spec.derivatives[order](z, alpha))
    dx = torch.where(y.abs() < clamp, dx, torch.zeros_like(dx)) if clamp >= 0 else dx
    return dx, _sum_to_bias(dx, dim) if bias_grad else dx.new_empty(0)


def _add_bias(x: Tensor, b: Tensor | None, dim: int) -> Tensor:
    return x if b is None else x + b.reshape([-1 if i == dim else 1 for i in range(x.ndim)])


def _sum_to_bias(dx: Tensor, dim: int) -> Tensor:
    rest = [i for i in range(dx.ndim) if i != dim]
    return dx.sum(rest) if rest else dx.reshape(-1).clone()  # an empty list would mean all dimensions


def _check(x: Tensor, b: Tensor | None, dim: int, alpha: float | None, clamp: float | None) -> None:
    if not x.is_floating_point():
        raise ValueError(f"bias_act: x must be floating point, got {x.dtype}")
    if alpha is not None and alpha < 0:  # the gradient reads the piece from the sign of the output
        raise ValueError(f"bias_act: alpha must be None or >= 0, got {alpha}")
    if clamp is not None and clamp < 0:
        raise ValueError(f"bias_act: clamp must be None or >= 0, got {clamp}")
    if b is None:
        return
    if not -x.ndim <= dim < x.ndim:
        raise ValueError(f"bias_act: dim must be a dimension of x with shape {tuple(x.shape)}, got {dim}")
    if b.shape != (x.shape[dim],) or b.dtype != x.dtype:
        raise ValueError(
            f"bias_act: b must be {x.dtype} of shape ({x.shape[dim]},) = x.shape[{dim}], got {b.dtype} {tuple(b.shape)}"
        )


@torch.library.custom_op("mmif::bias_act", mutates_args=())
def _bias_act(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float) -> Tensor:
    return torch.empty_like(x).copy_(bias_act_ref(x, b, dim, act, alpha, gain, clamp))


@_bias_act.register_fake
def _bias_act_fake(x: Tensor, b: Tensor | None, dim: int, act: str, alpha: float, gain: float, clamp: float) -> Tensor:
    return torch.empty_like(x)


def _bias_act_setup(ctx, inputs, output) -> None:
    x, b, ctx.dim, ctx.act, ctx.alpha, ctx.gain, clamp = inputs
    needs = ACTIVATIONS[ctx.act].needs
    ctx.has_bias = b is not None
    x, b = (x, b) if needs == "input" else (None, None)
    y = output if needs == "output" else None
    clamped = ~(output.abs() < clamp) if y is None and clamp >= 0 else None  # NaN has no slope
    ctx.clamp = -1.0 if y is None else clamp  # what is left to be seen in y
    ctx.save_for_backward(x, b, y, clamped)


def _bias_act_backward(ctx, dy: Tensor):
    x, b, y, clamped = ctx.saved_tensors
    dy = dy if clamped is None else dy.masked_fill(clamped, 0.0)
    static = (ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp)
    reduce = ctx.has_bias and ctx.needs_input_grad[1]
    dx, db = torch.ops.mmif.bias_act_grad(dy, x, b, _first(y, x, dy), *static, 1, reduce)
    return dx, db if reduce else None, None, None, None, None, None


def _first(*tensors: Tensor | None) -> Tensor:
    return next(t for t in tensors if t is not None)


_bias_act.register_autograd(_bias_act_backward, setup_context=_bias_act_setup)


@torch.library.custom_op("mmif::bias_act_grad", mutates_args=())
def _bias_act_grad(
    dy: Tensor,
    x: Tensor | None,
    b: Tensor | None,
    y: Tensor,
    dim: int,
    act: str,
    alpha: float,
    gain: float,
    clamp: float,
    order: int,
    bias_grad: bool,
) -> tuple[Tensor, Tensor]:
    dx, db = bias_act_grad_ref(dy, x, b, y, dim, act, alpha, gain, clamp, order, bias_grad)
    return torch.empty_like(y).copy_(dx), db


@_bias_act_grad.register_fake
def _bias_act_grad_fake(dy, x, b, y, dim, act, alpha, gain, clamp, order, bias_grad) -> tuple[Tensor, Tensor]:
    return torch.empty_like(y), _empty_bias_grad(y, dim, bias_grad)


def _empty_bias_grad(y: Tensor, dim: int, wanted: bool) -> Tensor:
    return y.new_empty((y.shape[dim] if y.ndim else 1,) if wanted else (0,))


def _bias_act_grad_setup(ctx, inputs, output) -> None:
    dy, x, b, y, ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp, ctx.order, ctx.bias_grad = inputs
    read = ctx.clamp >= 0 or ACTIVATIONS[ctx.act].needs == "output"
    ctx.save_for_backward(None if x is None else dy, x, b, y if read else None)


def _bias_act_grad_backward(ctx, ddx: Tensor, ddb: Tensor):
    dy, x, b, y = ctx.saved_tensors
    static = (ctx.dim, ctx.act, ctx.alpha, ctx.gain, ctx.clamp)
    if ctx.bias_grad:
        ddx = _add_bias(ddx, ddb, ctx.dim)  # db sums dx, so its cotangent is added to each summand's
    y = _first(y, x, ddx)
    ddy, _ = torch.ops.mmif.bias_act_grad(ddx, x, b, y, *static, ctx.order, False)
    if x is None:
        return ddy, *(None,) * 10
    if ctx.order >= 3:
        raise ValueError(f"bias_act: gradients of {ctx.act} stop at order three")
    dx, db = torch.ops.mmif.bias_act_grad(ddx * dy, x, b, y, *static, ctx.order + 1, b is not None)
    return ddy, dx, db if b is not None else None, *(None,) * 8


_bias_act_grad.register_autograd(_bias_act_grad_backward, setup_context=_bias_act_grad_setup)


def _cpu_limits(x: Tensor, *_: Tensor | None) -> str | None:
    if x.dtype in (torch.float16, torch.bfloat16):
        return f"{x.dtype} is faster in PyTorch on a CPU"  # benchmarks/ops_cpu.py
    return None


_extension.announce("bias_act", "cpu", _cpu_limits)
_extension.announce("bias_act", "cuda")
_extension.announce(SMOOTH, "cuda")
