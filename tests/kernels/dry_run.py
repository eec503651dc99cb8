"""Every op with a Triton body, forward and backward, on a driver that binds and compiles its kernels and stops there.

The interpreter never sees how arguments are bound, typed and specialised for a launch; this does, without a GPU. Prints
the name of every kernel that came as far as the launch. A script: the interpreter must be off when Triton is imported.
"""

from __future__ import annotations

import torch
import triton
from triton.backends.compiler import GPUTarget
from triton.runtime.jit import JITFunction

from mmif import ops
from mmif.kernels.tuning import choose
from mmif.ops import dispatch


class CompilingDriver:
    """What Triton asks its active driver before a launch."""

    def get_current_target(self) -> GPUTarget:
        return GPUTarget("cuda", 90, 32)

    def get_current_device(self) -> int:
        return 0

    def get_current_stream(self, device: int) -> int:
        return device


bind_and_launch = JITFunction.run
bound: set[str] = set()


def bind_and_compile(self, *args, grid, warmup, **kwargs):
    """As ``warmup`` does: everything but the launch."""
    compiled = bind_and_launch(self, *args, grid=grid, warmup=True, **kwargs)
    assert compiled.asm["cubin"]
    bound.add(self.fn.__name__)
    return compiled


def randn(*shape: int) -> torch.Tensor:
    made = torch.randn(shape, dtype=torch.float16)
    made = made.contiguous(memory_format=torch.channels_last) if len(shape) == 4 else made
    return made.requires_grad_()


def main() -> None:
    """Run them all; the results are what was in the memory."""
    triton.runtime.driver.set_active(CompilingDriver())
    JITFunction.run = bind_and_compile
    dispatch._interpreted = choose._interpreting = True  # CPU tensors, the first configuration
    x, gates = randn(2, 32, 16, 16), randn(2, 64, 16, 16)
    bottleneck = (randn(64, 32, 3, 3).unflatten(0, (2, 32)), randn(2, 32), randn(32, 96, 3, 3), randn(32))
    norm = torch.ones(32), torch.zeros(32)
    with dispatch.use("triton"):
        for mode, gate in (("post", randn(2, 2, 16, 16)), ("log", randn(2, 2, 16, 16)), ("none", None)):
            ops.gated_mask_attention(x, x, x, gate, residual=x, mode=mode).sum().backward()
        ops.acb_fusion(x, gates, *bottleneck, randn(32, 32), randn(32), dilations=(1, 2)).sum().backward()
        ops.acb_fusion_code(x, x, x, *bottleneck, randn(2, 32), dilations=(1, 2)).sum().backward()
        for shape in ((2, 32, 16, 16), (3, 512)):
            ops.adaptive_norm(randn(*shape), randn(*shape), randn(*shape)).sum().backward()
        ops.gated_residual(x, x, x).sum().backward()
        with torch.no_grad():
            ops.gated_mask_attention(x, x, x, randn(2, 2, 16, 16), residual=x)
            ops.acb_fusion(
                x, gates, *bottleneck, randn(32, 32), randn(32), dilations=(1, 2), scale=norm[0], shift=norm[1]
            )
    print(*sorted(bound))


main()
