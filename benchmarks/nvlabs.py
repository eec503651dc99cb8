"""NVIDIA's own StyleGAN ops, imported from a checkout that the user has: the contender that K2 names.

Nothing of them is in this repository, and their licence is non-commercial. Their plugins compile when they are first
used, with nvcc and ninja.
"""

from __future__ import annotations

import functools
import importlib
import sys
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

from torch import Tensor


@dataclass(frozen=True, slots=True)
class Ops:
    """``torch_utils.ops`` of a checkout, their plugins compiled."""

    upfirdn2d_module: ModuleType
    bias_act_module: ModuleType

    def upfirdn2d(
        self, x: Tensor, taps: list[float], up: int, down: int, padding: tuple[int, int, int, int], gain: float
    ) -> Tensor:
        module = self.upfirdn2d_module
        f = module.setup_filter(taps, device=x.device)
        return module.upfirdn2d(x, f, up=up, down=down, padding=list(padding), gain=gain, impl="cuda")

    def bias_act(self, x: Tensor, b: Tensor, act: str, gain: float, clamp: float) -> Tensor:
        return self.bias_act_module.bias_act(x, b, act=act, gain=gain, clamp=clamp, impl="cuda")


@functools.cache
def load(folder: Path | None) -> Ops | str:
    """The ops of the checkout in ``folder``, or why they cannot be measured."""
    if folder is None:
        return "no checkout of stylegan3 or stylegan2-ada-pytorch was given (--nvlabs)"
    if not (folder / "torch_utils" / "ops").is_dir():
        return f"{folder} holds no torch_utils/ops"
    sys.path.insert(0, str(folder))
    try:
        modules = [importlib.import_module(f"torch_utils.ops.{name}") for name in ("upfirdn2d", "bias_act")]
        # Asked for themselves: one of the two repositories falls back to slow PyTorch code without an error.
        slow = [module.__name__ for module in modules if not module._init()]
    except Exception as error:  # foreign code that compiles: whatever goes wrong is the reason
        return f"the plugins of {folder.name} do not build: {' '.join(str(error).split())[:200]}"
    finally:
        sys.path.remove(str(folder))
    return f"the plugins {', '.join(slow)} did not build" if slow else Ops(*modules)
