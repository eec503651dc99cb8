"""One case of the kernel benchmarks: contenders that compute the same are judged, then timed in turn.

Judging comes first: the outputs are compared with the reference's in float64. A contender that is wrong gets a row that
says INVALID and no time, one that fails a row with its error; neither stops the others.
"""

from __future__ import annotations

import functools
import math
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import torch
from timing import Timing, compare, measure
from torch import Tensor

Outputs = Tensor | Sequence[Tensor]
Row = dict[str, Any]

# Largest relative error ||out - truth|| / ||truth||: far above rounding, far below what a wrong border or tap makes.
LIMITS = {torch.float64: 1e-10, torch.float32: 1e-4, torch.float16: 1e-2, torch.bfloat16: 6e-2}
FLUSH_BYTES = 2**28  # several times the L2 cache of any GPU
HOLD_CYCLES = 4_000_000  # of a sleeping kernel: about two milliseconds, in which the kernels of a sample are queued
MEASURED = (
    *("median_ms", "p20_ms", "p80_ms", "first_ms", "samples"),
    *("least_mb", "gb_s", "copy_percent", "tflop_s", "matrix_percent", "images_s", "error", "peak_mb", "times_ours"),
)


@dataclass(frozen=True, slots=True)
class Setup:
    """How to run: on which device, with cold or warm L2 cache, with which foreign contenders."""

    device: str = "cuda"
    cold: bool = True
    compile: bool = True
    nvlabs: Path | None = None
    samples: int = 50
    seconds: float = 3.0  # per contender and case
    warmup_s: float = 0.02


class Rates(NamedTuple):
    """What the device does at its best, measured in the same run."""

    copy_gb_s: float  # bytes read and bytes written
    matrix_tflop_s: float


@dataclass(frozen=True, slots=True)
class Contest:
    """The contenders of one case with their tensors made.

    ``missing`` says why a contender is not among ``calls``; ``inputs`` are read once, at least, and ``macs`` is the
    number of multiply-adds. ``alone``: timed as a caller sees it, with the launches and whatever the cache holds.
    """

    calls: Mapping[str, Callable[[], Outputs]]
    truth: Callable[[], Outputs]
    missing: Mapping[str, str] = field(default_factory=dict)
    inputs: Sequence[object] = ()
    macs: int = 0
    images: int = 0
    alone: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """One problem; ours is the first of the ``contenders`` called mmif that ran."""

    goal: str
    name: str
    dtype: torch.dtype
    contenders: tuple[str, ...]
    build: Callable[[Setup], Contest]

    def row(self, contender: str, status: str, **measured: Any) -> Row:
        """A row of the results; what was not measured is None."""
        head = {"goal": self.goal, "case": self.name, "contender": contender, "status": status}
        return {**head, **dict.fromkeys(MEASURED), **measured}

    def unmeasured(self, reason: str) -> list[Row]:
        """All rows, without a measurement."""
        return [self.row(name, f"not measured: {reason}") for name in self.contenders]


@torch.no_grad()
def run_case(case: Case, setup: Setup, rates: Rates) -> list[Row]:
    """Judge and time the contenders of a case: one row each, whatever happens."""
    torch.compiler.reset()
    try:
        contest = case.build(setup)
        rows = _judge(case, contest, setup)
        valid = {row["contender"]: contest.calls[row["contender"]] for row in rows if row["status"] == "ok"}
        times = _time(valid, contest, setup)
    except Exception as error:  # this case's result; the next one may do better
        return [case.row(name, _failed(error)) for name in case.contenders]
    ours = next((times[name] for name in case.contenders if name in times and name.startswith("mmif")), None)
    for row in rows:
        if row["contender"] in times:
            row |= _measured(times[row["contender"]], contest, row["least_mb"], rates, ours)
    if setup.device == "cuda":
        torch.cuda.empty_cache()
    return rows


def measure_rates(setup: Setup, count: int, side: int) -> Rates:
    """A copy of ``count`` bytes, and a product of two square matrices in float16 (on a CPU float32)."""
    source = torch.empty(count, dtype=torch.uint8, device=setup.device).random_()
    target = torch.empty_like(source)
    dtype = torch.float32 if setup.device == "cpu" else torch.float16
    a, b = torch.randn(2, side, side, device=setup.device).to(dtype)
    options: dict[str, Any] = {"device": setup.device, "warmup_s": setup.warmup_s, "samples": setup.samples}
    copy, product = measure(lambda: target.copy_(source), **options), measure(lambda: a @ b, **options)
    return Rates(2 * count / copy.median_ms / 1e6, 2 * side**3 / product.median_ms / 1e9)


def summary(rows: Sequence[Row]) -> dict[str, dict[str, float]]:
    """For each contender how many times our time it takes: geometric mean, least, and the number of cases."""
    times: dict[str, list[float]] = {}
    for name in dict.fromkeys(row["case"] for row in rows):
        of_case = [row for row in rows if row["case"] == name and row["times_ours"] is not None]
        found = {row["contender"]: row["times_ours"] for row in of_case[1:]}  # the first is ours
        styled = [value for contender, value in found.items() if contender.startswith("NVlabs-style")]
        if styled:
            found["best NVlabs-style"] = min(styled)
        for contender, value in found.items():
            times.setdefault(contender, []).append(value)
    return {name: {"geomean": _geomean(v), "least": min(v), "cases": len(v)} for name, v in times.items()}


