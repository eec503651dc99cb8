"""One table of the registered ops with their references, sample arguments and memory layouts, for the generic tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor

from mmif.ops._attention_ref import gated_mask_attention_saved_ref
from mmif.ops._epilogue import Epilogue
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
Sample = dict[str, Any]  # arguments by name; functions make their tensors at a dtype


@dataclass(frozen=True)
class Op:
    """A registered op: its arguments ``wrt`` have gradients, ``samples`` holds arguments under the schema's names."""

    run: Callable[..., Any]
    ref: Callable[..., Any] | None  # None: a backward op, which the gradients of its forward op cover
    wrt: tuple[int, ...]
    samples: dict[str, Sample]
    dtypes: tuple[torch.dtype, ...] = DTYPES  # others are tested at float16

    def arguments(self, sample: str, dtype: torch.dtype) -> Args:
        """The arguments in the order of the schema, up to those with a default; what is left out is None."""
        dtype = dtype if dtype in self.dtypes else torch.float16
        made = {name: value(dtype) if callable(value) else value for name, value in self.samples[sample].items()}
        names = [argument.name for argument in self.run.default._schema.arguments if not argument.has_default_value()]
        assert made.keys() <= set(names), f"{sample}: {made.keys() - set(names)} is no argument of {self.run}"
        return tuple(made.get(name) for name in names)


def _randn(*shape: int) -> Callable[[torch.dtype], Tensor]:
    return lambda dtype: torch.randn(shape, dtype=torch.float64).to(dtype)


def _rand(*shape: int) -> Callable[[torch.dtype], Tensor]:
    return lambda dtype: torch.rand(shape, dtype=torch.float64).to(dtype)


def _float32(*shape: int) -> Callable[[torch.dtype], Tensor]:
    """Styles: float32 beside low precision, else the dtype under test."""
    return lambda dtype: torch.randn(shape, dtype=torch.promote_types(dtype, torch.float32))


def _bias_act(**given: Any) -> Sample:
    return {"dim": 1, "alpha": 0.0, "gain": 1.0, "clamp": -1.0} | given


def _upfirdn2d(**given: Any) -> Sample:
    return {"factors": (1, 1, 1, 1), "pads": (0, 0, 0, 0), "flip_filter": False, "gain": 1.0} | given


def _conv_epilogue(**given: Any) -> Sample:
    return {"blur": False} | Epilogue()._asdict() | given


def _narrow_conv3x3(**given: Any) -> Sample:
    return Epilogue()._asdict() | given


def _to_rgb(n: int, c: int) -> Sample:
    return {"rgb_weight": _float32(3, c), "rgb_styles": _float32(n, c), "rgb_bias": _float32(3)}


def _attention(shape: tuple[int, ...], gate: Any, **given: Any) -> Sample:
    return {"q": _randn(*shape), "k": _randn(*shape), "v": _randn(*shape), "gate": gate} | given


_separable, _square = setup_filter([1, 3, 3, 1]), setup_filter([[1, 2, 1], [0, 3, 1]])
_up2, _down2 = (2, 2, 1, 1), (1, 1, 2, 2)

