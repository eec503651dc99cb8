"""Image patches as tokens, addressed where they lie: what the attention kernels share.

Token i of a head with patches of P x P pixels is the patch in row ``i // (W / P)`` and column ``i % (W / P)``. Its
features are numbered such that neighbours lie side by side in memory: (channel, dy, dx), or (dy, dx, channel) where
the channels of a pixel are neighbours. A dot product does not care. Strides are those of the image, or of the gates.
"""

# pyright: reportArgumentType=false, reportAttributeAccessIssue=false, reportGeneralTypeIssues=false
# pyright: reportOperatorIssue=false

from __future__ import annotations

import triton
import triton.language as tl

LOG2E, LN2 = tl.constexpr(1.4426950408889634), tl.constexpr(0.6931471805599453)
INF = tl.constexpr(float("inf"))


@triton.constexpr_function
def divides(block, size):
    """Whether blocks fill ``size`` without a rest."""
    return size % block == 0


@triton.jit
def run_head(BODY: tl.constexpr, inputs, outputs, strides, HEAD: tl.constexpr, SECOND: tl.constexpr):
    """Run BODY for the head that this program belongs to: the first programs make HEAD, the others SECOND."""
    block = tl.program_id(0)
    if SECOND is None:
        BODY(block, inputs, outputs, strides, HEAD)
    elif block < HEAD.programs:
        BODY(block, inputs, outputs, strides, HEAD)
    else:
        BODY(block - HEAD.programs, inputs, outputs, strides, SECOND)


@triton.jit
def part(block, HEAD: tl.constexpr):
    """First feature, and the one behind the last, of the part of the output that this program makes."""
    WIDTH: tl.constexpr = (HEAD.features + HEAD.splits * HEAD.at_once - 1) // (HEAD.splits * HEAD.at_once)
    start = block % HEAD.splits * (WIDTH * HEAD.at_once)
    return start, tl.minimum(start + WIDTH * HEAD.at_once, HEAD.features)


@triton.jit
def image_of(x, strides, HEAD: tl.constexpr):
    """Where the channels of the head begin in this program's sample."""
    return x + tl.program_id(1).to(tl.int64) * strides[0] + HEAD.index * HEAD.channels * strides[1]


@triton.jit
def gate_of(gate, strides, HEAD: tl.constexpr):
    """Where the gates of the head begin in this program's sample."""
    return gate + tl.program_id(1).to(tl.int64) * strides[0] + HEAD.index * strides[1]


@triton.jit
def row_of(x, ROWS: tl.constexpr, HEAD: tl.constexpr):
    """Where the numbers of the head begin in this program's sample of ``x`` [N, ROWS, tokens of all heads]."""
    return x + tl.program_id(1).to(tl.int64) * (ROWS * HEAD.tokens_of_all) + HEAD.first


@triton.jit
def starts(tokens, strides, HEAD: tl.constexpr):
    """Offset of the first pixel of each patch."""
    COLUMNS: tl.constexpr = HEAD.width // HEAD.patch
    return (tokens // COLUMNS) * (HEAD.patch * strides[2]) + (tokens % COLUMNS) * (HEAD.patch * strides[3])


@triton.jit
def places(tokens, d, strides, HEAD: tl.constexpr):
    """Offsets and mask of features ``d`` of ``tokens``."""
    P: tl.constexpr = HEAD.patch
    if HEAD.by_pixel:
        pixel = d // HEAD.channels
        channel, dy, dx = d % HEAD.channels, pixel // P, pixel % P
    else:
        channel, dy, dx = d // (P * P), d // P % P, d % P
    offsets = starts(tokens, strides, HEAD)[:, None] + (channel * strides[1] + dy * strides[2] + dx * strides[3])[None]
    return offsets, (tokens < HEAD.tokens)[:, None] & (d < HEAD.features)[None]


@triton.jit
def load_tokens(x, tokens, d, strides, HEAD: tl.constexpr):
    """Features ``d`` of ``tokens``, 0 outside."""
    offsets, mask = places(tokens, d, strides, HEAD)
    return tl.load(x + offsets, mask=mask, other=0.0)


@triton.jit
def store_tokens(x, value, tokens, d, strides, HEAD: tl.constexpr):
    """Round ``value`` and store it as features ``d`` of ``tokens``."""
    offsets, mask = places(tokens, d, strides, HEAD)
    tl.store(x + offsets, value.to(x.dtype.element_ty), mask=mask)


@triton.jit
def load_gate(gate, queries, keys, strides, HEAD: tl.constexpr):
    """The gate in float32, to be broadcast against [queries, keys]: of each pair, or the mean over each key's patch."""
    if HEAD.mode == "none":
        return tl.full([1, 1], 1.0, tl.float32)
    elif HEAD.mode == "map":
        offsets, mask = pairs(queries, keys, strides, HEAD)
        return tl.load(gate + offsets, mask=mask, other=0.0).to(tl.float32)
    else:
        P: tl.constexpr = HEAD.patch
        total = tl.zeros([keys.shape[0]], tl.float32)
        for first in range(0, P * P, HEAD.pixels):
            pixel = first + tl.arange(0, HEAD.pixels)
            offsets = (pixel // P * strides[2] + pixel % P * strides[3])[:, None] + starts(keys, strides, HEAD)[None]
            mask = (pixel < P * P)[:, None] & (keys < HEAD.tokens)[None]
            total += tl.sum(tl.load(gate + offsets, mask=mask, other=0.0).to(tl.float32), 0)
        return (total / (P * P))[None]


@triton.jit
def store_gate_gradient(dgate, value, keys, strides, HEAD: tl.constexpr):
    """The gradient of each key's mean gate: every pixel of its patch has the same share."""
    P: tl.constexpr = HEAD.patch
    share = (value / (P * P)).to(dgate.dtype.element_ty)
    for pixel in range(P * P):
        offsets = starts(keys, strides, HEAD) + (pixel // P * strides[2] + pixel % P * strides[3])
        tl.store(dgate + offsets, share, mask=keys < HEAD.tokens)


@triton.jit
def pairs(queries, keys, strides, HEAD: tl.constexpr):
    """Offsets and mask in a map with an entry for every pair of tokens."""
    offsets = queries[:, None] * strides[2] + keys[None] * strides[3]
    return offsets, (queries < HEAD.tokens)[:, None] & (keys < HEAD.tokens)[None]
