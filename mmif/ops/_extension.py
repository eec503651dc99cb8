"""The compiled extension: finding it, loading it, and telling :mod:`mmif.ops.dispatch` which ops it has bodies for.

Loading registers C++ bodies under the schemas of ``mmif/ops``; nothing is compiled here, and no device is touched.
"""

from __future__ import annotations

import ctypes
import os
from pathlib import Path

import torch
from torch import Tensor

from mmif.ops import dispatch

_NAMED = os.environ.get("MMIF_EXTENSION")  # another build, as the tests take that of the emulation
LIBRARY: Path | None = (
    Path(_NAMED) if _NAMED else next(Path(__file__).parents[1].glob("_C*.so"), None)
)  # None: not built
BUILD = "build it with: python setup.py build_ext"
SMOOTH_BIAS_ACT = "bias_act of smooth activations"  # apart: on a CPU, exponentials are faster in PyTorch
CPU_OPS = ("bias_act", "upfirdn2d")
DEVICE_OPS = (*CPU_OPS, SMOOTH_BIAS_ACT, "modulated_conv2d", "conv_epilogue", "narrow_conv3x3", "demodulate")

cuda_build = ""  # toolkit and architectures, such as "13.0 80 90a"; "" if there is no CUDA code in the library


def load() -> None:
    """Load the library if it was built, and announce its bodies, or why there are none."""
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
    for op in CPU_OPS:
        dispatch.register_body(op, "cpu", _cpu_bias_act if op == "bias_act" else _cpu)
    if not cuda_build:
        _missing(f"the extension was built without CUDA; {BUILD} where nvcc is on PATH", "cuda")
        return
    for op in DEVICE_OPS:
        dispatch.register_body(op, "cuda", _LIMITED.get(op, _cuda))


def _missing(reason: str, *names: str) -> None:
    for name in names:
        dispatch.register_absence(name, reason)


def _elsewhere(device: str, tensors: tuple[Tensor | None, ...]) -> str | None:
    found = next((t.device for t in tensors if t is not None and t.device.type != device), None)
    return None if found is None else f"a tensor is on {found}"


def _cpu(*tensors: Tensor | None) -> str | None:
    return _elsewhere("cpu", tensors)


def _cpu_bias_act(*tensors: Tensor | None) -> str | None:
    x = tensors[0]
    if x is not None and x.dtype in (torch.float16, torch.bfloat16):
        return f"{x.dtype} is faster in PyTorch on a CPU"  # benchmarks/ops_cpu.py
    return _elsewhere("cpu", tensors)


def _cuda(*tensors: Tensor | None) -> str | None:
    return _elsewhere("cuda", tensors)


def _epilogue(*tensors: Tensor | None) -> str | None:
    y = tensors[0]
    if y is not None and y.ndim == 4 and y.shape[1] * y.element_size() % 16:
        return f"channels must fill vectors of 16 bytes, got {y.shape[1]} of {y.dtype}"
    return _elsewhere("cuda", tensors)


def _narrow_conv(*tensors: Tensor | None) -> str | None:
    x, weight = tensors[0], tensors[1] if len(tensors) > 1 else None
    if x is not None and x.dtype not in (torch.float16, torch.bfloat16):
        return f"x must be float16 or bfloat16, got {x.dtype}"
    if weight is not None and any(c % 16 or not 0 < c <= 64 for c in weight.shape[:2]):
        return f"channels must be 16, 32, 48 or 64 on either side, got weight {tuple(weight.shape)}"
    return _elsewhere("cuda", tensors)


_LIMITED = {"conv_epilogue": _epilogue, "narrow_conv3x3": _narrow_conv}
