"""Heads of an attention over image patches: what kernels are told of them when compiled, and how these are launched."""

# pyright: reportReturnType=false

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import torch
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


@dataclass(frozen=True)
class CutHead(Head):
    """A head and the blocks that its programs make it in: what a kernel is compiled for."""

    held: int  # tokens of a block
    at_once: int  # what streams past a block: tokens of the other side, or features where these are too many to hold
    splits: int  # programs that share the features of such a block's result

    @property
    def programs(self) -> int:
        """How many make the head of one sample."""
        return -(-self.tokens // self.held) * (1 if self.streams_keys else self.splits)


class Strides(NamedTuple):
    """Those of the images that are read as tokens, of the output and what lies as it does, and of the gates."""

    read: tuple[int, ...]
    out: tuple[int, ...]
    gate: tuple[int, ...] | None


def heads_of(q: Tensor, patch_sizes: Sequence[int], mode: str) -> list[Head]:
    """The heads of an attention over the image ``q``, the narrow ones first: their programs run longest."""
    _, c, h, w = q.shape
    ends = list(itertools.accumulate((h // p) * (w // p) for p in patch_sizes))
    common = (c // len(patch_sizes), h, w, q.stride(1) == 1, ends[-1], mode, "tf32" if _tf32(q) else "ieee")
    heads = [Head(i, first, p, *common) for i, (first, p) in enumerate(zip([0, *ends], patch_sizes, strict=False))]
    return sorted(heads, key=lambda head: head.features)


def _tf32(q: Tensor) -> bool:
    return q.dtype == torch.float32 and torch.backends.cuda.matmul.fp32_precision == "tf32"


def cut(head: Head, config: Config) -> CutHead:
    """The head in the blocks that a configuration has for its number of features."""
    blocks = dict(config.blocks)
    width = "NARROW" if head.features <= NARROW else "MIDDLE" if head.features <= STREAMED else "WIDE"
    return CutHead(**vars(head), held=blocks[f"{width}_M"], at_once=blocks[f"{width}_N"], splits=blocks["SPLITS"])


def launches(heads: Sequence[Head], config: Config, batch: int) -> Iterator[tuple[tuple[int, int], dict[str, Any]]]:
    """Two heads for each launch: its grid, and what the kernel gets by name."""
    for pair in itertools.zip_longest(heads[::2], heads[1::2]):
        first, second = (cut(head, config) if head else None for head in pair)
        programs = sum(head.programs for head in (first, second) if head)
        yield (programs, batch), {"HEAD": first, "SECOND": second, **config.options}


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


def features_at_once(heads: Sequence[Head], dtype: torch.dtype) -> int:
    """Features of a block against all tokens of a wide head: 32 KiB."""
    tokens = max((head.all_tokens for head in heads if not head.streams_keys), default=16)
    return max(16, min(64, 2**15 // (dtype.itemsize * tokens)))


def config_of(
    warps: int, stages: int, narrow: tuple[int, int], middle: tuple[int, int], wide: tuple[int, int], splits: int
) -> Config:
    """A configuration from the two sides of a block for each width of head: what it holds, and what streams past."""
    names = ("NARROW_M", "NARROW_N", "MIDDLE_M", "MIDDLE_N", "WIDE_M", "WIDE_N", "SPLITS")
    return Config(warps, stages, tuple(zip(names, (*narrow, *middle, *wide, splits), strict=True)))


DTYPES = {"fp16": torch.float16, "bf16": torch.bfloat16, "fp32": torch.float32}
SHAPES = ((256, 32), (128, 64), (64, 128))  # channels and side of the images that the model attends over
VARIANTS = (("log", "fp16", False), ("map", "fp16", True), ("none", "bf16", True), ("post", "fp32", True))


def specimens_of(
    kernel: Any,
    pointers: dict[str, Any],
    configs: Callable[[int, torch.dtype, Sequence[Head]], list[Config]],
    capability: int,
) -> Iterator[Specimen]:
    """All configurations of a kernel at the model's shapes, and the first one of other modes, dtypes and layouts.

    Args:
        kernel: the function under ``@triton.jit``.
        pointers: its arguments before ``strides``, by name.
        configs: the candidates.
        capability: of the device.
    """
    cases = [(shape, ("post", "fp16", True)) for shape in SHAPES] + [(SHAPES[2], variant) for variant in VARIANTS]
    for (channels, size), (mode, dtype, last) in cases:
        layout = torch.channels_last if last else torch.contiguous_format
        image = torch.empty((1, channels, size, size), dtype=DTYPES[dtype], device="meta", memory_format=layout)
        heads = heads_of(image, (2, 2) if mode == "map" else (2, 4), mode)
        signature: dict[str, Any] = {name: _types(fields, dtype, mode) for name, fields in pointers.items()}
        signature["strides"] = _strides(mode, last)
        candidates = configs(capability, image.dtype, heads)
        for config in candidates if (mode, dtype) == ("post", "fp16") else candidates[:1]:
            first, second = (cut(head, config) for head in heads)
            yield Specimen(
                f"{kernel.__name__} {channels}x{size}x{size} {mode} {dtype} {'channels_last' if last else 'nchw'}",
                kernel,
                signature,
                {"HEAD": first, "SECOND": second},
                config,
                tuple(signature),
                hot=dtype != "fp32",
            )


def _types(fields: Any, dtype: str, mode: str) -> tuple[str | None, ...]:
    """Images and gates at the dtype, statistics in float32, and None for what is not there."""
    absent = ("residual", *(("gate", "dgate") if mode == "none" else ()))
    types = {"stats": "*fp32", "delta": "*fp32", **dict.fromkeys(absent)}
    return tuple(types.get(name, f"*{dtype}") for name in fields._fields)


def _strides(mode: str, last: bool) -> Strides:
    """Those of images whose pixels, or whose columns, are neighbours."""
    image: Any = ("i32", 1, "i32", "i32") if last else ("i32", "i32", "i32", 1)
    gate: Any = ("i32", "i32", "i32", 1)
    return Strides(image, image, None if mode == "none" else gate)
