"""Demodulation factors of many modulated convolutions at once.

Gradients: none (inference); training differentiates :func:`mmif.ops.modulated_conv2d`. Layouts: contiguous.
"""

from __future__ import annotations

import torch
from torch import Tensor

from mmif.ops import _extension, dispatch
from mmif.ops._common import in_own_dtype, largest

EPS = 1e-8  # StyleGAN2's


def demodulate(styles: Tensor, w2: Tensor, *, backend: str | None = None) -> tuple[Tensor, Tensor]:
    """Return styles inside the range of float16 and the factors that bring the output's variance to one.

    ``scaled = styles / max_i |styles|`` and ``d = rsqrt(scaled^2 @ w2^T + 1e-8)``: a constant per layer and sample
    cancels in ``d * conv(x * scaled, W)``. Layers are padded to common widths; zeros in ``w2`` hide the padding.

    Args:
        styles: ``[L, N, I]``, float32.
        w2: ``[L, O, I]``, float32: sums of the squares of the weights over their windows.
        backend: op backend; see :mod:`mmif.ops.dispatch`.

    Returns:
        ``scaled`` ``[L, N, I]`` and ``d`` ``[L, N, O]``, float32.

    Raises:
        ValueError: shapes or dtypes that do not fit together.
    """
    if styles.ndim != 3 or w2.ndim != 3 or styles.shape[0] != w2.shape[0] or styles.shape[2] != w2.shape[2]:
        raise ValueError(
            f"demodulate: styles must be [L, N, I] and w2 [L, O, I], got {tuple(styles.shape)} and {tuple(w2.shape)}"
        )
    if styles.dtype != torch.float32 or w2.dtype != torch.float32:
        raise ValueError(f"demodulate: styles and w2 must be float32, got {styles.dtype} and {w2.dtype}")
    if dispatch.choose("demodulate", styles, w2, backend=backend) == "reference":
        return demodulate_ref(styles, w2, EPS)
    return torch.ops.mmif.demodulate(styles, w2, EPS)


@in_own_dtype
def demodulate_ref(styles: Tensor, w2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    """Plain PyTorch. Same arguments as ``mmif::demodulate``."""
    scaled = styles / largest(styles, 2)
    return scaled, torch.rsqrt(torch.bmm(scaled.square(), w2.mT) + eps)


@torch.library.custom_op("mmif::demodulate", mutates_args=())
def _demodulate(styles: Tensor, w2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return demodulate_ref(styles, w2, eps)


@_demodulate.register_fake
def _fake(styles: Tensor, w2: Tensor, eps: float) -> tuple[Tensor, Tensor]:
    return styles.new_empty(styles.shape), styles.new_empty((*styles.shape[:2], w2.shape[1]))


_extension.announce("demodulate", "cuda")
