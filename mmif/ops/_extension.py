"""The compiled extension: finding it, loading it, and telling :mod:`mmif.ops.dispatch` of its bodies.

An op that the extension has a body for says so with :func:`announce`, in its own file. :func:`load`, called behind the
last of them, registers the C++ bodies under the schemas of ``mmif/ops``; nothing is compiled here, and no device is
touched.
"""

from __future__ import annotations

import ctypes
import functools
import os
from collections.abc import Callable
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor

from mmif.ops import dispatch

_NAMED = os.environ.get("MMIF_EXTENSION")  # another build, as the tests take that of the emulation
LIBRARY: Path | None = (
    Path(_NAMED) if _NAMED else next(Path(__file__).parents[1].glob("_C*.so"), None)
)  # None: not built
BUILD = "build it with: python setup.py build_ext"

cuda_build = ""  # toolkit and architectures, such as "13.0 80 90a"; "" if there is no CUDA code in the library


class Announced(NamedTuple):
    """A body that the library has if it was built with the backend's half."""

    op: str
    backend: str  # "cpu" or "cuda", also the type of the device where its tensors must be
    limits: Callable[..., str | None] | None


announced: list[Announced] = []


def announce(op: str, backend: str, limits: Callable[..., str | None] | None = None) -> None:
    """Tell of a body in the library; ``limits(*tensors)`` adds reasons of its own to pass it over."""
    announced.append(Announced(op, backend, limits))


def load() -> None:
    """Load the library if it was built, and register what was announced, or why there is nothing."""
    global cuda_build
    if LIBRARY is None:
        _missing(f"the extension is not built; {BUILD}", "cpu", "cuda")
        return
    try:
        torch.ops.load_library(LIBRARY)
    except OSError as error:
        _missing(f"{LIBRARY.name} does not load ({' '.join(str(error).split())}); {BUILD}", "cpu", "cuda")
        return
    describe = ctypes.CDLL(str(LIBRARY)).mmif_cuda_build
    describe.restype = ctypes.c_char_p
    cuda_build = describe().decode()
    if not cuda_build:
        _missing(f"the extension was built without CUDA; {BUILD} where nvcc is on PATH", "cuda")
    for body in announced:
        if body.backend == "cpu" or cuda_build:
            dispatch.register_body(body.op, body.backend, functools.partial(_supports, body))


def _missing(reason: str, *names: str) -> None:
    for name in names:
        dispatch.register_absence(name, reason)


def _supports(body: Announced, *tensors: Tensor | None) -> str | None:
    reason = body.limits(*tensors) if body.limits else None
    elsewhere = next((t.device for t in tensors if t is not None and t.device.type != body.backend), None)
    if reason is None and elsewhere is not None:
        reason = f"this backend needs tensors on {body.backend}; one is on {elsewhere}"
    return reason
