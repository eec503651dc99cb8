"""Which runtime runs the whole model, and why the others cannot; ``mmif.ops.dispatch`` answers the same for one op."""

from __future__ import annotations

from collections.abc import Callable, Mapping


def _to_come(name: str) -> Callable[[], str]:
    return lambda: f"this version of mmif has no {name} runtime yet"


# Each runtime with its probe: None if it is usable here, else the reason a person can act on. The first usable runs.
RUNTIMES: Mapping[str, Callable[[], str | None]] = {
    "eager": lambda: None,
    "compile": _to_come("compile"),
    "onnxruntime": _to_come("onnxruntime"),
    "tensorrt": _to_come("tensorrt"),
}


def choose() -> str:
    """The runtime that a model runs in where nobody asks for another: the first that is usable here."""
    return next(name for name in RUNTIMES if why_not(name) is None)


def why_not(name: str) -> str | None:
    """None if the runtime ``name`` is usable here, else the reason.

    Raises:
        ValueError: no runtime has that name.
    """
    if name not in RUNTIMES:
        raise ValueError(f"a runtime must be one of {', '.join(RUNTIMES)}, got {name!r}")
    return RUNTIMES[name]()


def table() -> list[tuple[str, str | None]]:
    """Every runtime with the reason why it is unusable, or None."""
    return [(name, probe()) for name, probe in RUNTIMES.items()]
