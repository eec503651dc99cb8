"""A kernel's configurations against its reference: those that fail or differ are dropped, the rest are timed.

Compilers have bugs that only numbers show, so that each configuration runs once and is compared before it is timed.
"""

from __future__ import annotations

import itertools
import logging
import statistics
from collections.abc import Callable, Sequence

import torch
from torch import Tensor

from .store import Choice, Config

logger = logging.getLogger(__package__)

SLACK = 1.03  # a kernel may take this much longer than its reference before the reference is taken
TOLERANCE = 32  # in units of eps times the largest magnitude: rounding stays far below, a miscompiled kernel does not
RMS_TOLERANCE = 8  # the same of the root of the mean square
BUDGET_MS, MIN_REPEATS, MAX_REPEATS = 50, 5, 25  # of one candidate


def measured(op: str, candidates: dict[Config | None, Callable[[], object]]) -> Choice | None:
    """The fastest of the candidates whose results are right, of which None is the reference.

    Returns:
        None where this call is no ground to judge on; see :func:`_drop_wrong`.
    """
    dropped = _drop_wrong(op, candidates)
    if not candidates or dropped is None:
        return None
    return _choose(dict(zip(candidates, _time_all(list(candidates.values())), strict=True)), dropped)


def _drop_wrong(op: str, candidates: dict[Config | None, Callable[[], object]]) -> dict[str, str] | None:
    """Take out what fails or differs, and return why; None where this call is no ground to judge on.

    It is none if float16 overflows, in the reference or in a kernel, which rounds elsewhere, and if a kernel finds no
    memory, which may be there the next time. Where the reference does not fit into the memory, the results of the first
    configuration stand in for its own.
    """
    truth: list[Tensor] | None = None
    dropped: dict[str, str] = {}
    for config, candidate in list(candidates.items()):
        try:
            outputs = _floating(candidate())
            torch.cuda.synchronize()  # an error of the device belongs to the candidate that made it
        except Exception as error:  # whatever a compiler or a launch may raise: the other candidates still serve
            no_memory = isinstance(error, torch.OutOfMemoryError)
            if config is None and not no_memory:
                raise
            if config is not None and no_memory and truth is not None:
                return None
            reason = f"{type(error).__name__}: {_short(str(error))}"
            logger.info("%s: %s is not used: %s", op, config or "the reference", reason)
        else:
            if any(_overflowed(t) and (truth is None or t.dtype == torch.float16) for t in outputs):
                return None
            truth = outputs if truth is None else truth
            reason = _difference(outputs, truth)
            if reason is None:
                continue
            logger.warning("%s: %s is not used, its results are wrong: %s", op, config, reason)
        del candidates[config]
        dropped["reference" if config is None else str(config)] = reason
    return dropped


def _short(text: str) -> str:
    """One line; a compiler quotes the source and says last what is wrong with it."""
    line = " ".join(text.split())
    return line if len(line) <= 300 else f"{line[:100]} ... {line[-200:]}"


def _floating(outputs: object) -> list[Tensor]:
    several = outputs if isinstance(outputs, tuple | list) else (outputs,)
    return [t for t in several if isinstance(t, Tensor) and t.is_floating_point() and t.numel() > 0]


def _overflowed(t: Tensor) -> bool:
    """True where rounding decides what is a number, as in the first steps of a loss scaler: no ground to judge on."""
    return bool((t.isnan() if t.dtype != torch.float16 else ~t.isfinite()).any())


def _difference(outputs: Sequence[Tensor], truth: Sequence[Tensor]) -> str | None:
    """What tells these results from the true ones by more than rounding, or None."""
    if [(t.shape, t.dtype) for t in outputs] != [(t.shape, t.dtype) for t in truth]:
        return "shapes or dtypes differ"
    largest = [t.masked_fill(t.isinf(), 0.0).abs().max().float() for t in truth]
    for i, (got, want) in enumerate(zip(outputs, truth, strict=True)):
        eps = max(torch.finfo(want.dtype).eps, 2**-10)  # at best TF32's, which either side may be allowed to use
        # An output may be all rounding, such as a gradient that vanishes: others tell what the rounding comes from.
        bound = eps * max(TOLERANCE * largest[i], *largest)
        error = torch.where(got == want, 0.0, got.float() - want.float()).abs()  # infinities may be equal
        if not error.max() <= bound:  # so that NaN is wrong
            return f"output {i} is off by {error.max():.3g}, allowed is {bound:.3g}"
        size = want.masked_fill(want.isinf(), 0.0).float().square().mean().sqrt()
        bound = eps * max(RMS_TOLERANCE * size, *largest)
        if not error.square().mean().sqrt() <= bound:  # a part that is wrong throughout, such as a border
            return f"output {i} is off by {error.square().mean().sqrt():.3g} on average, allowed is {bound:.3g}"
    return None


def _time_all(candidates: Sequence[Callable[[], object]]) -> list[float]:
    """Median milliseconds of each candidate, all warmed up before.

    They take turns, so that a clock that changes meets all of them. The launches are queued without a wait between
    them and the caches stay warm, as inside a model.
    """
    once = [_elapsed([candidate])[0] for candidate in candidates]
    repeats = [min(MAX_REPEATS, max(MIN_REPEATS, int(BUDGET_MS / max(ms, 1e-3)))) for ms in once]
    turns = [i for turn in range(max(repeats)) for i, number in enumerate(repeats) if turn < number]
    times: list[list[float]] = [[] for _ in candidates]
    for i, ms in zip(turns, _elapsed([candidates[i] for i in turns]), strict=True):
        times[i].append(ms)
    return [statistics.median(each) for each in times]


def _elapsed(calls: Sequence[Callable[[], object]]) -> list[float]:
    """Milliseconds on the current stream from before to after each call."""
    events = [torch.cuda.Event(enable_timing=True) for _ in range(len(calls) + 1)]
    events[0].record()
    for call, event in zip(calls, events[1:], strict=True):
        call()
        event.record()
    events[-1].synchronize()
    return [before.elapsed_time(after) for before, after in itertools.pairwise(events)]


def _choose(ms: dict[Config | None, float], dropped: dict[str, str]) -> Choice:
    reference_ms = ms.pop(None, None)
    if not ms:
        return Choice(None, None, reference_ms, dropped)
    best = min(ms, key=lambda config: ms[config])
    slower = reference_ms is not None and ms[best] > SLACK * reference_ms
    return Choice(None if slower else best, ms[best], reference_ms, dropped)
