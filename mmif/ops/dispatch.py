"""The one place that chooses which body runs an op, and says why.

An *op backend* runs one op (``reference | cpu | cuda | triton``; ``cpu`` and ``cuda`` are the two halves of the
compiled extension); what runs a whole model is a *runtime* and chosen in ``mmif.runtimes``. ``auto`` picks the first
usable backend and says once why the faster ones were passed over; an explicit request that cannot be met raises
:class:`BackendUnavailable`.

Order of precedence for an op: its ``backend=`` argument, then :func:`use` in the same thread, then the environment
variable ``MMIF_BACKEND`` (read at import), then ``auto``. :func:`use` and the variable speak for a whole model: an op
that the backend has no body for is served as in ``auto``; one whose body turns its tensors down raises. While a model
is being exported the reference is always taken, so that an exported graph holds standard operators only. Under
forward-mode differentiation and the transforms of ``torch.func``, which no registered op follows, ``auto`` takes the
reference, too.
"""

from __future__ import annotations

import importlib.util
import logging
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.autograd import forward_ad

logger = logging.getLogger(__name__)

OP_BACKENDS = ("cuda", "triton", "cpu", "reference")  # fastest first: the order in which auto tries


class BackendUnavailable(RuntimeError):
    """An op backend was asked for by name and cannot serve; the message says why."""


@dataclass(frozen=True, slots=True)
class Body:
    """A compiled body of one op.

    ``supports`` returns None, or why these tensors cannot be taken; ``advice``, asked in ``auto`` only, why they should
    not be.
    """

    supports: Callable[..., str | None]
    advice: Callable[..., str | None] = lambda *_, **__: None


_bodies: dict[tuple[str, str], Body] = {}  # (op, backend) -> body, filled by the modules that own compiled code
_absent: dict[str, str] = {}  # backend -> why none of its bodies could be registered
_at_start = os.environ.get("MMIF_BACKEND", "auto")
# As Triton reads it. Its kernels then run on the CPU, slowly: for tests.
_interpreted = os.environ.get("TRITON_INTERPRET", "").lower() in ("1", "true", "yes", "on", "y")
_told: set[tuple[str, str]] = set()


class _Choice(threading.local):
    """The backend in force, in each thread by itself: ADR 0010. ``torch.compile`` guards on it."""

    def __init__(self) -> None:
        self.backend = _at_start  # in every thread: what only the class has is not guarded on


_in_force = _Choice()


def register_body(op: str, backend: str, *answers: Callable[..., str | None]) -> None:
    """Announce that ``backend`` has a compiled body for ``op``.

    ``answers``, the fields of :class:`Body`, get the tensors and facts of :func:`choose`.
    """
    _check_name(backend)
    _bodies[op, backend] = Body(*answers)


def register_absence(backend: str, reason: str) -> None:
    """Announce why ``backend`` has no bodies here, in words that a person can act on."""
    _check_name(backend)
    _absent[backend] = reason


@contextmanager
def use(backend: str | None) -> Iterator[None]:
    """Force one op backend inside a ``with`` block; ``auto`` lifts an outer choice, None leaves it as it is.

    It speaks for the thread that runs the block: not for others, not even for those that are started inside.
    """
    before = _in_force.backend
    if backend is not None:
        _check_name(backend)
        _in_force.backend = backend
    try:
        yield
    finally:
        _in_force.backend = before


def require(backend: str | None) -> None:
    """Check, before any work, that an op backend can serve; None: the one in force.

    Raises:
        BackendUnavailable: it cannot run here, whatever the op.
        ValueError: no backend has that name.
    """
    name = _in_force.backend if backend is None else backend
    _check_name(name)
    reason = None if name == "auto" else why_not(name)
    if reason is not None:
        raise BackendUnavailable(f"backend {name!r} cannot run: {reason}; use auto")


