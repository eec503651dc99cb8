"""A 3x3 convolution of few channels and all that follows it in StyleGAN2's synthesis network, in one kernel.

``narrow_conv3x3(x, weight, ...)`` is ``conv_epilogue(conv2d(x, weight, padding=1), ...)``; a compiled body does not
round the convolution's result, and no memory ever holds it.

Gradients: none (inference); training uses the ops one by one. Layout: channels_last, whatever comes in.
"""

from __future__ import annotations

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.ops import _epilogue, _extension, dispatch
from mmif.ops._common import in_own_dtype
from mmif.ops._epilogue import Epilogue, ToRGB
from mmif.ops.conv_epilogue import conv_epilogue_ref


def narrow_conv3x3(
    x: Tensor,
    weight: Tensor,
    *,
    demod: Tensor | None = None,
    noise: Tensor | None = None,
    noise_strength: Tensor | None = None,
    bias: Tensor | None = None,
    skip: Tensor | None = None,
    next_styles: Tensor | None = None,
    to_rgb: ToRGB | None = None,
    resample_filter: Tensor | None = None,
    act: str = "linear",
    alpha: float | None = None,
    gain: float | None = None,
    clamp: float | None = None,
    backend: str | None = None,
) -> tuple[Tensor, Tensor | None]:
    """Convolve with stride 1 and padding 1, then run the epilogue of the layer; whatever is None is left out.

    Args:
        x: ``[N, I, H, W]``.
        weight: ``[O, I, 3, 3]`` in the dtype of ``x``.
        demod: as in :func:`mmif.ops.conv_epilogue` with the convolution's result ``[N, O, H, W]`` as ``y``, and so are
            all arguments below.
        noise: see there.
        noise_strength: see there.
        bias: see there.
        skip: see there.
        next_styles: see there.
        to_rgb: see there.
        resample_filter: see there; only ``to_rgb.prev`` needs it.
        act: see there.
        alpha: see there.
        gain: see there.
        clamp: see there.
        backend: op backend; see :mod:`mmif.ops.dispatch`. Compiled bodies take float16 and bfloat16 and 16, 32, 48 or
            64 channels on either side.

    Returns:
        As :func:`mmif.ops.conv_epilogue`.

    Raises:
        ValueError: shapes, dtypes or options that do not fit together.
    """
    if x.ndim != 4 or weight.ndim != 4 or weight.shape[1:] != (x.shape[1], 3, 3):
        raise ValueError(
            f"narrow_conv3x3: x must be [N, I, H, W] and weight [O, I, 3, 3], "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if 0 in (*x.shape[1:], weight.shape[0]):
        raise ValueError(
            f"narrow_conv3x3: x and weight must have a channel and a pixel or more, "
            f"got {tuple(x.shape)} and {tuple(weight.shape)}"
        )
    if not x.is_floating_point() or weight.dtype != x.dtype:
        raise ValueError(f"narrow_conv3x3: x and weight must share a floating dtype, got {x.dtype} and {weight.dtype}")
    epilogue = Epilogue(demod, noise, noise_strength, bias, skip, next_styles, f=resample_filter)
    epilogue = epilogue.with_activation("narrow_conv3x3", act, alpha, gain, clamp).with_to_rgb(to_rgb)
    epilogue.check("narrow_conv3x3", x.new_empty((x.shape[0], weight.shape[0], *x.shape[2:]), device="meta"))
    native = dispatch.choose("narrow_conv3x3", x, weight, *epilogue.tensors, backend=backend) != "reference"
    out, image = (torch.ops.mmif.narrow_conv3x3 if native else narrow_conv3x3_ref)(x, weight, *epilogue)
    return out, image if to_rgb else None


@in_own_dtype
def narrow_conv3x3_ref(x: Tensor, weight: Tensor, *epilogue: Any) -> tuple[Tensor, Tensor]:
    """Plain PyTorch. Same arguments as ``mmif::narrow_conv3x3``: ``epilogue`` holds the fields of ``Epilogue``."""
    return conv_epilogue_ref(F.conv2d(x, weight, padding=1), False, *epilogue)


@torch.library.custom_op(
    "mmif::narrow_conv3x3",
    mutates_args=(),
    schema=f"(Tensor x, Tensor weight, {_epilogue.SCHEMA}) -> (Tensor, Tensor)",
)
def _narrow_conv3x3(x: Tensor, weight: Tensor, *epilogue: Any) -> tuple[Tensor, Tensor]:
    out, image = narrow_conv3x3_ref(x, weight, *epilogue)
    out = out if Epilogue(*epilogue).rgb_only else out.contiguous(memory_format=torch.channels_last)
    return out, image.contiguous()


@_narrow_conv3x3.register_fake
def _fake(x: Tensor, weight: Tensor, *epilogue: Any) -> tuple[Tensor, Tensor]:
    return Epilogue(*epilogue).empty_outputs(x, (x.shape[0], weight.shape[0], *x.shape[2:]))


def _cuda_limits(x: Tensor, weight: Tensor | None = None, *_: Tensor | None) -> str | None:
    if x.dtype not in (torch.float16, torch.bfloat16):
        return f"x must be float16 or bfloat16, got {x.dtype}"
    if weight is not None and any(c % 16 or not 0 < c <= 64 for c in weight.shape[:2]):
        return f"channels must be 16, 32, 48 or 64 on either side, got weight {tuple(weight.shape)}"
    return None


_extension.announce("narrow_conv3x3", "cuda", _cuda_limits)
