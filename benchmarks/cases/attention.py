"""K6: gated mask-aware attention at the shapes of the mutual decoder, each stage with both heads and each head alone.

The algebra is granted to all: a gate behind the softmax is a gate on the values, so that any attention can serve.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import torch
import torch.nn.functional as F
from comparison import Case, Contest, Outputs, Setup, doubles, lazily
from torch import Tensor
from torch.nn.attention.flex_attention import flex_attention

from cases.stylegan_ops import BRAIN, FORMATS, HALF, NAMES, SINGLE, randn
from mmif.ops import gated_mask_attention
from mmif.ops._attention_ref import gated_mask_attention_ref, merge_patches, split_patches

Attention = Callable[[Tensor, Tensor, Tensor], Tensor]  # of queries, keys, values [N, L, D]
STAGES = ((256, 32), (128, 64), (64, 128))  # channels, side
BOTH = (2, 4)
PEERS = ("reference", "SDPA", "compiled SDPA", "compiled FlexAttention", "torch.compile")
GENERAL = ("reference", "torch.compile")  # what takes any gate
# images, dtype, memory format, mode, with the backward pass
FORMS = [
    *[(n, HALF, "nhwc", "post", backward) for n in (8, 1) for backward in (False, True)],
    (8, BRAIN, "nhwc", "post", False),
    (8, HALF, "nchw", "post", False),
    (8, HALF, "nhwc", "logit", False),
]


def attention_cases(quick: bool = False) -> Iterator[Case]:
    """K6: forward, and forward with backward, against what a careful user would write."""
    stages = [(8, 8)] if quick else STAGES
    forms = [(2, SINGLE, "nchw", "post", backward) for backward in (False, True)] if quick else FORMS
    for form in forms:
        for channels, side in stages:
            yield _case(channels, side, BOTH, *form)
    for channels, side in stages:  # the six heads
        for p in BOTH:
            yield _case(channels // 2, side, (p,), *forms[0])
    n, dtype, layout, _, backward = forms[0]
    for channels, side in stages[:1]:  # a gate for every pair of patches, which no other attention takes
        yield _case(channels // 2, side, BOTH[1:], n, dtype, layout, "map", backward)


def _case(
    channels: int, side: int, sizes: Sequence[int], n: int, dtype: torch.dtype, layout: str, mode: str, backward: bool
) -> Case:
    heads = "+".join(f"{(side // p) ** 2}x{channels // len(sizes) * p * p}" for p in sizes)
    name = f"attention {mode} {n}x{channels}x{side}x{side} ({heads}) {NAMES[dtype]} {layout}"
    contest = partial(_contest, (n, channels, side, side), sizes, dtype, layout, mode, backward)
    peers = GENERAL if mode == "map" else PEERS
    return Case("K6", name + (" backward" if backward else ""), dtype, ("mmif", *peers), contest)


def _contest(
    shape: tuple[int, ...],
    sizes: Sequence[int],
    dtype: torch.dtype,
    layout: str,
    mode: str,
    backward: bool,
    setup: Setup,
) -> Contest:
    q, k, v = (randn(setup, *shape, dtype=dtype, layout=layout) for _ in range(3))
    tokens = (shape[2] // sizes[0]) ** 2
    gate_size = (tokens, tokens) if mode == "map" else shape[2:]
    gate = torch.rand(shape[0], len(sizes), *gate_size, device=setup.device).to(dtype)
    tensors = (q, k, v, gate)
    cotangent = randn(setup, *shape, dtype=dtype, layout=layout) if backward else None
    ours = partial(gated_mask_attention, patch_sizes=sizes, mode=mode)
    reference = partial(gated_mask_attention_ref, residual=None, patch_sizes=sizes, mode=mode)
    functions: dict[str, Callable[..., Tensor]] = {
        "mmif": ours,
        "reference": reference,
        "SDPA": partial(by_tokens, _sdpa, sizes, mode, FORMATS[layout]),
    }
    calls: dict[str, Callable[[], Outputs]] = {
        name: partial(_run, function, tensors, cotangent) for name, function in functions.items()
    }
    missing: dict[str, str] = {}
    if setup.compile:
        whole = {
            "compiled SDPA": functions["SDPA"],
            "compiled FlexAttention": partial(by_tokens, _flex, sizes, mode, FORMATS[layout]),
            "torch.compile": reference,
        }
        for name, function in whole.items():
            calls[name] = lazily(partial(_compiled, function, tensors, cotangent))
    else:
        missing = dict.fromkeys(PEERS[2:], "--no-compile")
    n, channels, side = shape[0], shape[1] // len(sizes), shape[2]
    products = 6 if backward else 2  # q k^T and p v, two for each in the backward pass; what is made again not counted
    macs = products * n * sum((side // p) ** 4 * channels * p * p for p in sizes)
    exact = doubles(tensors)
    exact_cotangent = None if cotangent is None else cotangent.double()
    truth = partial(_run, reference, exact, exact_cotangent)
    return Contest(calls, truth, missing, inputs=(*tensors, cotangent), macs=macs)


def by_tokens(
    attention: Attention,
    sizes: Sequence[int],
    mode: str,
    memory_format: torch.memory_format,
    q: Tensor,
    k: Tensor,
    v: Tensor,
    gate: Tensor,
) -> Tensor:
    """Cut patches, attend with a function for tokens, put the patches back; modes ``post`` and ``logit``."""
    last = memory_format == torch.channels_last
    cut, paste = (_cut_last, _paste_last) if last else (split_patches, merge_patches)
    heads = []
    chunks = zip(*(t.chunk(len(sizes), 1) for t in (q, k, v, gate)), sizes, strict=True)
    for q_, k_, v_, gate_, p in chunks:
        token_gate = F.avg_pool2d(gate_, p).flatten(2).transpose(1, 2)  # [N, L, 1]
        queries, keys, values = (cut(t, p) for t in (q_, k_, v_))
        if mode == "post":
            values = values * token_gate
        else:
            keys = keys * token_gate
        tokens = attention(queries, keys, values)
        heads.append(paste(tokens, p, (q.shape[2], q.shape[3])))
    return torch.cat(heads, 1).contiguous(memory_format=memory_format)


def _sdpa(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    return F.scaled_dot_product_attention(q[:, None], k[:, None], v[:, None])[:, 0]


def _flex(q: Tensor, k: Tensor, v: Tensor) -> Tensor:
    out: Any = flex_attention(q[:, None], k[:, None], v[:, None])
    return out[:, 0]


def _cut_last(x: Tensor, p: int) -> Tensor:
    """As split_patches, with the features of a token in the order in which channels_last has them."""
    n, c, h, w = x.shape
    y = x.permute(0, 2, 3, 1).reshape(n, h // p, p, w // p, p, c).permute(0, 1, 3, 2, 4, 5)
    return y.reshape(n, (h // p) * (w // p), p * p * c)


def _paste_last(tokens: Tensor, p: int, size: tuple[int, int]) -> Tensor:
    n, (h, w), c = tokens.shape[0], size, tokens.shape[2] // (p * p)
    y = tokens.reshape(n, h // p, w // p, p, p, c).permute(0, 1, 3, 2, 4, 5)
    return y.reshape(n, h, w, c).permute(0, 3, 1, 2)


def _compiled(
    function: Callable[..., Tensor], tensors: Sequence[Tensor], cotangent: Tensor | None
) -> Callable[[], Outputs]:
    """The whole compiled, the cutting and pasting of patches included."""
    return partial(_run, torch.compile(function, dynamic=False), tensors, cotangent)


def _run(function: Callable[..., Tensor], tensors: Sequence[Tensor], cotangent: Tensor | None) -> Outputs:
    """The output; with a cotangent the gradients as well."""
    if cotangent is None:
        return function(*tensors)
    with torch.enable_grad():
        leaves = [t.detach().requires_grad_() for t in tensors]
        out = function(*leaves)
        return (out.detach(), *torch.autograd.grad(out, leaves, cotangent))