def compiled(function: Callable[..., Outputs], args: Sequence[Any], mode: str | None = None) -> Callable[[], Outputs]:
    """A call of the compiled function; its first call compiles."""
    call = torch.compile(function, mode=mode, dynamic=False)
    return lambda: call(*args)


def lazily(make: Callable[[], Callable[[], Outputs]]) -> Callable[[], Outputs]:
    """A call of what ``make`` returns; made by the first call, so that a failure is the contender's own."""
    made = functools.cache(make)
    return lambda: made()()


def doubles(args: Sequence[Any]) -> list[Any]:
    """Arguments of a reference with their floating tensors in float64."""
    return [v.double() if isinstance(v, Tensor) and v.is_floating_point() else v for v in args]


def _judge(case: Case, contest: Contest, setup: Setup) -> list[Row]:
    """Rows with status, error, first call and peak memory."""
    truth = [t.double() for t in _several(contest.truth())]
    rows = []
    for name in case.contenders:
        if name in contest.missing:
            rows.append(case.row(name, f"not measured: {contest.missing[name]}"))
            continue
        try:
            start = time.perf_counter()
            outputs = _several(contest.calls[name]())
            _synchronize(setup)
            first_ms = (time.perf_counter() - start) * 1e3
            error = max(_relative_error(out, wanted) for out, wanted in zip(outputs, truth, strict=True))
            status = "ok" if error <= LIMITS[case.dtype] else f"INVALID: error {error:.1e} > {LIMITS[case.dtype]:.0e}"
            measured = {
                "first_ms": round(first_ms, 3),
                "least_mb": (_nbytes(contest.inputs) + _nbytes(outputs)) / 1e6 if contest.inputs else None,
                "error": float(f"{error:.2e}") if math.isfinite(error) else None,  # JSON knows no infinity
            }
            del outputs
            rows.append(case.row(name, status, **measured, peak_mb=_peak_mb(contest.calls[name], setup)))
        except Exception as error:  # this contender's result
            rows.append(case.row(name, _failed(error)))
    return rows


def _time(calls: Mapping[str, Callable[[], Outputs]], contest: Contest, setup: Setup) -> dict[str, Timing]:
    if not calls:
        return {}
    return compare(
        calls,
        device=setup.device,
        warmup_s=setup.warmup_s,
        samples=setup.samples,
        budget_s=setup.seconds * len(calls),
        before=None if contest.alone or setup.device == "cpu" else functools.partial(_hold, setup.cold),
    )


def _measured(
    timing: Timing, contest: Contest, least_mb: float | None, rates: Rates, ours: Timing | None
) -> dict[str, Any]:
    ms = timing.median_ms
    gb_s = least_mb / ms if least_mb else None
    return {
        **{key: round(getattr(timing, key), 5) for key in ("median_ms", "p20_ms", "p80_ms")},
        "samples": timing.samples,
        "gb_s": round(gb_s, 1) if gb_s else None,
        "copy_percent": round(100 * gb_s / rates.copy_gb_s, 1) if gb_s else None,
        "tflop_s": round(2 * contest.macs / ms / 1e9, 2) if contest.macs else None,
        "matrix_percent": round(200 * contest.macs / ms / 1e9 / rates.matrix_tflop_s, 1) if contest.macs else None,
        "images_s": round(contest.images / ms * 1e3, 1) if contest.images else None,
        "times_ours": round(ms / ours.median_ms, 3) if ours else None,
    }


def _hold(cold: bool) -> None:
    """Empty the L2 cache if wanted, then keep the device busy while the sample's kernels are queued."""
    if cold:
        _flush_buffer().zero_()
    torch.cuda._sleep(HOLD_CYCLES)


@functools.cache
def _flush_buffer() -> Tensor:
    return torch.empty(FLUSH_BYTES, dtype=torch.uint8, device="cuda")


def _relative_error(out: Tensor, truth: Tensor) -> float:
    """Infinite for another shape, or where something is not finite."""
    if out.shape != truth.shape:
        return math.inf
    error = ((out.double() - truth).norm() / truth.norm().clamp(min=1e-30)).item()
    return error if math.isfinite(error) else math.inf


def _peak_mb(call: Callable[[], Outputs], setup: Setup) -> float | None:
    """What a call allocates at its highest point on top of what is there, outputs included."""
    if setup.device == "cpu":
        return None
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    call()
    return round((torch.cuda.max_memory_allocated() - before) / 2**20, 1)


def _synchronize(setup: Setup) -> None:
    if setup.device == "cuda":
        torch.cuda.synchronize()


def _failed(error: Exception) -> str:
    return f"failed: {type(error).__name__}: {' '.join(str(error).split())[:200]}"


def _nbytes(values: Sequence[object]) -> int:
    return sum(v.nbytes for v in values if isinstance(v, Tensor))


def _several(outputs: Outputs) -> Sequence[Tensor]:
    return (outputs,) if isinstance(outputs, Tensor) else outputs


def _geomean(values: Sequence[float]) -> float:
    return round(math.exp(sum(map(math.log, values)) / len(values)), 3)
