"""The one rule by which a kernel is close enough to its reference (docs/numerics.md).

Truth is the reference in float64 on the same inputs, which are already rounded to the dtype under test; the baseline is
the reference at that dtype. A kernel passes if its error, maximum and mean, is at most ``k`` times the baseline's plus
a floor: it may be a little worse than PyTorch itself, never much worse.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

# Relative to the largest magnitude of the truth: where the baseline happens to be exact, this much is still allowed.
FLOOR = {torch.float64: 1e-12, torch.float32: 1e-6, torch.float16: 1e-3, torch.bfloat16: 8e-3}
FORWARD_FACTOR, GRADIENT_FACTOR = 2.0, 3.0


@dataclass(frozen=True)
class Allowance:
    """A measured exception to the rule, with all that is needed to argue against it."""

    factor: float  # in place of FORWARD_FACTOR or GRADIENT_FACTOR
    reason: str
    worst: float  # largest measured ratio of the kernel's error to the baseline's
    device: str


EXCEPTIONS: dict[tuple[str, torch.dtype], Allowance] = {
    ("gated_mask_attention of equal channels", torch.float16): Allowance(
        factor=6.0,
        reason="the row sums of dS, from the rounded output, add the same rounding error once per channel",
        worst=4.6,
        device="Triton's interpreter",
    ),
}


def assert_close_to_reference(
    kernel_out: Tensor | Sequence[Tensor],
    ref_fn: Callable[..., Any],
    inputs: Sequence[Any],
    *,
    grad: bool = False,
    op: str,
    dtype: torch.dtype,
) -> None:
    """Fail unless ``kernel_out`` is as close to the truth as the rule asks.

    Args:
        kernel_out: what the kernel under test returned for ``inputs``.
        ref_fn: the reference; ``ref_fn(*inputs)`` returns a tensor or several, as many as ``kernel_out``.
        inputs: arguments at the dtype under test; for the truth every floating tensor among them becomes float64.
        grad: ``kernel_out`` holds gradients: the factor for gradients applies.
        op: name of the op, for the table of exceptions and for the message.
        dtype: dtype under test, which chooses the floor.
    """
    truths = _several(ref_fn(*[_double(value) for value in inputs]))
    baselines = _several(ref_fn(*inputs))
    outputs = _several(kernel_out)
    assert len(outputs) == len(truths), f"{op}: the reference returns {len(truths)} tensors, got {len(outputs)}"
    factor = GRADIENT_FACTOR if grad else FORWARD_FACTOR
    if (op, dtype) in EXCEPTIONS:
        factor = EXCEPTIONS[op, dtype].factor
    for i, (out, truth, baseline) in enumerate(zip(outputs, truths, baselines, strict=True)):
        label = f"{op} {dtype} {'gradient' if grad else 'output'} {i}"
        assert out.shape == baseline.shape, f"{label}: shape must be {tuple(baseline.shape)}, got {tuple(out.shape)}"
        assert out.dtype == baseline.dtype, f"{label}: dtype must be {baseline.dtype}, got {out.dtype}"
        _compare(out.detach().double(), truth.detach(), baseline.detach().double(), factor, FLOOR[dtype], label)


def _compare(out: Tensor, truth: Tensor, baseline: Tensor, factor: float, floor: float, label: str) -> None:
    _check_non_finite(baseline, truth, f"{label}: the reference at this dtype (choose other inputs)")
    _check_non_finite(out, truth, label)
    finite = truth.isfinite()
    if not finite.any():
        return
    error = torch.where(finite, out - truth, 0.0).abs()
    baseline_error = torch.where(finite, baseline - truth, 0.0).abs()
    slack = floor * truth[finite].abs().max()
    for name, measure in (("maximum", torch.amax), ("mean", torch.mean)):
        got, allowed = measure(error), factor * measure(baseline_error) + slack
        if got > allowed:
            where = _position(error == error.max())
            raise AssertionError(
                f"{label}: {name} error must be <= {allowed:.3e} "
                f"({factor:g} x the baseline's {measure(baseline_error):.3e} + {slack:.3e}), got {got:.3e}; "
                f"worst at {where}: {out[where].item():.9g} for {truth[where].item():.9g}"
            )


def _check_non_finite(out: Tensor, truth: Tensor, label: str) -> None:
    """NaN and infinities must stand where the truth has them, and nowhere else."""
    same = torch.where(truth.isfinite(), out.isfinite(), (out == truth) | (out.isnan() & truth.isnan()))
    if not same.all():
        where = _position(~same)
        raise AssertionError(f"{label}: {out[where].item()} at {where}, the truth is {truth[where].item():.9g}")


def _position(mask: Tensor) -> tuple[int, ...]:
    return tuple(mask.nonzero()[0].tolist())


def _several(value: Tensor | Sequence[Tensor]) -> tuple[Tensor, ...]:
    return (value,) if isinstance(value, Tensor) else tuple(value)


def _double(value: Any) -> Any:
    return value.double() if isinstance(value, Tensor) and value.is_floating_point() else value
