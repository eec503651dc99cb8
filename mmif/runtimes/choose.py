"""Which runtime runs the whole model, and why the others cannot; ``mmif.ops.dispatch`` answers the same for one op."""

from __future__ import annotations

RUNTIMES = ("eager", "compile", "onnxruntime", "tensorrt")


def why_not(name: str) -> str | None:
    """None if the runtime ``name`` is usable here, else the reason a person can act on.

    Raises:
        ValueError: no runtime has that name.
    """
    if name not in RUNTIMES:
        raise ValueError(f"a runtime must be one of {', '.join(RUNTIMES)}, got {name!r}")
    return None if name == "eager" else f"this version of mmif has no {name} runtime yet"


def table() -> list[tuple[str, str | None]]:
    """Every runtime with the reason why it is unusable, or None."""
    return [(name, why_not(name)) for name in RUNTIMES]
