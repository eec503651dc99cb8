"""How a kernel is run: the configurations are measured once for a device, an op and a shape, then remembered.

:func:`run` is the one door. Where nothing is stored yet it runs the reference and every configuration once, drops those
that fail or that differ from the reference (compilers have bugs that only numbers show), measures the rest, and stores
the fastest; a kernel that is slower than its reference is not used. ``MMIF_TUNE=0`` measures nothing: what is stored is
used, and the first configuration where nothing is, so that two runs make the same choice.
"""

from __future__ import annotations

import functools
import itertools
import logging
import os
import statistics
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch
from torch import Tensor

from .store import Choice, Config, Key, Store, file_name, folder

__all__ = ["MAX_CONFIGS", "Config", "Key", "Specimen", "capability", "forced", "run", "verdict"]

logger = logging.getLogger(__name__)

R = TypeVar("R")

MAX_CONFIGS = 6  # of one kernel on one architecture: each is compiled and numerically tested
SLACK = 1.03  # a kernel may take this much longer than its reference before the reference is taken
RMS_TOLERANCE = 8  # the same of the root of the mean square
TOLERANCE = 32  # in units of eps times the largest magnitude: rounding stays far below, a miscompiled kernel does not
BUDGET_MS, MIN_REPEATS, MAX_REPEATS = 50, 5, 25  # of one candidate

_interpreting = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
_forced: int | None = None
_measuring = threading.RLock()  # two measurements at a time would disturb each other
_opened = functools.cache(Store)


@dataclass(frozen=True)
class Specimen:
    """A kernel as it is compiled ahead of time, without a GPU (:mod:`mmif.kernels.report`)."""

    name: str  # kernel, shape and dtype
    fn: Any  # the function under @triton.jit
    signature: dict[str, Any]  # its arguments at run time -> "*fp16", "fp32", "i32", a tuple of them, or a constant
    constexprs: dict[str, Any]  # the others, less those in config.blocks
    config: Config
    aligned: tuple[str, ...] = ()  # pointers and strides that are multiples of 16
    hot: bool = False  # must use tensor cores, and must not spill


def capability(device: torch.device) -> int:
    """Compute capability as one number, such as 80 or 90; 90 when interpreting."""
    if _interpreting:
        return 90
    major, minor = torch.cuda.get_device_capability(device)
    return 10 * major + minor


def run(
    op: str,
    key: Key,
    configs: Sequence[Config],
    launch: Callable[[Config], R],
    reference: Callable[[], R],
    device: torch.device,
) -> R:
    """Run the best known way, measuring first where nothing is known.

    Args:
        op: name of what is run; one op may run several, such as the steps of its backward.
        key: all that the choice may depend on: shapes, dtype, memory format, modes.
        configs: the candidates; the first must be a safe default.
        launch: runs the kernel in one of them; changes none of its inputs.
        reference: the same results without the kernel.
        device: where the tensors are.

    Returns:
        What ``launch`` or ``reference`` returns: a tensor or a tuple of them.
    """
    assert 0 < len(configs) <= MAX_CONFIGS, f"{op}: between 1 and {MAX_CONFIGS} configurations, got {len(configs)}"
    with torch.cuda.device(device.index if device.type == "cuda" else -1):  # -1: no device to change to
        if _forced is not None or _interpreting:
            return launch(configs[(_forced or 0) % len(configs)])
        store = _store(device)
        choice = store.get(op, key)
        if choice is None or (choice.config is not None and choice.config not in configs):
            if not _may_measure():
                return _first(op, configs[0], launch, reference)
            choice = _measure(op, key, configs, launch, reference, store)
        if choice is None:
            return reference()
        # Ours and not the one that was read, whose numbers may only be equal.
        return reference() if choice.config is None else launch(configs[configs.index(choice.config)])


def _first(op: str, config: Config, launch: Callable[[Config], R], reference: Callable[[], R]) -> R:
    """What runs where nothing was measured: the first configuration, if the device has what it needs."""
    from triton.runtime.errors import OutOfResources

    try:
        return launch(config)
    except OutOfResources as error:
        logger.warning("%s: the reference serves, since %s does not fit this device: %s", op, config, error)
        return reference()


def verdict(op: str, key: Key, device: torch.device) -> str | None:
    """Why the reference is taken in place of the kernel, as far as was measured; None: the kernel serves."""
    choice = None if _forced is not None or _interpreting else _store(device).get(op, key)
    if choice is None or choice.config is not None:
        return None
    if choice.ms is None:
        return f"no configuration of its kernel serves here ({'; '.join(sorted(set(choice.dropped.values())))})"
    return f"measured slower than the reference here ({choice.ms:.3g} ms against {choice.reference_ms:.3g} ms)"


def chosen(device: torch.device) -> dict[str, str]:
    """All that is stored for a device, for a record: op and key -> the choice in words."""
    return {" ".join(map(str, (op, *key))): _describe(choice) for (op, key), choice in _store(device).items()}


@contextmanager
def forced(index: int) -> Iterator[None]:
    """Run configuration ``index`` modulo their number, whatever was measured: for tests.

    Global and not per thread: autograd runs the backward on a thread of its own.
    """
    global _forced
    before, _forced = _forced, index
    try:
        yield
    finally:
        _forced = before


@functools.cache
def _store(device: torch.device) -> Store:
    with _measuring:  # two threads may be here at once, and one of two stores would forget
        return _opened(folder() / file_name(device))  # devices of one kind share what was measured


def _may_measure() -> bool:
    return (
        os.environ.get("MMIF_TUNE") != "0"
        and not torch.cuda.is_current_stream_capturing()
        and not torch.compiler.is_compiling()
    )


def _measure(
    op: str,
    key: Key,
    configs: Sequence[Config],
    launch: Callable[[Config], object],
    reference: Callable[[], object],
    store: Store,
) -> Choice | None:
    """Choose and store; None, and nothing is stored, where nothing can be compared."""
    with _measuring:
        known = store.get(op, key)  # another thread may have been here while this one waited
        if known is not None and (known.config is None or known.config in configs):
            return known
        candidates: dict[Config | None, Callable[[], object]] = {None: reference}
        candidates |= {config: functools.partial(launch, config) for config in configs}
        dropped = _drop_wrong(op, candidates)
        if not candidates or dropped is None:
            return None
        ms = dict(zip(candidates, _time_all(list(candidates.values())), strict=True))
        choice = _choose(ms, dropped)
        store.put(op, key, choice)
        logger.info("%s %s: %s", op, " ".join(map(str, key)), _describe(choice))
        return choice


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


def _describe(choice: Choice) -> str:
    times = [f"{name} {ms:.3g} ms" for name, ms in (("kernel", choice.ms), ("reference", choice.reference_ms)) if ms]
    lost = f"; {len(choice.dropped)} dropped" if choice.dropped else ""
    return f"{choice.config or 'reference'} ({', '.join(times)}{lost})"
