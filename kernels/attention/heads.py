"""Heads of an attention over image patches: what kernels are told of them when compiled, and how these are launched."""

# pyright: reportReturnType=false

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
import triton
from torch import Tensor

from ..tuning import Config, Specimen

LARGE = (80, 90, 100, 103)  # compute capabilities whose blocks may have 163 KiB of shared memory or more
NARROW, STREAMED = 256, 512  # features of a token: what a kernel holds on chip, and its blocks, depend on them


def _power_of_two(size: int) -> int:
    """The next one."""
    return 1 << (size - 1).bit_length()


@dataclass(frozen=True)
class Head:
    """All that is known of one head when its kernel is compiled. No tuple: Triton 3.6 forgets the names of a tuple."""

    index: int  # among the heads
    first: int  # its first token among those of all heads
    patch: int
    channels: int
    height: int
    width: int
    by_pixel: bool  # features in the order (dy, dx, channel)
    tokens_of_all: int  # tokens of all heads together
    mode: str
    precision: str  # of products of float32

    @property
    def tokens(self) -> int:
        """Number of patches."""
        return (self.height // self.patch) * (self.width // self.patch)

    @property
    def features(self) -> int:
        """Numbers in a token."""
        return self.channels * self.patch * self.patch

    @property
    def streams_keys(self) -> bool:
        """Whether a token is narrow enough to be held whole while the other side of the scores streams past."""
        return self.features <= STREAMED

    @property
    def all_features(self) -> int:
        """Features as a power of two that a matrix product takes."""
        return max(16, _power_of_two(self.features))

    @property
    def all_tokens(self) -> int:
        """Tokens as a power of two that a matrix product takes."""
        return max(16, _power_of_two(self.tokens))

    @property
    def scale(self) -> float:
        """Of the scores."""
        return self.features**-0.5

    @property
    def gates_keys(self) -> bool:
        """Whether the gate is one number for each key."""
        return self.mode in ("post", "logit", "log")

    @property
    def rows(self) -> int:
        """Of the statistics."""
        return 2 if self.mode == "log" else 1

    @property
    def pixels(self) -> int:
        """Pixels of a patch whose gates are averaged at a time."""
        return min(16, _power_of_two(self.patch * self.patch))


@triton.constexpr_function
def side(head, narrow, middle, wide):
    """The side of a block that suits the features of a head."""
    return narrow if head.features <= NARROW else middle if head.features <= STREAMED else wide


@triton.constexpr_function
def programs(head, rows, splits):
    """How many programs make a head, each of them ``rows`` tokens; wide heads are also split by features."""
    return -(-head.tokens // rows) * (1 if head.streams_keys else splits)


def heads_of(q: Tensor, patch_sizes: Sequence[int], mode: str) -> list[Head]:
    """The heads of an attention over the image ``q``, the narrow ones first: their programs run longest."""
    _, c, h, w = q.shape
    ends = list(itertools.accumulate((h // p) * (w // p) for p in patch_sizes))
    common = (c // len(patch_sizes), h, w, q.stride(1) == 1, ends[-1], mode, "tf32" if _tf32(q) else "ieee")
    heads = [Head(i, first, p, *common) for i, (first, p) in enumerate(zip([0, *ends], patch_sizes, strict=False))]
    return sorted(heads, key=lambda head: head.features)


def _tf32(q: Tensor) -> bool:
    return q.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"


def in_twos(heads: Sequence[Head]) -> Iterator[tuple[Head, Head | None]]:
    """Two heads for each launch."""
    return itertools.zip_longest(heads[::2], heads[1::2])


def key_of(q: Tensor, patch_sizes: Sequence[int], mode: str) -> tuple[str | int, ...]:
    """What the speed of an attention depends on. Mode ``value`` is ``none`` with other values."""
    layout = "channels_last" if q.stride(1) == 1 else "nchw" if q.stride(3) == 1 else "strided"
    dtype = f"{q.dtype}".removeprefix("torch.") + ("_tf32" if _tf32(q) else "")
    return (*q.shape, dtype, layout, "x".join(map(str, patch_sizes)), "none" if mode == "value" else mode)


def dense_format(x: Tensor) -> torch.memory_format:
    """channels_last if the image ``x`` is dense in it and has more than one channel, else contiguous."""
    last = x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)
    return torch.channels_last if last else torch.contiguous_format


def aligned(*images: Tensor) -> tuple[Tensor, ...]:
    """The images with the strides of the first, copied where they are not or where an offset would not fit 32 bits."""
    first = images[0]
    span = sum((size - 1) * stride for size, stride in zip(first.shape[1:], first.stride()[1:], strict=True))
    if span < 2**31 and all(t.stride() == first.stride() for t in images):
        return images
    return tuple(t.contiguous(memory_format=dense_format(first)) for t in images)


def by_heads(image: Tensor, gate: Tensor) -> Tensor:
    """``image`` times the gate of each head, pixel by pixel."""
    return image * gate.repeat_interleave(image.shape[1] // gate.shape[1], 1)


def grid_of(head: Head, second: Head | None, config: Config, batch: int) -> tuple[int, int]:
    """Programs of one launch: those of its heads, for each sample."""
    blocks = dict(config.blocks)
    rows = (blocks["BLOCK_M"], blocks["MID_M"], blocks["WIDE_M"])
    count = sum(programs(each, side(each, *rows), blocks["SPLITS"]) for each in (head, second) if each)
    return count, batch


def features_at_once(heads: Sequence[Head], dtype: torch.dtype) -> int:
    """Features of a block against all tokens of a wide head: 32 KiB."""
    tokens = max((head.all_tokens for head in heads if not head.streams_keys), default=16)
    return max(16, min(64, 2**15 // (dtype.itemsize * tokens)))


def config_of(
    warps: int, stages: int, narrow: tuple[int, int], middle: tuple[int, int], wide: tuple[int, int], splits: int
) -> Config:
    """A configuration from the two sides of a block for each width of head; see the arguments of the kernels."""
    names = ("BLOCK_M", "BLOCK_N", "MID_M", "MID_N", "WIDE_M", "WIDE_D", "SPLITS")
    return Config(warps, stages, tuple(zip(names, (*narrow, *middle, *wide, splits), strict=True)))


DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SHAPES = ((256, 32), (128, 64), (64, 128))  # channels and side of the images that the model attends over
VARIANTS = (("log", "fp16", False), ("map", "fp16", True), ("none", "bf16", True), ("post", "fp32", True))


def specimens_of(
    name: str, kernel: Any, configs: Callable[[int, torch.dtype, Sequence[Head]], list[Config]], capability: int
) -> Iterator[Specimen]:
    """All configurations of a kernel at the model's shapes, and the first one of other modes, dtypes and layouts."""
    cases = [(shape, ("post", "fp16", True)) for shape in SHAPES] + [(SHAPES[2], variant) for variant in VARIANTS]
    for (channels, size), (mode, dtype, last) in cases:
        layout = torch.channels_last if last else torch.contiguous_format
        image = torch.empty((1, channels, size, size), dtype=DTYPES[dtype], device="meta", memory_format=layout)
        heads = heads_of(image, (2, 2) if mode == "map" else (2, 4), mode)
        candidates = configs(capability, image.dtype, heads)
        for config in candidates if (mode, dtype) == ("post", "fp16") else candidates[:1]:
            yield Specimen(
                f"{name} {channels}x{size}x{size} {mode} {dtype} {'channels_last' if last else 'nchw'}",
                kernel,
                signature := _signature(kernel, dtype),
                constexprs := _constexprs(kernel, heads, last),
                config,
                tuple(argument for argument in signature if argument not in constexprs),
                hot=dtype != "fp32",
            )


def _signature(kernel: Any, dtype: str) -> dict[str, str]:
    """Images and gates at the dtype, statistics in float32, strides."""
    types = {"stats": "*fp32", "delta": "*fp32"}
    names = [name for name in kernel.arg_names if not name.isupper()]
    return {name: types.get(name, "i32" if "_" in name else f"*{dtype}") for name in names}


def _constexprs(kernel: Any, heads: Sequence[Head], last: bool) -> dict[str, Any]:
    """What is known when the kernel is compiled, strides of 1 among it."""
    known: dict[str, Any] = {"HEAD": heads[0], "SECOND": heads[1], "residual": None, "gate_w": 1}
    known |= dict.fromkeys(("q_c", "y_c") if last else ("q_w", "y_w"), 1)
    known |= {"gate": None} if heads[0].mode == "none" else {}
    return {name: value for name, value in known.items() if name in kernel.arg_names}
