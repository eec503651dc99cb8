"""The arguments that :mod:`mmif.ops.conv_epilogue` and :mod:`mmif.ops.narrow_conv3x3` share, and their checks."""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor

from mmif.ops._common import wide_dtype
from mmif.ops.bias_act import ACTIVATIONS

# What both schemas end with: the fields of Epilogue.
SCHEMA = (
    "Tensor? demod, Tensor? noise, Tensor? strength, Tensor? bias, Tensor? skip, Tensor? next_styles, "
    "Tensor? rgb_weight, Tensor? rgb_styles, Tensor? rgb_bias, Tensor? rgb_prev, Tensor? f, "
    "str act, float alpha, float gain, float clamp, float rgb_clamp, bool rgb_only"
)


class ToRGB(NamedTuple):
    """The toRGB layer that reads the epilogue's result, and the image of the resolution below."""

    weight: Tensor  # [3, C]
    styles: Tensor  # [N, C], with the weight's own scale
    bias: Tensor  # [3]
    prev: Tensor | None  # [N, 3, H / 2, W / 2]
    clamp: float | None = None
    last: bool = False  # nothing reads the epilogue's own output: it is not written


class Epilogue(NamedTuple):
    """What follows a convolution, as the registered ops take it: ``op(..., *epilogue)``."""

    demod: Tensor | None = None
    noise: Tensor | None = None
    strength: Tensor | None = None
    bias: Tensor | None = None
    skip: Tensor | None = None
    next_styles: Tensor | None = None
    rgb_weight: Tensor | None = None
    rgb_styles: Tensor | None = None
    rgb_bias: Tensor | None = None
    rgb_prev: Tensor | None = None
    f: Tensor | None = None
    act: str = "linear"
    alpha: float = 0.0
    gain: float = 1.0
    clamp: float = -1.0  # below zero: none
    rgb_clamp: float = -1.0
    rgb_only: bool = False

    @property
    def tensors(self) -> tuple[Tensor | None, ...]:
        """Those that are given, and None."""
        return tuple(value for value in self if value is None or isinstance(value, Tensor))

    def with_activation(
        self, op: str, act: str, alpha: float | None, gain: float | None, clamp: float | None
    ) -> Epilogue:
        """The same with an activation, whose own slope and gain None stands for.

        Raises:
            ValueError: no epilogue has this activation.
        """
        spec = ACTIVATIONS.get(act)
        if spec is None or not spec.piecewise_linear:
            raise ValueError(f"{op}: act must be linear, relu or lrelu, got {act!r}")
        return self._replace(
            act=act,
            alpha=spec.alpha if alpha is None else float(alpha),
            gain=spec.gain if gain is None else float(gain),
            clamp=-1.0 if clamp is None else float(clamp),
        )

    def with_to_rgb(self, to_rgb: ToRGB | None) -> Epilogue:
        """The same in front of a toRGB layer."""
        if to_rgb is None:
            return self
        return self._replace(
            rgb_weight=to_rgb.weight,
            rgb_styles=to_rgb.styles,
            rgb_bias=to_rgb.bias,
            rgb_prev=to_rgb.prev,
            rgb_clamp=-1.0 if to_rgb.clamp is None else float(to_rgb.clamp),
            rgb_only=to_rgb.last,
        )

    def check(self, op: str, y: Tensor, blur: bool = False) -> None:
        """Raise ValueError unless all tensors fit ``y``, which is filtered first if ``blur``."""
        if y.ndim != 4 or not y.is_floating_point() or 0 in y.shape[2:]:
            raise ValueError(
                f"{op}: y must be floating point [N, C, H, W] with a pixel or more, got {y.dtype} {tuple(y.shape)}"
            )
        if blur and min(y.shape[2:]) < 2:
            raise ValueError(f"{op}: y must be at least 2x2 to be filtered, got {tuple(y.shape)}")
        if (self.noise is None) != (self.strength is None):
            raise ValueError(f"{op}: noise and noise_strength must be given together")
        if (blur or self.rgb_prev is not None) and self.f is None:
            raise ValueError(f"{op}: a resample_filter must be given where something is filtered")
        n, c, height, width = y.shape[0], y.shape[1], y.shape[2] - int(blur), y.shape[3] - int(blur)
        noise_n = 1 if self.noise is not None and self.noise.shape[:1] == (1,) else n
        small = wide_dtype(y)
        expected = (
            ("demod", self.demod, (n, c), small),
            ("noise", self.noise, (noise_n, 1, height, width), small),
            ("noise_strength", self.strength, (), small),
            ("bias", self.bias, (c,), small),
            ("skip", self.skip, (n, c, height, width), y.dtype),
            ("next_styles", self.next_styles, (n, c), small),
            ("to_rgb.weight", self.rgb_weight, (3, c), small),
            ("to_rgb.styles", self.rgb_styles, (n, c), small),
            ("to_rgb.bias", self.rgb_bias, (3,), small),
            ("to_rgb.prev", self.rgb_prev, (n, 3, height / 2, width / 2), small),
            ("resample_filter", self.f, (4,), torch.float32),
        )
        for name, t, shape, dtype in expected:
            if t is not None and (t.shape != shape or t.dtype != dtype):
                raise ValueError(f"{op}: {name} must be {dtype} {shape}, got {t.dtype} {tuple(t.shape)}")

    def empty_outputs(self, y: Tensor, shape: tuple[int, ...]) -> tuple[Tensor, Tensor]:
        """Empty ``out`` of ``shape``, channels_last, and image, in the dtypes that belong to ``y``."""
        n, _, height, width = shape
        image_shape = (n, 3, height, width) if self.rgb_weight is not None else (0,)
        image = y.new_empty(image_shape, dtype=wide_dtype(y))
        if self.rgb_only:
            return y.new_empty(0), image
        return torch.empty(shape, dtype=y.dtype, device=y.device, memory_format=torch.channels_last), image