def choose(op: str, *tensors: Tensor | None, backend: str | None = None, **facts: Any) -> str:
    """Return the name of the backend that runs ``op`` on ``tensors``.

    Args:
        op: name of the op.
        tensors: its tensors.
        backend: the one asked for by name, or None.
        facts: what a body must know beside the tensors, such as the patch sizes of an attention.

    Raises:
        BackendUnavailable: a backend was asked for by name and cannot take this call.
        ValueError: no backend has that name.
    """
    if exporting():
        return "reference"
    wanted = _in_force.backend if backend is None else backend
    missing = not_followed(tensors)
    if missing is not None:
        if wanted in ("auto", "reference"):
            return "reference"
        raise BackendUnavailable(f"{op}: backend {wanted!r} has no {missing}; use backend='reference'")
    if wanted == "auto":
        return _auto(op, tensors, facts)
    _check_name(wanted)
    if backend is None and why_not(wanted) is None and wanted != "reference" and (op, wanted) not in _bodies:
        # Forced for the whole model: an op that no kernel was ever written for in this backend is served as in auto.
        _tell_once(op, f"{op}: {wanted} has no body for it")
        return _auto(op, tensors, facts)
    reason = None if wanted == "reference" else _why_not_op(op, wanted, tensors, facts)
    if reason is not None:
        raise BackendUnavailable(f"{op}: backend {wanted!r} cannot run: {reason}; use backend='auto' to fall back")
    return wanted


def exporting() -> bool:
    """True while torch.export traces, strict or not.

    The flag and not ``torch.compiler.is_exporting()``, which the dynamo of torch 2.11 folds to True in every graph.
    """
    return torch.compiler._is_exporting_flag


def not_followed(tensors: Iterable[Tensor | None]) -> str | None:
    """What is being done with ``tensors`` that no registered op follows and every reference does, or None.

    A registered op would drop a forward-mode tangent without a word; ``torch.func`` cannot see its backward pass.
    """
    if not torch.compiler.is_compiling():
        if any(t is not None and forward_ad.unpack_dual(t).tangent is not None for t in tensors):
            return "forward-mode gradients"
    return "transforms of torch.func" if torch._C._are_functorch_transforms_active() else None


def _auto(op: str, tensors: tuple[Tensor | None, ...], facts: dict[str, Any]) -> str:
    for name in OP_BACKENDS[:-1]:
        if (op, name) not in _bodies:
            continue
        body = _bodies[op, name]
        # The tensors first: they tell without asking the machine, which torch.compile could not trace.
        reason = body.supports(*tensors, **facts) or _why_not_in_auto(name) or body.advice(*tensors, **facts)
        if reason is None:
            return name
        _tell_once(op, f"{op}: {name} passed over: {reason}")
    return "reference"


def _why_not_in_auto(backend: str) -> str | None:
    if backend == "triton" and _interpreted:
        return "the interpreter is for tests, ask for triton by name"
    return why_not(backend)


def _why_not_op(op: str, backend: str, tensors: tuple[Tensor | None, ...], facts: dict[str, Any]) -> str | None:
    body = _bodies.get((op, backend))
    if body is None:
        return why_not(backend) or f"it has no body for {op}"
    return why_not(backend) or body.supports(*tensors, **facts)


def _tell_once(op: str, message: str) -> None:
    if not torch.compiler.is_compiling() and (op, message) not in _told:
        _told.add((op, message))
        logger.info(message)


def _check_name(backend: str, known: tuple[str, ...] = ("auto", *OP_BACKENDS)) -> None:
    if backend not in known:
        raise ValueError(f"backend must be one of {', '.join(known)}; got {backend!r}")


def why_not(name: str) -> str | None:
    """None if the op backend ``name`` is usable here, else the reason a person can act on."""
    if name == "reference":
        return None
    _check_name(name, OP_BACKENDS)
    if not any(backend == name for _, backend in _bodies):
        return _absent.get(name, f"this version of mmif ships no {name} kernels")
    runs_on_cpu = name == "cpu" or (name == "triton" and _interpreted)
    return None if runs_on_cpu or torch.cuda.is_available() else "no CUDA device is visible to torch"


def table() -> list[tuple[str, str | None]]:
    """Every op backend with the reason why it is unusable, or None."""
    return [(name, why_not(name)) for name in OP_BACKENDS]


def describe() -> str:
    """One phrase for the first line of a command's output, for example ``ops reference``."""
    usable = [name for name in OP_BACKENDS if why_not(name) is None]
    return f"ops {usable[0] if _in_force.backend == 'auto' else _in_force.backend}"


def interpreted() -> bool:
    """True if Triton kernels run in its interpreter, on the CPU (TRITON_INTERPRET=1 when Python started)."""
    return _interpreted


def installed(module: str) -> bool:
    """True if ``module`` can be imported, without importing it."""
    return importlib.util.find_spec(module) is not None
