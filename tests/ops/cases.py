"""One table of the registered ops with their references, sample arguments and memory layouts, for the generic tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmif.ops._attention_ref import gated_mask_attention_saved_ref
from mmif.ops.acb_mix import acb_mix_ref
from mmif.ops.acb_paths import acb_blend_ref, acb_paths_ref
from mmif.ops.acb_pool import acb_pool_ref
from mmif.ops.adaptive_norm import adaptive_norm_saved_ref
from mmif.ops.bias_act import bias_act_grad_ref, bias_act_ref
from mmif.ops.conv_epilogue import conv_epilogue_ref
from mmif.ops.demodulate import demodulate_ref
from mmif.ops.gated_residual import gated_residual_ref
from mmif.ops.modulated_conv2d import modulated_conv2d_ref
from mmif.ops.narrow_conv3x3 import narrow_conv3x3_ref
from mmif.ops.upfirdn2d import setup_filter, upfirdn2d_ref

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
Args = tuple[Any, ...]


@dataclass(frozen=True)
class Op:
    """A registered op: its arguments ``wrt`` have gradients, ``samples`` maps a name to arguments at a dtype."""

    run: Callable[..., Any]
    ref: Callable[..., Any] | None  # None: a backward op, which the gradients of its forward op cover
    wrt: tuple[int, ...]
    samples: dict[str, Callable[[torch.dtype], Args]]


def _randn(*shape: int) -> Callable[[torch.dtype], Tensor]:
    return lambda dtype: torch.randn(shape, dtype=torch.float64).to(dtype)


def _rand(*shape: int) -> Callable[[torch.dtype], Tensor]:
    return lambda dtype: torch.rand(shape, dtype=torch.float64).to(dtype)


def _float32(*shape: int) -> Callable[[torch.dtype], Tensor]:
    """Styles: float32 beside low precision, else the dtype under test."""
    return lambda dtype: torch.randn(shape, dtype=torch.promote_types(dtype, torch.float32))


def _args(*values: Any) -> Callable[[torch.dtype], Args]:
    """Arguments at a dtype; the functions among ``values`` make the tensors."""
    return lambda dtype: tuple(value(dtype) if callable(value) else value for value in values)


def _args16(*values: Any) -> Callable[[torch.dtype], Args]:
    """The same for an op that takes 16-bit types only: float16 in place of wider ones."""
    make = _args(*values)
    return lambda dtype: make(dtype if dtype.itemsize == 2 else torch.float16)


_separable, _square = setup_filter([1, 3, 3, 1]), setup_filter([[1, 2, 1], [0, 3, 1]])
_up2 = (2, 2, 1, 1)
_LINEAR = ("linear", 0.0, 1.0, -1.0, -1.0, False)

OPS = {
    "bias_act": Op(
        torch.ops.mmif.bias_act,
        bias_act_ref,
        (0, 1),
        {
            "lrelu": _args(_randn(2, 3, 5, 7), _randn(3), 1, "lrelu", 0.2, 1.5, 0.8),
            "swish_vector": _args(_randn(5, 7), _randn(7), 1, "swish", 0.0, 2**0.5, -1.0),
            "tanh_no_bias_1x1": _args(_randn(1, 1, 1, 1), None, 0, "tanh", 0.0, 1.0, 0.5),
            "selu_last_dim": _args(_randn(1, 2, 3, 11), _randn(11), 3, "selu", 0.0, 1.0, -1.0),
            "batch0": _args(_randn(0, 3, 4, 4), _randn(3), 1, "elu", 0.0, 1.0, -1.0),
            # Long enough for every vectorised kernel and its reduction.
            "vectors_planes": _args(_randn(3, 2, 2752), _randn(2), 1, "lrelu", 0.2, 1.5, -1.0),
            "vectors_no_bias": _args(_randn(5, 16), None, 0, "lrelu", 0.2, 1.5, -1.0),
            "odd_no_bias": _args(_randn(3, 5), None, 0, "relu", 0.0, 1.5, -1.0),
            "vectors_rows": _args(_randn(8200, 8), _randn(8), 1, "relu", 0.0, 1.5, -1.0),
        },
    ),
    "bias_act_grad": Op(
        torch.ops.mmif.bias_act_grad,
        bias_act_grad_ref,
        (0, 1, 2),
        {
            "sigmoid_2": _args(
                _randn(2, 3, 5, 7),
                _randn(2, 3, 5, 7),
                _randn(3),
                _randn(2, 3, 5, 7),
                1,
                "sigmoid",
                0.0,
                1.0,
                0.9,
                2,
                True,
            ),
            "relu_1": _args(_randn(2, 3, 5, 7), None, None, _randn(2, 3, 5, 7), 1, "relu", 0.0, 1.5, -1.0, 1, True),
        },
    ),
    "upfirdn2d": Op(
        torch.ops.mmif.upfirdn2d,
        upfirdn2d_ref,
        (0,),
        {
            "up2": _args(_randn(2, 3, 5, 7), _separable, _up2, (2, 1, 2, 1), False, 4.0),
            "down2_crop": _args(_randn(1, 2, 7, 9), _square, (1, 1, 2, 2), (-1, 2, 2, -1), True, 1.0),
            "up3_down2": _args(_randn(1, 1, 3, 5), _separable, (3, 1, 2, 1), (2, 2, 1, 3), False, 1.0),
            "1x1": _args(_randn(1, 1, 1, 1), _separable, _up2, (2, 1, 2, 1), False, 4.0),
            "batch0": _args(_randn(0, 3, 5, 7), _separable, (1, 1, 2, 2), (1, 1, 1, 1), False, 1.0),
            "tiles_up2": _args(_randn(1, 16, 19, 69), _separable, _up2, (2, 1, 2, 1), False, 4.0),
            "tiles_down2": _args(_randn(1, 16, 38, 139), _separable, (1, 1, 2, 2), (1, 1, 1, 1), False, 1.0),
            "tiles_blur": _args(_randn(1, 16, 35, 70), _separable, (1, 1, 1, 1), (2, 1, 2, 1), True, 1.0),
        },
    ),
    "modulated_conv2d": Op(
        torch.ops.mmif.modulated_conv2d,
        modulated_conv2d_ref,
        (0, 1, 2),
        {
            "3x3": _args(_randn(2, 3, 5, 7), _randn(4, 3, 3, 3), _float32(2, 3), None, 1, True),
            "up2": _args(_randn(2, 3, 5, 3), _randn(2, 3, 3, 3), _float32(2, 3), _separable, 2, True),
            "to_rgb": _args(_randn(2, 5, 3, 3), _randn(3, 5, 1, 1), _float32(2, 5), None, 1, False),
            "styles_at_dtype": _args(_randn(2, 3, 5, 7), _randn(4, 3, 3, 3), _randn(2, 3), None, 1, True),
            "1x1": _args(_randn(1, 2, 1, 1), _randn(2, 2, 3, 3), _float32(1, 2), _separable, 2, True),
            "batch0": _args(_randn(0, 3, 5, 7), _randn(4, 3, 3, 3), _float32(0, 3), None, 1, True),
        },
    ),
    "conv_epilogue": Op(
        torch.ops.mmif.conv_epilogue,
        conv_epilogue_ref,
        (),
        {
            "layer": _args(
                *(_randn(2, 8, 5, 7), _float32(2, 8), _float32(2, 1, 5, 7), _float32(), _float32(8)),
                *(_randn(2, 8, 5, 7), _float32(2, 8), None, None, None, None, None),
                *(False, "lrelu", 0.2, 1.5, 0.8, -1.0, False),
            ),
            "up_layer": _args(
                *(_randn(2, 16, 10, 7), _float32(2, 16), _float32(1, 1, 9, 6), _float32(), _float32(16)),
                *(_randn(2, 16, 9, 6), _float32(2, 16), None, None, None, None, _separable),
                *(True, "lrelu", 0.2, 2**0.5, 256.0, -1.0, False),
            ),
            "to_rgb": _args(
                *(_randn(2, 24, 6, 4), _float32(2, 24), None, None, _float32(24), None, _float32(2, 24)),
                *(_float32(3, 24), _float32(2, 24), _float32(3), _float32(2, 3, 3, 2), _separable),
                *(False, "relu", 0.0, 1.0, -1.0, 0.9, False),
            ),
            "wide_last": _args(
                *(_randn(1, 520, 2, 3), None, None, None, None, None, None),
                *(_float32(3, 520), _float32(1, 520), _float32(3), None, None),
                *(False, "linear", 0.0, 1.0, -1.0, -1.0, True),
            ),
            "scale_1x1": _args(_randn(1, 8, 1, 1), *[None] * 5, _float32(1, 8), *[None] * 5, False, *_LINEAR),
            "blur_2x2": _args(_randn(1, 8, 2, 2), *[None] * 10, _separable, True, *_LINEAR),
            "batch0": _args(_randn(0, 8, 4, 4), *[None] * 5, _float32(0, 8), *[None] * 5, False, *_LINEAR),
        },
    ),
    "narrow_conv3x3": Op(
        torch.ops.mmif.narrow_conv3x3,
        narrow_conv3x3_ref,
        (),
        {
            "layer": _args16(
                *(_randn(2, 32, 18, 20), _randn(32, 32, 3, 3), _float32(2, 32), _float32(2, 1, 18, 20), _float32()),
                *(_float32(32), None, _float32(2, 32), _float32(3, 32), _float32(2, 32), _float32(3)),
                *(_float32(2, 3, 9, 10), _separable, "lrelu", 0.2, 2**0.5, 256.0, -1.0, False),
            ),
            "last": _args16(
                *(_randn(1, 64, 3, 17), _randn(64, 64, 3, 3), _float32(1, 64), *[None] * 5),
                *(_float32(3, 64), _float32(1, 64), _float32(3), None, None, "relu", 0.0, 1.0, -1.0, 0.9, True),
            ),
            "skip": _args16(
                *(_randn(1, 16, 5, 4), _randn(48, 16, 3, 3), *[None] * 4, _randn(1, 48, 5, 4), *[None] * 6, *_LINEAR)
            ),
            "wide_1x1": _args16(_randn(1, 48, 1, 1), _randn(16, 48, 3, 3), *[None] * 11, *_LINEAR),
            "batch0": _args16(_randn(0, 16, 4, 4), _randn(32, 16, 3, 3), *[None] * 11, *_LINEAR),
        },
    ),
    "demodulate": Op(
        torch.ops.mmif.demodulate,
        demodulate_ref,
        (),
        {
            "3_layers": lambda _: (torch.randn(3, 2, 40) * 1e3, torch.rand(3, 9, 40), 1e-8),
            "zero_styles": lambda _: (torch.zeros(1, 1, 3), torch.rand(1, 8, 3), 1e-8),
            "batch0": lambda _: (torch.zeros(2, 0, 3), torch.rand(2, 8, 3), 1e-8),
        },
    ),
    "gated_mask_attention": Op(
        torch.ops.mmif.gated_mask_attention,
        gated_mask_attention_saved_ref,
        (0, 1, 2, 3),
        {
            mode: _args(*[_randn(2, 4, 4, 8)] * 3, None if mode == "none" else _rand(2, 2, 4, 8), None, (2, 4), mode)
            for mode in ("post", "logit", "value", "log", "none")
        }
        | {
            "map": _args(*[_randn(2, 4, 4, 8)] * 3, _rand(2, 2, 8, 8), None, (2, 2), "map"),
            "odd": _args(*[_randn(1, 6, 3, 15)] * 3, _rand(1, 2, 3, 15), None, (1, 3), "post"),
            "1x1": _args(*[_randn(1, 1, 1, 1)] * 3, _rand(1, 1, 1, 1), None, (1,), "post"),
            "batch0": _args(*[_randn(0, 4, 4, 4)] * 3, _rand(0, 2, 4, 4), None, (2, 4), "log"),
        },
    ),
    "gated_mask_attention_bwd": Op(
        torch.ops.mmif.gated_mask_attention_bwd,
        None,
        (),
        {
            "post": _args(
                *[_randn(2, 4, 4, 8)] * 2,
                _float32(2, 1, 10),
                *[_randn(2, 4, 4, 8)] * 3,
                _rand(2, 2, 4, 8),
                (2, 4),
                "post",
            ),
            "none": _args(
                *[_randn(2, 4, 4, 8)] * 2, _float32(2, 1, 10), *[_randn(2, 4, 4, 8)] * 3, None, (2, 4), "none"
            ),
        },
    ),
    "acb_paths": Op(
        torch.ops.mmif.acb_paths,
        acb_paths_ref,
        (0, 1, 2),
        {
            "2_paths": _args(_randn(2, 3, 5, 7), _randn(2, 2, 3, 3, 3), _randn(2, 2), (1, 4)),
            "2x2": _args(_randn(1, 2, 2, 2), _randn(1, 2, 2, 3, 3), _randn(1, 2), (1,)),
            "batch0": _args(_randn(0, 3, 5, 7), _randn(2, 3, 3, 3, 3), _randn(2, 3), (1, 2)),
        },
    ),
    "acb_paths_bwd": Op(
        torch.ops.mmif.acb_paths_bwd,
        None,
        (),
        {"2_paths": _args(*[_randn(2, 2, 3, 5, 7)] * 2, _randn(2, 4, 5, 7), _randn(2, 3, 4, 3, 3), (1, 4))},
    ),
    "acb_blend": Op(
        torch.ops.mmif.acb_blend,
        acb_blend_ref,
        (0, 1, 2, 3, 4),
        {
            "2_paths": _args(
                _randn(2, 3, 5, 7), _randn(2, 3, 3, 3, 3), _randn(2, 3), _rand(2, 2), _rand(2, 3, 5, 7), (1, 4)
            ),
            "2x2": _args(_randn(1, 2, 2, 2), _randn(1, 2, 2, 3, 3), _randn(1, 2), _rand(1, 1), _rand(1, 2, 2, 2), (1,)),
            "batch0": _args(
                _randn(0, 3, 5, 7), _randn(2, 3, 3, 3, 3), _randn(2, 3), _rand(0, 2), _rand(0, 3, 5, 7), (1, 2)
            ),
        },
    ),
    "acb_blend_bwd": Op(
        torch.ops.mmif.acb_blend_bwd,
        None,
        (),
        {
            "2_paths": _args(
                *[_randn(2, 3, 5, 7)] * 2, _randn(2, 3, 3, 3, 3), _randn(2, 3), _rand(2, 2), _rand(2, 3, 5, 7), (1, 4)
            )
        },
    ),
    "acb_pool": Op(
        torch.ops.mmif.acb_pool,
        acb_pool_ref,
        (0, 1, 2, 3),
        {
            "3_paths": _args(_randn(2, 3, 4, 5, 7), _randn(2, 6, 5, 7), _randn(3, 10, 3, 3), _randn(3)),
            "1x1": _args(_randn(1, 2, 2, 1, 1), _randn(1, 4, 1, 1), _randn(2, 6, 3, 3), _randn(2)),
            "batch0": _args(_randn(0, 2, 3, 4, 4), _randn(0, 6, 4, 4), _randn(3, 9, 3, 3), _randn(3)),
        },
    ),
    "acb_pool_bwd": Op(
        torch.ops.mmif.acb_pool_bwd,
        None,
        (),
        {
            "3_paths": _args(
                *[_randn(2, 3, 5)] * 2,
                lambda _: torch.randint(35, (2, 3, 5)),
                _randn(2, 3, 4, 5, 7),
                _randn(2, 6, 5, 7),
                _randn(5, 10, 3, 3),
            )
        },
    ),
    "acb_mix": Op(
        torch.ops.mmif.acb_mix,
        acb_mix_ref,
        (0, 1, 2),
        {
            "4_paths": _args(_randn(2, 4, 3, 5, 7), _randn(2, 4, 3), _randn(2, 3, 5, 7)),
            "1x1": _args(_randn(1, 1, 1, 1, 1), _randn(1, 1, 1), _randn(1, 1, 1, 1)),
            "batch0": _args(_randn(0, 2, 3, 4, 4), _randn(0, 2, 3), _randn(0, 3, 4, 4)),
        },
    ),
    "acb_mix_bwd": Op(
        torch.ops.mmif.acb_mix_bwd,
        None,
        (),
        {"3_paths": _args(_randn(2, 4, 5, 7), _randn(2, 3, 4, 5, 7), _randn(2, 3, 4))},
    ),
    "adaptive_norm": Op(
        torch.ops.mmif.adaptive_norm,
        adaptive_norm_saved_ref,
        (0, 1, 2, 3),
        {
            "two_offsets": _args(*[_randn(2, 3, 5, 7)] * 4, 1e-5),
            "vector": _args(*[_randn(3, 11)] * 3, None, 1e-3),
            "one_value": _args(*[_randn(2, 1, 1, 1)] * 3, None, 1e-5),
            "batch0": _args(*[_randn(0, 3, 4, 4)] * 4, 1e-5),
        },
    ),
    "adaptive_norm_bwd": Op(
        torch.ops.mmif.adaptive_norm_bwd,
        None,
        (),
        {"image": _args(*[_randn(2, 3, 5, 7)] * 3, *[_float32(2)] * 2)},
    ),
    "gated_residual": Op(
        torch.ops.mmif.gated_residual,
        gated_residual_ref,
        (0, 1, 2),
        {
            "image": _args(*[_randn(2, 3, 5, 7)] * 3),
            "vector": _args(*[_randn(13)] * 3),
            "batch0": _args(*[_randn(0, 3, 4, 4)] * 3),
        },
    ),
    "gated_residual_bwd": Op(torch.ops.mmif.gated_residual_bwd, None, (), {"image": _args(*[_randn(2, 3, 5, 7)] * 3)}),
}


def _channels_last(t: Tensor) -> Tensor:
    return t.movedim(-3, -1).contiguous().movedim(-1, -3)


def _sliced(t: Tensor) -> Tensor:
    """Every second column of a wider tensor."""
    wide = t.new_full((*t.shape[:-1], 2 * t.shape[-1]), float("nan"))
    wide[..., ::2] = t
    return wide[..., ::2]


def _expanded(t: Tensor) -> Tensor:
    """Stride 0 along the channels: other values, of course."""
    return t.select(-3, 0).unsqueeze(-3).expand_as(t)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "channels_last": _channels_last,
    "sliced": _sliced,
    "expanded": _expanded,
}


def make(op: str, sample: str, dtype: torch.dtype, layout: str = "contiguous") -> Args:
    """Arguments of a sample, with its images and weights (four dimensions or more) in a layout."""
    change = LAYOUTS[layout]
    values = OPS[op].samples[sample](dtype)
    return tuple(change(v) if isinstance(v, Tensor) and v.ndim >= 4 else v for v in values)


def name_of(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
