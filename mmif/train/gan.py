"""``mmif-train gan``: StyleGAN2 training of the generator on whole photographs (Karras et al. 2020).

Non-saturating logistic loss, lazy R1 on the discriminator, lazy path length regularisation and style mixing on the
generator, averaged weights.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from mmif.config import ModelConfig
from mmif.host import pick_device
from mmif.images.tensors import levels_to_model
from mmif.model.discriminator import StyleDiscriminator
from mmif.model.generator import Generator
from mmif.train import loop
from mmif.train.config import GanConfig


class GanTrainer:
    """Generator, discriminator, their optimisers, and one training step."""

    stage, prefix = "gan", "generator"

    def __init__(self, options: GanConfig, config: ModelConfig):
        self.options, self.config = options, config
        torch.set_flush_denormal(True)  # on a CPU, vanishing gradients and moments would cost a hundredfold
        self.device = pick_device(options.device)
        torch.manual_seed(options.seed)
        self.generator = Generator(config.latent, config.generator).to(self.device)
        self.discriminator = StyleDiscriminator(config.generator).to(self.device)
        self.average = loop.Average(self.generator)
        self.opt_g = self._adam(self.generator, options.pl_every)
        self.opt_d = self._adam(self.discriminator, options.r1_every)
        self.mean_path = torch.zeros((), device=self.device)

    def _adam(self, module: torch.nn.Module, every: int) -> torch.optim.Adam:
        """Adam corrected for lazy regularisation: fewer, heavier penalty steps."""
        c = every / (every + 1) if every else 1.0
        return torch.optim.Adam(module.parameters(), lr=self.options.lr * c, betas=(0.0, 0.99**c), fused=True)

    def state(self) -> dict[str, Any]:
        parts = ("generator", "discriminator", "opt_g", "opt_d")
        return {
            **{name: getattr(self, name).state_dict() for name in parts},
            "average": self.average.module.state_dict(),
            "mean_path": self.mean_path,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for name in ("generator", "discriminator"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("opt_g", "opt_d"):
            loop.load_optimiser(getattr(self, name), state[name])
        self.average.module.load_state_dict(state["average"])
        self.mean_path.copy_(state["mean_path"])

    def step(self, step: int, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step on the photographs of ``batch``, uint8 [N, 3, s, s]."""
        rng = loop.seed_step(self.options.seed, step)
        (real,) = loop.flip_half(levels_to_model(batch["image"].to(self.device)), rng=rng)
        logs = self._generator_step(step, real.shape[0], rng)
        logs |= self._discriminator_step(step, real, rng)
        half_life = self.options.ema_images / self.options.batch
        self.average.update(self.generator, 0.5 ** (1.0 / min(half_life, max(step * 0.05, 1e-3))))
        return logs

    def _generator_step(self, step: int, n: int, rng: np.random.Generator) -> dict[str, Tensor]:
        self.discriminator.requires_grad_(False)
        fake, _ = self._generate(self.generator, n, rng)
        loss = F.softplus(-self.discriminator(fake)).mean()
        loss.backward()
        logs = {"g": loss.detach()}
        if self.options.pl_every and step % self.options.pl_every == 0:
            penalty = self._path_length(max(n // self.options.pl_batch_shrink, 1), rng)
            (penalty * self.options.pl_weight * self.options.pl_every).backward()
            logs["path_length"] = self.mean_path.clone()
        self._apply(self.opt_g)
        self.discriminator.requires_grad_(True)
        return logs

    def _discriminator_step(self, step: int, real: Tensor, rng: np.random.Generator) -> dict[str, Tensor]:
        with torch.no_grad():
            fake, _ = self._generate(self.generator, real.shape[0], rng)
        penalise = step % self.options.r1_every == 0
        real.requires_grad_(penalise)
        real_logits, fake_logits = self.discriminator(real), self.discriminator(fake)
        loss = F.softplus(-real_logits).mean() + F.softplus(fake_logits).mean()
        logs = {"d": loss.detach(), "real": real_logits.detach().sign().mean()}
        if penalise:
            (grad,) = torch.autograd.grad(real_logits.sum(), real, create_graph=True)
            r1 = grad.square().sum((1, 2, 3)).mean()
            loss = loss + r1 * (self.options.r1_gamma / 2 * self.options.r1_every)
            logs["r1"] = r1.detach()
        loss.backward()
        self._apply(self.opt_d)
        return logs

    def _apply(self, optimiser: torch.optim.Optimizer) -> None:
        optimiser.step()
        optimiser.zero_grad(set_to_none=True)

    def _generate(self, generator: Generator, n: int, rng: np.random.Generator) -> tuple[Tensor, Tensor]:
        """Images of random latents, and their ws [N, L, w_dim]; some rows switch latent at a random layer."""
        layers = generator.num_ws
        w = generator.mapping(torch.randn(2 * n, generator.z_dim, device=self.device))
        cut = torch.from_numpy(np.where(rng.random(n) < self.options.mixing, rng.integers(1, layers, n), layers))
        first = torch.arange(layers)[None] < cut[:, None]
        ws = torch.where(first[..., None].to(self.device), w[:n, None], w[n:, None])
        noise = [torch.randn(n, 1, r, r, device=self.device) for r in generator.synthesis.noise_sizes]
        return generator.synthesis(ws, noise), ws

    def _path_length(self, n: int, rng: np.random.Generator) -> Tensor:
        """Deviation of |J_w^T y| from its running mean, y a random image (Karras et al. 2020, section 3.2)."""
        image, ws = self._generate(self.generator, n, rng)
        y = torch.randn_like(image) / math.sqrt(image.shape[2] * image.shape[3])
        (grad,) = torch.autograd.grad((image * y).sum(), ws, create_graph=True)
        length = grad.square().sum(2).mean(1).sqrt()
        self.mean_path = self.mean_path.lerp(length.detach().mean(), 0.01)
        return (length - self.mean_path).square().mean()

    @torch.no_grad()
    def sample(self, path: Path, batch: dict[str, Any]) -> None:
        """A grid of 32 images from fixed latents and the averaged weights; photographs have no part in it."""
        del batch
        loop.seed_step(self.options.seed, 0)
        images, _ = self._generate(self.average.module, 32, np.random.default_rng(0))
        loop.save_pictures(path, images)


def train_gan(options: GanConfig, config: ModelConfig) -> None:
    """Train, or go on with, the generator of ``config``; see :func:`mmif.train.loop.train`."""
    photographs = loop.training_set(options, config.resolution)
    surplus = loop.surplus_labels(options, photographs, config.encoder.num_classes)
    if surplus:  # no matter here, but days later
        print(f"note: `mmif-train encoder` will refuse this set: {surplus}", file=sys.stderr)
    loop.train(options, GanTrainer(options, config), photographs)
