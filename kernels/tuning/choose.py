"""Which way a kernel runs here: as it is stored, else as it is measured now.

Where nothing is stored yet :func:`run` has everything measured and stores the fastest; a kernel that is slower than its
reference is not used. ``MMIF_TUNE=0`` measures nothing: what is stored is used, and the first configuration where
nothing is, so that two runs make the same choice.
"""

from __future__ import annotations

import functools
import logging
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, TypeVar

import torch

from .measure import measured
from .store import Choice, Config, Key, Store, file_name, folder

logger = logging.getLogger(__package__)

R = TypeVar("R")

MAX_CONFIGS = 6  # of one kernel on one architecture: each is compiled and numerically tested

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
    return {" ".join(map(str, (op, *key))): choice.describe() for (op, key), choice in _store(device).items()}


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
        where = folder()
        return _opened(where and where / file_name(device))  # devices of one kind share what was measured


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
        choice = measured(op, {None: reference, **{config: functools.partial(launch, config) for config in configs}})
        if choice is not None:
            store.put(op, key, choice)
            logger.info("%s %s: %s", op, " ".join(map(str, key)), choice.describe())
        return choice
