"""``mmif-train encoder``: train the encoder, pre-modulation and RGB branch against a pre-trained generator, Eq. 10."""

from __future__ import annotations

from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor, nn

from mmif import checkpoint
from mmif.config import ModelConfig
from mmif.data.masks import random_hole
from mmif.host import pick_device
from mmif.images.tensors import labels_to_model, levels_to_model
from mmif.model import MMInvertFill, Output
from mmif.model.discriminator import PatchDiscriminator
from mmif.train import loop, losses
from mmif.train.config import EncoderTrainConfig
from mmif.train.perceptual import HRFLoss


class Batch(NamedTuple):
    """Photographs with their ground truth and what is hidden of them; all at the generator's resolution."""

    image: Tensor  # [N, 3, s, s] in [-1, 1]
    edge: Tensor  # [N, 1, s, s]
    labels: Tensor  # [N, s, s] int64
    hole: Tensor  # [N, 1, s, s]
    edge_hole: Tensor
    seg_hole: Tensor


class EncoderTrainer:
    """The model, its discriminators, their optimisers, and one training step."""

    stage, prefix = "encoder", ""

    def __init__(self, options: EncoderTrainConfig, config: ModelConfig):
        self.options, self.config = options, config
        torch.set_flush_denormal(True)  # on a CPU, vanishing gradients and moments would cost a hundredfold
        self.device = pick_device(options.device)
        torch.manual_seed(options.seed)
        self.model = MMInvertFill(config)
        self._load_generator()
        self.model.to(self.device)
        self.d_img = PatchDiscriminator(3, options.d_width).to(self.device)
        self.d_edge = PatchDiscriminator(1, options.d_width).to(self.device)
        self.hrf = HRFLoss(options.perceptual, options.perceptual_weights or None).to(self.device)
        self.average = loop.Average(self.model)
        self.opt = torch.optim.Adam(self._groups(), betas=options.betas, fused=True)
        d_params = [*self.d_img.parameters(), *self.d_edge.parameters()]
        self.opt_d = torch.optim.Adam(d_params, lr=options.d_lr, betas=options.betas, fused=True)
        self.base_lrs = [group["lr"] for group in self.opt.param_groups]

    def _load_generator(self) -> None:
        """Take mapping and synthesis weights from the pre-training, then draw the mean latents from them."""
        if not self.options.generator:
            raise ValueError("--generator must name a run folder of `mmif-train gan` or a checkpoint; none was given")
        folder = checkpoint.resolve(self.options.generator)
        config, _, state = checkpoint.read(folder)
        if (config.generator.resolution, config.latent.w_dim) != (
            self.config.generator.resolution,
            self.config.latent.w_dim,
        ):
            raise ValueError(
                f"{folder} holds a generator for {config.generator.resolution} pixels and w_dim {config.latent.w_dim}, "
                f"the preset needs {self.config.generator.resolution} and {self.config.latent.w_dim}"
            )
        checkpoint.load_into(self.model.generator, checkpoint.part(state, "generator"), folder / checkpoint.WEIGHTS)
        self.model.mean_latent.reset(self.model.generator.mapping)

    def _groups(self) -> list[dict[str, Any]]:
        """Parameters to train. The mapping network stays as it is: it defines the domain of the codes."""
        self.model.generator.requires_grad_(False)
        own = [p for p in self.model.parameters() if p.requires_grad]
        groups: list[dict[str, Any]] = [{"params": own, "lr": self.options.lr}]
        if self.options.generator_lr > 0:
            synthesis = self.model.generator.synthesis.requires_grad_(True)
            groups.append({"params": list(synthesis.parameters()), "lr": self.options.generator_lr})
        return groups

    def state(self) -> dict[str, Any]:
        parts = ("model", "d_img", "d_edge", "opt", "opt_d")
        return {
            **{name: getattr(self, name).state_dict() for name in parts},
            "average": self.average.module.state_dict(),
        }

    def load_state(self, state: dict[str, Any]) -> None:
        for name in ("model", "d_img", "d_edge"):
            getattr(self, name).load_state_dict(state[name])
        for name in ("opt", "opt_d"):
            loop.load_optimiser(getattr(self, name), state[name])
        self.average.module.load_state_dict(state["average"])

    def step(self, step: int, batch: dict[str, Any]) -> dict[str, Tensor]:
        """One step on a batch of the prepared data set."""
        rng = loop.seed_step(self.options.seed, step)
        self._schedule(step)
        prepared = self.prepare(batch, rng)
        output = self.run_model(self.model, prepared)
        logs = self._model_step(output, prepared)
        logs |= self._discriminator_step(output, prepared)
        self.model.mean_latent.update(self.model.generator.mapping)
        self.average.update(self.model, min(self.options.ema, (1 + step) / (10 + step)))
        return logs

    def _schedule(self, step: int) -> None:
        """Multiply the rates by ``decay`` behind ``decay_at`` and freeze the batch norms from there on."""
        late = step >= self.options.decay_at * self.options.steps
        for group, base in zip(self.opt.param_groups, self.base_lrs, strict=True):
            group["lr"] = base * (self.options.decay if late else 1.0)
        self.opt_d.param_groups[0]["lr"] = self.options.d_lr * (self.options.decay if late else 1.0)
        self.model.train()
        if late:
            for module in self.model.modules():
                if isinstance(module, nn.BatchNorm2d):
                    module.eval()

    def prepare(self, item: dict[str, Any], rng: np.random.Generator) -> Batch:
        """Photographs to the device, half of them mirrored, each with a random hole and random guidance holes."""
        image = levels_to_model(item["image"].to(self.device))
        edge, labels = item["edge"].to(self.device).float(), item["seg"].to(self.device).long()
        image, edge, labels = loop.flip_half(image, edge, labels, rng=rng)
        n, size = image.shape[0], image.shape[2]
        hole = self._stack([random_hole(size, rng) for _ in range(n)])
        unguided = rng.random(n) < self.options.p_no_guidance
        edge_hole = self._guidance_holes(hole, unguided, rng)
        seg_hole = self._guidance_holes(hole, unguided, rng)
        return Batch(image, edge, labels, hole, edge_hole, seg_hole)

    def _stack(self, holes: list[np.ndarray]) -> Tensor:
        return torch.from_numpy(np.stack(holes)[:, None]).to(self.device).float()

    def _guidance_holes(self, hole: Tensor, unguided: np.ndarray, rng: np.random.Generator) -> Tensor:
        """Where a guidance is unknown: everywhere, or one of the hole itself, everywhere, nowhere, another hole."""
        size = hole.shape[2]
        fresh = self._stack([random_hole(size, rng) for _ in range(hole.shape[0])])
        options = torch.stack([hole, torch.ones_like(hole), torch.zeros_like(hole), fresh])
        pick = torch.from_numpy(np.where(unguided, 1, rng.integers(0, 4, hole.shape[0]))).to(self.device)
        if self.config.encoder.seg_guidance == "ground_truth" or self.config.encoder.edge_guidance == "ground_truth":
            pick = torch.full_like(pick, 2)  # the ground truth is what guides: it is always whole
        return options[pick, torch.arange(hole.shape[0], device=self.device)]

    def run_model(self, model: MMInvertFill, batch: Batch) -> Output:
        seg = labels_to_model(batch.labels, self.config.encoder.num_classes)
        return model(batch.image, batch.hole, seg, batch.seg_hole, batch.edge, batch.edge_hole)

    def _model_step(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        self._discriminators(False)
        terms = self.terms(output, batch)
        o = self.options
        msr = o.lambda_rec * terms["rec"] + o.lambda_perc * terms["perc"]
        msr = msr + o.lambda_bce * terms["bce"] + o.lambda_ce * terms["ce"]
        total = o.lambda_hrf * terms["hrf"] + o.lambda_adv * terms["adv"] + o.lambda_adv_edge * terms["adv_edge"]
        total = total + o.lambda_msr * msr + o.lambda_fid * terms["fid"] + o.lambda_l1 * terms["l1"]
        self.opt.zero_grad(set_to_none=True)
        total.backward()
        self.opt.step()
        self._discriminators(True)
        return {"total": total.detach(), **{k: v.detach() for k, v in terms.items()}}

    def terms(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        """The terms of Eqs. 7 to 9, unweighted."""
        o, zero = self.options, output.image.new_zeros(())
        mean = self.model.mean_latent.online if self.config.latent.sml else self.model.mean_latent.static
        edge = self._edge(output)
        terms = {
            "hrf": self.hrf(output.image, batch.image),
            "adv": losses.generator_loss(self.d_img(output.image), o.gan_loss),
            "adv_edge": zero if edge is None else losses.generator_loss(self.d_edge(edge), o.gan_loss),
            "fid": losses.fidelity_loss(output.ws, mean, o.fid_form),
            "l1": (output.image - batch.image).abs().mean(),
            "rec": zero,
            "perc": zero,
            "bce": zero,
            "ce": zero,
        }
        at_least = self.config.encoder.resolution // 2
        for r, predicted in enumerate(output.images):
            image, edges, labels = losses.targets_at(predicted.shape[2], batch.image, batch.edge, batch.labels)
            terms["rec"] = terms["rec"] + (predicted - image).square().mean()
            terms["perc"] = terms["perc"] + self.hrf(*losses.perceptual_at_least((predicted, image), at_least))
            if output.edges:
                terms["bce"] = terms["bce"] + losses.edge_loss(output.edges[r], edges, o.edge_bce)
            if output.segs:
                terms["ce"] = terms["ce"] + losses.seg_loss(output.segs[r], labels)
        return terms | self._full_size_terms(output, batch, terms)

    def _full_size_terms(self, output: Output, batch: Batch, terms: dict[str, Tensor]) -> dict[str, Tensor]:
        """The full-size predictions count like one more scale."""
        more = {}
        if output.edge_full is not None:
            _, edges, _ = losses.targets_at(output.edge_full.shape[2], batch.image, batch.edge, batch.labels)
            more["bce"] = terms["bce"] + losses.edge_loss(output.edge_full, edges, self.options.edge_bce)
        if output.seg_full is not None:
            _, _, labels = losses.targets_at(output.seg_full.shape[2], batch.image, batch.edge, batch.labels)
            more["ce"] = terms["ce"] + losses.seg_loss(output.seg_full, labels)
        return more

    @staticmethod
    def _edge(output: Output) -> Tensor | None:
        """The edge map that D_edge judges: the full-size one where there is one, else the finest."""
        if output.edge_full is not None:
            return output.edge_full
        return output.edges[-1] if output.edges else None

    def _discriminator_step(self, output: Output, batch: Batch) -> dict[str, Tensor]:
        form = self.options.gan_loss
        loss = losses.discriminator_loss(self.d_img(batch.image), self.d_img(output.image.detach()), form)
        logs = {"d_img": loss.detach()}
        edge = self._edge(output)
        if edge is not None:
            _, real, _ = losses.targets_at(edge.shape[2], batch.image, batch.edge, batch.labels)
            d_edge = losses.discriminator_loss(self.d_edge(real), self.d_edge(edge.detach()), form)
            logs["d_edge"] = d_edge.detach()
            loss = loss + d_edge
        self.opt_d.zero_grad(set_to_none=True)
        loss.backward()
        self.opt_d.step()
        return logs

    def _discriminators(self, trainable: bool) -> None:
        self.d_img.requires_grad_(trainable)
        self.d_edge.requires_grad_(trainable)

    @torch.no_grad()
    def sample(self, path: Path, batch: dict[str, Any]) -> None:
        """Rows of: photograph, masked, filled and composed, filled whole; by the averaged weights, without guidance."""
        shown = self.prepare(batch, loop.seed_step(self.options.seed, 0))
        nothing = torch.ones_like(shown.hole)
        shown = shown._replace(edge_hole=nothing, seg_hole=nothing)
        filled = self.run_model(self.average.module, shown).image
        masked = shown.image * (1 - shown.hole) + shown.hole
        composed = shown.image * (1 - shown.hole) + filled * shown.hole
        rows = torch.stack([shown.image, masked, composed, filled], dim=1)
        loop.save_pictures(path, rows.flatten(0, 1))


def train_encoder(options: EncoderTrainConfig, config: ModelConfig) -> None:
    """Train, or go on with, the encoder of ``config``; see :func:`mmif.train.loop.train`."""
    photographs = loop.training_set(options, config.resolution)
    surplus = loop.surplus_labels(options, photographs, config.encoder.num_classes)
    if surplus:
        raise ValueError(surplus)
    loop.train(options, EncoderTrainer(options, config), photographs)
