"""The encoder of celebahq-256 as a caller sees it: what the attention and bottleneck kernels are worth end to end."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from comparison import Case, Contest, Outputs, Setup, lazily
from torch import Tensor

from cases.stylegan_ops import HALF, NAMES, SINGLE
from mmif import from_preset
from mmif.config import EncoderConfig
from mmif.model.encoder import Conditions, EncoderOutput, MultimodalGuidedEncoder
from mmif.ops import dispatch

PRESET, TINY = "celebahq-256", "scenes-128"
BATCHES = (1, 8)
CONTENDERS = ("mmif", "reference", "mmif torch.compile", "torch.compile")


def encoder_cases(quick: bool = False) -> Iterator[Case]:
    """Ours and the references, eager and compiled with CUDA graphs; channels_last, autocast to float16."""
    config, dtype = from_preset(TINY if quick else PRESET).encoder, SINGLE if quick else HALF
    for n in (1,) if quick else BATCHES:
        name = f"encoder {TINY if quick else PRESET} {n}x3x{config.resolution}x{config.resolution} {NAMES[dtype]}"
        yield Case("encoder", name, dtype, CONTENDERS, partial(_contest, config, n, dtype))


def _contest(config: EncoderConfig, n: int, dtype: torch.dtype, setup: Setup) -> Contest:
    encoder = MultimodalGuidedEncoder(config).eval().requires_grad_(False)
    encoder = encoder.to(setup.device, memory_format=torch.channels_last)  # pyright: ignore[reportCallIssue] - no overload
    given = _conditions(config, n, setup)

    def call(run: Callable[[Conditions], EncoderOutput], backend: str) -> Outputs:
        with dispatch.use(backend), torch.autocast(setup.device, dtype, enabled=dtype != SINGLE):
            features = run(given).features
            return [t.clone() for t in features]  # the next replay of a graph overwrites its own

    def compiled(backend: str) -> Callable[[], Outputs]:
        fast = torch.compile(encoder, mode="reduce-overhead", dynamic=False)
        return lambda: call(fast, backend)

    calls: dict[str, Callable[[], Outputs]] = {
        "mmif": partial(call, encoder, "auto"),
        "reference": partial(call, encoder, "reference"),
    }
    missing: dict[str, str] = {}
    if setup.compile:
        calls["mmif torch.compile"] = lazily(partial(compiled, "auto"))
        calls["torch.compile"] = lazily(partial(compiled, "reference"))
    else:
        missing = dict.fromkeys(("mmif torch.compile", "torch.compile"), "--no-compile")
    return Contest(calls, partial(_truth, encoder, given), missing, images=n, alone=True)


def _conditions(config: EncoderConfig, n: int, setup: Setup) -> Conditions:
    side = config.resolution

    def rand(channels: int) -> Tensor:
        return torch.rand(n, channels, side, side, device=setup.device)

    hole = (rand(1) < 0.4).float()
    label = torch.randint(config.num_classes, (n, side, side), device=setup.device)
    seg = torch.nn.functional.one_hot(label, config.num_classes).movedim(3, 1).float()
    edge = (rand(1) < 0.1).float()
    known = 1 - hole
    return Conditions((2 * rand(3) - 1) * known, hole, edge * known, hole, seg * known, hole)


def _truth(encoder: MultimodalGuidedEncoder, given: Conditions) -> Outputs:
    double = copy.deepcopy(encoder).double()
    with dispatch.use("reference"):
        return double(Conditions(*(t.double() for t in given))).features