OPS = {
    "bias_act": Op(
        torch.ops.mmif.bias_act,
        bias_act_ref,
        (0, 1),
        {
            "lrelu": _bias_act(x=_randn(2, 3, 5, 7), b=_randn(3), act="lrelu", alpha=0.2, gain=1.5, clamp=0.8),
            "swish_vector": _bias_act(x=_randn(5, 7), b=_randn(7), act="swish", gain=2**0.5),
            "tanh_no_bias_1x1": _bias_act(x=_randn(1, 1, 1, 1), dim=0, act="tanh", clamp=0.5),
            "linear_clamp": _bias_act(x=_randn(2, 3, 5, 7), b=_randn(3), act="linear", gain=0.5, clamp=0.45),
            "selu_last_dim": _bias_act(x=_randn(1, 2, 3, 11), b=_randn(11), dim=3, act="selu"),
            "batch0": _bias_act(x=_randn(0, 3, 4, 4), b=_randn(3), act="elu"),
            # Long enough for every vectorised kernel and its reduction.
            "vectors_planes": _bias_act(x=_randn(3, 2, 2752), b=_randn(2), act="lrelu", alpha=0.2, gain=1.5),
            "vectors_no_bias": _bias_act(x=_randn(5, 16), dim=0, act="lrelu", alpha=0.2, gain=1.5),
            "odd_no_bias": _bias_act(x=_randn(3, 5), dim=0, act="relu", gain=1.5),
            "vectors_rows": _bias_act(x=_randn(8200, 8), b=_randn(8), act="relu", gain=1.5),
        },
    ),
    "bias_act_grad": Op(
        torch.ops.mmif.bias_act_grad,
        bias_act_grad_ref,
        (0, 1, 2),
        {
            "sigmoid_2": _bias_act(
                dy=_randn(2, 3, 5, 7),
                x=_randn(2, 3, 5, 7),
                b=_randn(3),
                y=_randn(2, 3, 5, 7),
                act="sigmoid",
                clamp=0.9,
                order=2,
                bias_grad=True,
            ),
            "relu_1": _bias_act(
                dy=_randn(2, 3, 5, 7), y=_randn(2, 3, 5, 7), act="relu", gain=1.5, order=1, bias_grad=True
            ),
        },
    ),
    "upfirdn2d": Op(
        torch.ops.mmif.upfirdn2d,
        upfirdn2d_ref,
        (0,),
        {
            "up2": _upfirdn2d(x=_randn(2, 3, 5, 7), f=_separable, factors=_up2, pads=(2, 1, 2, 1), gain=4.0),
            "down2_crop": _upfirdn2d(
                x=_randn(1, 2, 7, 9), f=_square, factors=_down2, pads=(-1, 2, 2, -1), flip_filter=True
            ),
            "up3_down2": _upfirdn2d(x=_randn(1, 1, 3, 5), f=_separable, factors=(3, 1, 2, 1), pads=(2, 2, 1, 3)),
            "1x1": _upfirdn2d(x=_randn(1, 1, 1, 1), f=_separable, factors=_up2, pads=(2, 1, 2, 1), gain=4.0),
            "batch0": _upfirdn2d(x=_randn(0, 3, 5, 7), f=_separable, factors=_down2, pads=(1, 1, 1, 1)),
            "tiles_up2": _upfirdn2d(x=_randn(1, 16, 19, 69), f=_separable, factors=_up2, pads=(2, 1, 2, 1), gain=4.0),
            "tiles_down2": _upfirdn2d(x=_randn(1, 16, 38, 139), f=_separable, factors=_down2, pads=(1, 1, 1, 1)),
            "tiles_blur": _upfirdn2d(x=_randn(1, 16, 35, 70), f=_separable, pads=(2, 1, 2, 1), flip_filter=True),
        },
    ),
    "modulated_conv2d": Op(
        torch.ops.mmif.modulated_conv2d,
        modulated_conv2d_ref,
        (0, 1, 2),
        {
            "3x3": {"x": _randn(2, 3, 5, 7), "weight": _randn(4, 3, 3, 3), "styles": _float32(2, 3)}
            | {"up": 1, "demodulate": True},
            "up2": {"x": _randn(2, 3, 5, 3), "weight": _randn(2, 3, 3, 3), "styles": _float32(2, 3)}
            | {"f": _separable, "up": 2, "demodulate": True},
            "to_rgb": {"x": _randn(2, 5, 3, 3), "weight": _randn(3, 5, 1, 1), "styles": _float32(2, 5)}
            | {"up": 1, "demodulate": False},
            "styles_at_dtype": {"x": _randn(2, 3, 5, 7), "weight": _randn(4, 3, 3, 3), "styles": _randn(2, 3)}
            | {"up": 1, "demodulate": True},
            "1x1": {"x": _randn(1, 2, 1, 1), "weight": _randn(2, 2, 3, 3), "styles": _float32(1, 2)}
            | {"f": _separable, "up": 2, "demodulate": True},
            "batch0": {"x": _randn(0, 3, 5, 7), "weight": _randn(4, 3, 3, 3), "styles": _float32(0, 3)}
            | {"up": 1, "demodulate": True},
        },
    ),
    "conv_epilogue": Op(
        torch.ops.mmif.conv_epilogue,
        conv_epilogue_ref,
        (),
        {
            "layer": _conv_epilogue(
                y=_randn(2, 8, 5, 7),
                demod=_float32(2, 8),
                noise=_float32(2, 1, 5, 7),
                strength=_float32(),
                bias=_float32(8),
                skip=_randn(2, 8, 5, 7),
                next_styles=_float32(2, 8),
                act="lrelu",
                alpha=0.2,
                gain=1.5,
                clamp=0.8,
            ),
            "up_layer": _conv_epilogue(
                y=_randn(2, 16, 10, 7),
                blur=True,
                demod=_float32(2, 16),
                noise=_float32(1, 1, 9, 6),
                strength=_float32(),
                bias=_float32(16),
                skip=_randn(2, 16, 9, 6),
                next_styles=_float32(2, 16),
                f=_separable,
                act="lrelu",
                alpha=0.2,
                gain=2**0.5,
                clamp=256.0,
            ),
            "to_rgb": _conv_epilogue(
                y=_randn(2, 24, 6, 4),
                demod=_float32(2, 24),
                bias=_float32(24),
                next_styles=_float32(2, 24),
                **_to_rgb(2, 24),
                rgb_prev=_float32(2, 3, 3, 2),
                f=_separable,
                act="relu",
                rgb_clamp=0.9,
            ),
            "wide_last": _conv_epilogue(y=_randn(1, 520, 2, 3), **_to_rgb(1, 520), rgb_only=True),
            "scale_1x1": _conv_epilogue(y=_randn(1, 8, 1, 1), next_styles=_float32(1, 8)),
            "blur_2x2": _conv_epilogue(y=_randn(1, 8, 2, 2), blur=True, f=_separable),
            "batch0": _conv_epilogue(y=_randn(0, 8, 4, 4), next_styles=_float32(0, 8)),
            "no_channels": _conv_epilogue(
                y=_randn(2, 0, 4, 2), **_to_rgb(2, 0), rgb_prev=_float32(2, 3, 2, 1), f=_separable
            ),
        },
    ),
    "narrow_conv3x3": Op(
        torch.ops.mmif.narrow_conv3x3,
        narrow_conv3x3_ref,
        (),
        {
            "layer": _narrow_conv3x3(
                x=_randn(2, 32, 18, 20),
                weight=_randn(32, 32, 3, 3),
                demod=_float32(2, 32),
                noise=_float32(2, 1, 18, 20),
                strength=_float32(),
                bias=_float32(32),
                next_styles=_float32(2, 32),
                **_to_rgb(2, 32),
                rgb_prev=_float32(2, 3, 9, 10),
                f=_separable,
                act="lrelu",
                alpha=0.2,
                gain=2**0.5,
                clamp=256.0,
            ),
            "last": _narrow_conv3x3(
                x=_randn(1, 64, 3, 17),
                weight=_randn(64, 64, 3, 3),
                demod=_float32(1, 64),
                **_to_rgb(1, 64),
                act="relu",
                rgb_clamp=0.9,
                rgb_only=True,
            ),
            "skip": _narrow_conv3x3(x=_randn(1, 16, 5, 4), weight=_randn(48, 16, 3, 3), skip=_randn(1, 48, 5, 4)),
            "wide_1x1": _narrow_conv3x3(x=_randn(1, 48, 1, 1), weight=_randn(16, 48, 3, 3)),
            "batch0": _narrow_conv3x3(x=_randn(0, 16, 4, 4), weight=_randn(32, 16, 3, 3)),
        },
        dtypes=(torch.float16, torch.bfloat16),
    ),
    "demodulate": Op(
        torch.ops.mmif.demodulate,
        demodulate_ref,
        (),
        {
            "3_layers": {"styles": lambda _: torch.randn(3, 2, 40) * 1e3, "w2": lambda _: torch.rand(3, 9, 40)}
            | {"eps": 1e-8},
            "zero_styles": {"styles": torch.zeros(1, 1, 3), "w2": lambda _: torch.rand(1, 8, 3), "eps": 1e-8},
            "batch0": {"styles": torch.zeros(2, 0, 3), "w2": lambda _: torch.rand(2, 8, 3), "eps": 1e-8},
            "no_outputs": {"styles": lambda _: torch.randn(2, 3, 5) * 1e3, "w2": torch.zeros(2, 0, 5), "eps": 1e-8},
            "no_inputs": {"styles": torch.zeros(2, 3, 0), "w2": torch.zeros(2, 9, 0), "eps": 1e-8},
        },
    ),
    "gated_mask_attention": Op(
        torch.ops.mmif.gated_mask_attention,
        gated_mask_attention_saved_ref,
        (0, 1, 2, 3),
        {
            mode: _attention((2, 4, 4, 8), None if mode == "none" else _rand(2, 2, 4, 8), patch_sizes=(2, 4), mode=mode)
            for mode in ("post", "logit", "value", "log", "none")
        }
        | {
            "map": _attention((2, 4, 4, 8), _rand(2, 2, 8, 8), patch_sizes=(2, 2), mode="map"),
            "odd": _attention((1, 6, 3, 15), _rand(1, 2, 3, 15), patch_sizes=(1, 3), mode="post"),
            "1x1": _attention((1, 1, 1, 1), _rand(1, 1, 1, 1), patch_sizes=(1,), mode="post"),
            "batch0": _attention((0, 4, 4, 4), _rand(0, 2, 4, 4), patch_sizes=(2, 4), mode="log"),
        },
    ),
    "gated_mask_attention_bwd": Op(
        torch.ops.mmif.gated_mask_attention_bwd,
        None,
        (),
        {
            mode: {"dy": _randn(2, 4, 4, 8), "y": _randn(2, 4, 4, 8), "stats": _float32(2, 1, 10)}
            | _attention((2, 4, 4, 8), _rand(2, 2, 4, 8) if mode == "post" else None, patch_sizes=(2, 4), mode=mode)
            for mode in ("post", "none")
        },
    ),
    "acb_paths": Op(
        torch.ops.mmif.acb_paths,
        acb_paths_ref,
        (0, 1, 2),
        {
            "2_paths": {"x": _randn(2, 3, 5, 7), "weight": _randn(2, 2, 3, 3, 3), "bias": _randn(2, 2)}
            | {"dilations": (1, 4)},
            "2x2": {"x": _randn(1, 2, 2, 2), "weight": _randn(1, 2, 2, 3, 3), "bias": _randn(1, 2), "dilations": (1,)},
            "batch0": {"x": _randn(0, 3, 5, 7), "weight": _randn(2, 3, 3, 3, 3), "bias": _randn(2, 3)}
            | {"dilations": (1, 2)},
        },
    ),
    "acb_paths_bwd": Op(
        torch.ops.mmif.acb_paths_bwd,
        None,
        (),
        {
            "2_paths": {"dy": _randn(2, 2, 3, 5, 7), "y": _randn(2, 2, 3, 5, 7), "x": _randn(2, 4, 5, 7)}
            | {"weight": _randn(2, 3, 4, 3, 3), "dilations": (1, 4)}
        },
    ),
    "acb_blend": Op(
        torch.ops.mmif.acb_blend,
        acb_blend_ref,
        (0, 1, 2, 3, 4),
        {
            "2_paths": {"x": _randn(2, 3, 5, 7), "weight": _randn(2, 3, 3, 3, 3), "bias": _randn(2, 3)}
            | {"mix": _rand(2, 2), "gate": _rand(2, 3, 5, 7), "dilations": (1, 4)},
            "2x2": {"x": _randn(1, 2, 2, 2), "weight": _randn(1, 2, 2, 3, 3), "bias": _randn(1, 2)}
            | {"mix": _rand(1, 1), "gate": _rand(1, 2, 2, 2), "dilations": (1,)},
            "batch0": {"x": _randn(0, 3, 5, 7), "weight": _randn(2, 3, 3, 3, 3), "bias": _randn(2, 3)}
            | {"mix": _rand(0, 2), "gate": _rand(0, 3, 5, 7), "dilations": (1, 2)},
        },
    ),
    "acb_blend_bwd": Op(
        torch.ops.mmif.acb_blend_bwd,
        None,
        (),
        {
            "2_paths": {"dy": _randn(2, 3, 5, 7), "x": _randn(2, 3, 5, 7), "weight": _randn(2, 3, 3, 3, 3)}
            | {"bias": _randn(2, 3), "mix": _rand(2, 2), "gate": _rand(2, 3, 5, 7), "dilations": (1, 4)}
        },
    ),
    "acb_pool": Op(
        torch.ops.mmif.acb_pool,
        acb_pool_ref,
        (0, 1, 2, 3),
        {
            "3_paths": {"paths": _randn(2, 3, 4, 5, 7), "gates": _randn(2, 6, 5, 7)}
            | {"weight": _randn(3, 10, 3, 3), "bias": _randn(3)},
            "1x1": {"paths": _randn(1, 2, 2, 1, 1), "gates": _randn(1, 4, 1, 1)}
            | {"weight": _randn(2, 6, 3, 3), "bias": _randn(2)},
            "batch0": {"paths": _randn(0, 2, 3, 4, 4), "gates": _randn(0, 6, 4, 4)}
            | {"weight": _randn(3, 9, 3, 3), "bias": _randn(3)},
        },
    ),
    "acb_pool_bwd": Op(
        torch.ops.mmif.acb_pool_bwd,
        None,
        (),
        {
            "3_paths": {"dmean": _randn(2, 3, 5), "dpeak": _randn(2, 3, 5)}
            | {"where": lambda _: torch.randint(35, (2, 3, 5)), "paths": _randn(2, 3, 4, 5, 7)}
            | {"gates": _randn(2, 6, 5, 7), "weight": _randn(5, 10, 3, 3)}
        },
    ),
    "acb_mix": Op(
        torch.ops.mmif.acb_mix,
        acb_mix_ref,
        (0, 1, 2),
        {
            "4_paths": {"paths": _randn(2, 4, 3, 5, 7), "logits": _randn(2, 4, 3), "x": _randn(2, 3, 5, 7)},
            "1x1": {"paths": _randn(1, 1, 1, 1, 1), "logits": _randn(1, 1, 1), "x": _randn(1, 1, 1, 1)},
            "batch0": {"paths": _randn(0, 2, 3, 4, 4), "logits": _randn(0, 2, 3), "x": _randn(0, 3, 4, 4)},
        },
    ),
    "acb_mix_bwd": Op(
        torch.ops.mmif.acb_mix_bwd,
        None,
        (),
        {"3_paths": {"dy": _randn(2, 4, 5, 7), "paths": _randn(2, 3, 4, 5, 7), "logits": _randn(2, 3, 4)}},
    ),
    "adaptive_norm": Op(
        torch.ops.mmif.adaptive_norm,
        adaptive_norm_saved_ref,
        (0, 1, 2, 3),
        {
            "two_offsets": {"x": _randn(2, 3, 5, 7), "gamma": _randn(2, 3, 5, 7), "beta": _randn(2, 3, 5, 7)}
            | {"shift": _randn(2, 3, 5, 7), "eps": 1e-5},
            "vector": {"x": _randn(3, 11), "gamma": _randn(3, 11), "beta": _randn(3, 11), "eps": 1e-3},
            "one_value": {"x": _randn(2, 1, 1, 1), "gamma": _randn(2, 1, 1, 1), "beta": _randn(2, 1, 1, 1)}
            | {"eps": 1e-5},
            "batch0": {"x": _randn(0, 3, 4, 4), "gamma": _randn(0, 3, 4, 4), "beta": _randn(0, 3, 4, 4)}
            | {"shift": _randn(0, 3, 4, 4), "eps": 1e-5},
        },
    ),
    "adaptive_norm_bwd": Op(
        torch.ops.mmif.adaptive_norm_bwd,
        None,
        (),
        {
            "image": {"dy": _randn(2, 3, 5, 7), "x": _randn(2, 3, 5, 7), "gamma": _randn(2, 3, 5, 7)}
            | {"mean": _float32(2), "rstd": _float32(2)}
        },
    ),
    "gated_residual": Op(
        torch.ops.mmif.gated_residual,
        gated_residual_ref,
        (0, 1, 2),
        {
            "image": {"z": _randn(2, 3, 5, 7), "body": _randn(2, 3, 5, 7), "gate": _randn(2, 3, 5, 7)},
            "vector": {"z": _randn(13), "body": _randn(13), "gate": _randn(13)},
            "batch0": {"z": _randn(0, 3, 4, 4), "body": _randn(0, 3, 4, 4), "gate": _randn(0, 3, 4, 4)},
        },
    ),
    "gated_residual_bwd": Op(
        torch.ops.mmif.gated_residual_bwd,
        None,
        (),
        {"image": {"dy": _randn(2, 3, 5, 7), "body": _randn(2, 3, 5, 7), "gate": _randn(2, 3, 5, 7)}},
    ),
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
    return t[..., :1, :, :].expand_as(t)


LAYOUTS: dict[str, Callable[[Tensor], Tensor]] = {
    "contiguous": lambda t: t,
    "channels_last": _channels_last,
    "sliced": _sliced,
    "expanded": _expanded,
}


def make(op: str, sample: str, dtype: torch.dtype, layout: str = "contiguous") -> Args:
    """Arguments of a sample, with its images and weights (four dimensions or more) in a layout."""
    change = LAYOUTS[layout]
    values = OPS[op].arguments(sample, dtype)
    return tuple(change(v) if isinstance(v, Tensor) and v.ndim >= 4 else v for v in values)


def name_of(dtype: torch.dtype) -> str:
    """``float32`` for ``torch.float32``."""
    return str(dtype).removeprefix("torch.")
