"""K4, latency of one image, and K5, throughput of batches: the synthesis network of the 256x256 generators."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator
from functools import partial

import torch
from comparison import Case, Contest, Outputs, Setup, lazily
from torch import Tensor

from cases.formulations import Layer, synthesis
from cases.layers import STYLES, WIDTHS, levels, macs
from cases.stylegan_ops import FORMATS, HALF, NAMES, SINGLE, randn
from mmif.config import GeneratorConfig
from mmif.model.generator import SynthesisNetwork
from mmif.ops import dispatch
from mmif.runtimes.cuda_graph import CapturedSynthesis

OURS = ("mmif graph", "mmif plan")
COMPILED = "torch.compile reduce-overhead"
CHUNK = 4  # images at a time in float64


def latency_cases(quick: bool = False) -> Iterator[Case]:
    """K4: batch 1; the compiler apart and last, since it takes minutes."""
    yield from _cases("K4", (1,), (*OURS, "eager network", *STYLES), quick)
    yield from _cases("K4", (1,), (*OURS, COMPILED), quick)


def throughput_cases(quick: bool = False) -> Iterator[Case]:
    """K5: batches 8 and 32."""
    yield from _cases("K5", (2,) if quick else (8, 32), (*OURS, "eager network", *STYLES), quick)


def _cases(goal: str, batches: tuple[int, ...], contenders: tuple[str, ...], quick: bool) -> Iterator[Case]:
    for width, base in WIDTHS.items():
        config = GeneratorConfig(channel_base=base)
        if quick:
            config = GeneratorConfig(resolution=16, channel_base=base // 256, channel_max=16)
        dtype = SINGLE if quick else HALF
        for n in batches:
            name = f"generator {width} {n}x3x{config.resolution}x{config.resolution} {NAMES[dtype]}"
            if COMPILED in contenders:
                name += " compiled"
            yield Case(goal, name, dtype, contenders, partial(_contest, config, n, dtype, contenders))


def _contest(config: GeneratorConfig, n: int, dtype: torch.dtype, contenders: tuple[str, ...], setup: Setup) -> Contest:
    network = _network(config, setup.device)
    ws = randn(setup, n, config.num_ws, 512)
    noise = [randn(setup, n, 1, side, side) for side in network.noise_sizes]

    def plain(run: Callable[[Tensor, list[Tensor]], Tensor]) -> Tensor:
        with dispatch.use("reference"), _autocast(setup, dtype):
            return run(ws, noise)

    def plan() -> Tensor:
        with _autocast(setup, dtype):
            return network.plan()(ws, noise, {}, False)

    def graph() -> Callable[[], Tensor]:
        with _autocast(setup, dtype):
            captured = CapturedSynthesis(network, ws, noise)
        return lambda: captured(ws, noise)

    calls: dict[str, Callable[[], Outputs]] = {
        "mmif graph": lazily(graph),
        "mmif plan": plan,
        "eager network": lambda: plain(network),
    }
    missing = {} if setup.device == "cuda" else {"mmif graph": "CUDA graphs need a CUDA device"}
    for name, (layer, layout) in STYLES.items():
        calls[name] = _styled(network, layer, layout, ws, noise, dtype)
    if COMPILED in contenders and setup.compile:
        fast = torch.compile(network, mode="reduce-overhead", dynamic=False)
        calls[COMPILED] = lambda: plain(fast)
    elif COMPILED in contenders:
        missing[COMPILED] = "--no-compile"
    multiply_adds = n * (
        sum(map(macs, levels(config))) + sum(3 * config.channels(r) * r * r for r in config.resolutions)
    )
    truth = partial(_truth, network, ws, noise)
    return Contest(calls, truth, missing, macs=multiply_adds, images=n, alone=True)


def _network(config: GeneratorConfig, device: str) -> SynthesisNetwork:
    """A network for inference whose biases and noise are not zero."""
    network = SynthesisNetwork(config, 512)
    with torch.no_grad():
        for name, parameter in network.named_parameters():
            if name.endswith(("conv0.bias", "conv1.bias", "torgb.bias", "noise_strength")):
                parameter.normal_(std=0.3)
    return network.to(device).eval().requires_grad_(False)


def _autocast(setup: Setup, dtype: torch.dtype) -> torch.autocast:
    return torch.autocast(setup.device, dtype, enabled=dtype != SINGLE)


def _styled(
    network: SynthesisNetwork, layer: Layer, layout: str, ws: Tensor, noise: list[Tensor], dtype: torch.dtype
) -> Callable[[], Tensor]:
    const = network.const.to(dtype).expand(ws.shape[0], -1, -1, -1).contiguous(memory_format=FORMATS[layout])
    return lambda: synthesis(network, layer, const, ws, noise)


def _truth(network: SynthesisNetwork, ws: Tensor, noise: list[Tensor]) -> Tensor:
    double = copy.deepcopy(network).double()
    for module in double.modules():  # filters stay float32, as the ops ask for
        if getattr(module, "resample_filter", None) is not None:
            module.resample_filter = module.resample_filter.float()
    exact = ws.double()
    with dispatch.use("reference"):
        images = [double(exact[i : i + CHUNK], [t[i : i + CHUNK] for t in noise]) for i in range(0, len(ws), CHUNK)]
    return torch.cat(images)
