"""Parameters and multiply-accumulates of every part of a model, counted by running it once."""

from __future__ import annotations

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from mmif.config import ModelConfig
from mmif.model.mminvertfill import MMInvertFill

PARTS = (
    "encoder.backbone",
    "encoder.bottlenecks",
    "encoder.decoder",
    "map2style",
    "map2structure",
    "premodulation",
    "rgb_branch",
    "generator.mapping",
    "generator.synthesis",
)


def measure(config: ModelConfig) -> list[tuple[str, int, int]]:
    """Return (part, parameters, multiply-accumulates of one photograph) for every part, the total last.

    Convolutions and matrix products are counted, at the sizes they run at; an up-convolution at its input's. Nothing
    is counted for the mapping network: it is not run for a photograph.
    """
    model = MMInvertFill(config).eval().requires_grad_(False)
    side = config.resolution
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model(torch.zeros(1, 3, side, side), torch.ones(1, 1, side, side))
    flops = {name: sum(ops.values()) for name, ops in counter.get_flop_counts().items()}
    rows = [(part, _parameters(model, part), _flops(flops, part) // 2) for part in PARTS if _parameters(model, part)]
    return [*rows, ("total", sum(p.numel() for p in model.parameters()), flops["Global"] // 2)]


def _parameters(model: nn.Module, part: str) -> int:
    found = [m for name, m in model.named_modules() if name == part]
    return sum(p.numel() for m in found for p in m.parameters())


def _flops(flops: dict[str, int], part: str) -> int:
    """FLOPs of a part; a list of modules has no call of its own, so its members are added up."""
    name = f"{MMInvertFill.__name__}.{part}"
    if name in flops:
        return flops[name]
    depth = name.count(".") + 1
    return sum(v for k, v in flops.items() if k.startswith(name + ".") and k.count(".") == depth)
