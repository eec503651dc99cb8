"""Kernels with the faults that the report must find; prints what it finds. Triton must not interpret."""

from __future__ import annotations

import json

import triton
import triton.language as tl

from mmif.kernels import report
from mmif.kernels.tuning import Config, Specimen


@triton.jit
def matmul(x, y, out, k, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    acc = tl.zeros((BLOCK, BLOCK), tl.float32)
    for start in range(0, k, BLOCK):
        a = tl.load(x + i[:, None] * k + start + i)
        b = tl.load(y + (start + i[:, None]) * BLOCK + i)
        acc = tl.dot(a, b, acc)
    tl.store(out + i[:, None] * BLOCK + i, acc)


@triton.jit
def add(x, y, out, k, BLOCK: tl.constexpr):
    i = tl.arange(0, BLOCK)
    tl.store(out + i, tl.load(x + i) + tl.load(y + i))


@triton.jit
def mistaken(x, y, out, k, BLOCK: tl.constexpr):
    tl.store(out + tl.arange(0, BLOCK), tl.load(x + tl.arange(0, 2 * BLOCK)))


def specimen(name, fn, block, warps, stages, hot):
    signature = {"x": "*fp16", "y": "*fp16", "out": "*fp32", "k": "i32"}
    return Specimen(name, fn, signature, {}, Config(warps, stages, (("BLOCK", block),)), ("x", "y", "out", "k"), hot)


if __name__ == "__main__":
    specimens = (
        specimen("right", matmul, 64, 4, 2, hot=True),
        specimen("right but not hot", add, 64, 4, 1, hot=False),
        specimen("no tensor cores", add, 64, 4, 1, hot=True),
        specimen("spills", matmul, 128, 2, 1, hot=True),
        specimen("too much shared memory", matmul, 64, 4, 32, hot=False),
        specimen("does not compile", mistaken, 64, 4, 1, hot=False),
    )
    print(json.dumps({row.kernel: row.faults() for row in report.rows((each, 80) for each in specimens)}))
