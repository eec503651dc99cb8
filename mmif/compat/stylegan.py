"""MMIF's ops under the signatures of StyleGAN code, and :func:`patch`, which swaps them in a loaded network.

The functions are those of NVlabs' ``torch_utils.ops`` (stylegan2-ada-pytorch, stylegan3) and their networks;
:mod:`mmif.compat.rosinality` has those of rosinality's ``op``, where ``upfirdn2d`` means another signature.
``impl="ref"`` asks for the plain PyTorch reference, ``impl="cuda"`` for the fastest body at hand. Gradients: any order;
three for ``bias_act``.
"""

from __future__ import annotations

from torch import Tensor, nn

from mmif import ops
from mmif.compat import conv2d_gradfix, patching, rosinality
from mmif.compat.convolution import conv2d_resample, modulated_conv2d
from mmif.compat.resampling import backend, downsample2d, filter2d, setup_filter, upfirdn2d, upsample2d
from mmif.compat.rosinality import FusedLeakyReLU, fused_leaky_relu

__all__ = [
    "FusedLeakyReLU",
    "bias_act",
    "conv2d_gradfix",
    "conv2d_resample",
    "downsample2d",
    "filter2d",
    "fused_leaky_relu",
    "modulated_conv2d",
    "patch",
    "rosinality",
    "setup_filter",
    "upfirdn2d",
    "upsample2d",
]


def bias_act(
    x: Tensor,
    b: Tensor | None = None,
    dim: int = 1,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    impl: str = "cuda",
) -> Tensor:
    """Return ``clamp(gain * act(x + b))``; see :func:`mmif.ops.bias_act`."""
    return ops.bias_act(x, b, dim=dim, act=act, alpha=alpha, gain=gain, clamp=clamp, backend=backend("bias_act", impl))


_SWAPPED = (
    *(bias_act, upfirdn2d, filter2d, upsample2d, downsample2d, conv2d_resample, modulated_conv2d),
    *(rosinality.upfirdn2d, fused_leaky_relu),
)


def patch(module: nn.Module) -> patching.Patch:
    """Swap our ops into the code of a loaded network; leaving its block, or ``undo()``, swaps them back.

    What is swapped are entries of Python modules: networks that share their code share the swap.

    Args:
        module: a network of NVlabs' or rosinality's classes, or one with such networks inside.

    Returns:
        What was swapped; printing it gives one line for each function.

    Raises:
        ValueError: the code uses none of the ops.
    """
    return patching.swap(module, _SWAPPED)
