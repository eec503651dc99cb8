"""Kernels of ``mmif::gated_residual``, element by element; everything between load and store is float32."""

# Triton types a launch as a call of the kernel, which has constexpr where the launch has numbers.
# pyright: reportArgumentType=false

from __future__ import annotations

from collections.abc import Callable, Iterator

import torch
import triton
import triton.language as tl
from torch import Tensor

from .tuning import Config, Key, Specimen, run

CONFIGS = tuple(Config(warps, 1, (("BLOCK", block),)) for warps, block in ((4, 1024), (4, 2048), (8, 4096)))


@triton.jit
def add_gated(z, body, gate, y, size, BLOCK: tl.constexpr):
    """``y = z + body * sigmoid(gate)``; all [size]."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    opening = tl.sigmoid(tl.load(gate + i, mask=mask).to(tl.float32))
    value = tl.load(z + i, mask=mask).to(tl.float32) + tl.load(body + i, mask=mask).to(tl.float32) * opening
    tl.store(y + i, value.to(y.dtype.element_ty), mask=mask)


@triton.jit
def add_gated_grads(dy, body, gate, dbody, dgate, size, BLOCK: tl.constexpr):
    """``dbody = dy * s`` and ``dgate = dy * body * s * (1 - s)`` with ``s = sigmoid(gate)``; all [size]."""
    i = tl.program_id(0).to(tl.int64) * BLOCK + tl.arange(0, BLOCK)
    mask = i < size
    opening = tl.sigmoid(tl.load(gate + i, mask=mask).to(tl.float32))
    passed = tl.load(dy + i, mask=mask).to(tl.float32) * opening
    tl.store(dbody + i, passed.to(dbody.dtype.element_ty), mask=mask)
    slope = tl.load(body + i, mask=mask).to(tl.float32) * (1 - opening)
    tl.store(dgate + i, (passed * slope).to(dgate.dtype.element_ty), mask=mask)


def forward(z: Tensor, body: Tensor, gate: Tensor, *, key: Key, reference: Callable[[], Tensor]) -> Tensor:
    """``z + body * sigmoid(gate)``; the tensors are dense, all in one memory format."""

    def launch(config: Config) -> Tensor:
        y = torch.empty_like(z)
        add_gated[_grid(z, config)](z, body, gate, y, z.numel(), **config.kwargs)
        return y

    return run("gated_residual", key, CONFIGS, launch, reference, z.device)


def backward(
    dy: Tensor, body: Tensor, gate: Tensor, *, reference: Callable[[], tuple[Tensor, Tensor]]
) -> tuple[Tensor, Tensor]:
    """Gradients with respect to body and gate; the tensors are dense, all in one memory format."""

    def launch(config: Config) -> tuple[Tensor, Tensor]:
        dbody, dgate = torch.empty_like(body), torch.empty_like(gate)
        add_gated_grads[_grid(dy, config)](dy, body, gate, dbody, dgate, dy.numel(), **config.kwargs)
        return dbody, dgate

    return run("gated_residual", ("backward", dy.numel(), str(dy.dtype)), CONFIGS, launch, reference, dy.device)


def _grid(x: Tensor, config: Config) -> tuple[int]:
    return (-(-x.numel() // config.kwargs["BLOCK"]),)


def specimens(capability: int) -> Iterator[Specimen]:
    """Both kernels: every configuration in float16, the first in the other dtypes too."""
    for kernel in (add_gated, add_gated_grads):
        for i, config in enumerate(CONFIGS):
            for dtype in ("fp16", "bf16", "fp32") if i == 0 else ("fp16",):
                pointers = tuple(arg for arg in kernel.arg_names if arg not in ("size", "BLOCK"))
                types = {**dict.fromkeys(pointers, f"*{dtype}"), "size": "i32"}
                yield Specimen(f"{kernel.__name__} {dtype}", kernel, types, {}, config, (*pointers, "size"))
