"""The loop of both trainings, and what their steps share: step-keyed randomness, averaged weights, photographs.

Everything random in a step comes from generators seeded with (seed, step), and the photographs of a step are found by
counting, so a run that stops, or is killed, and goes on is the same run.
"""

from __future__ import annotations

import copy
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any, Generic, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmif import checkpoint
from mmif.config import ModelConfig
from mmif.data.dataset import InfiniteSampler, PackedDataset
from mmif.data.dataset import batches as data_batches
from mmif.files import writing
from mmif.images.sheet import in_rows, sheet
from mmif.images.tensors import from_model
from mmif.train.config import RunConfig
from mmif.train.run import Run
from mmif.train.stop import Stop

M = TypeVar("M", bound=nn.Module)


class Average(Generic[M]):
    """Exponential moving average of a module's parameters; buffers are copied."""

    def __init__(self, module: M):
        self.module = copy.deepcopy(module).eval().requires_grad_(False)

    @torch.no_grad()
    def update(self, module: M, beta: float) -> None:
        for mean, now in zip(self.module.parameters(), module.parameters(), strict=True):
            mean.lerp_(now, 1.0 - beta)
        for mean, now in zip(self.module.buffers(), module.buffers(), strict=True):
            mean.copy_(now)


class Trainer(Protocol):
    """What one of the two trainings brings to the loop."""

    stage: str  # kept with the weights
    prefix: str  # of the averaged module inside MMInvertFill, empty for the whole
    config: ModelConfig
    device: torch.device
    average: Average[Any]

    def step(self, step: int, batch: dict[str, Any]) -> dict[str, Tensor]:
        """Train on a batch of :func:`batches`; returns what is logged."""
        ...

    def state(self) -> dict[str, Any]: ...

    def load_state(self, state: dict[str, Any]) -> None: ...

    def sample(self, path: Path, batch: dict[str, Any]) -> None:
        """Write a picture; ``batch`` is the same each time."""
        ...


def train(options: RunConfig, trainer: Trainer, photographs: PackedDataset) -> None:
    """Train, or go on, up to ``options.steps``, the time limit, or a signal; see :mod:`mmif.train.run` for the files.

    Raises:
        ValueError: the folder is in use or holds another run, or the losses are no longer finite.
        KeyboardInterrupt: Ctrl-C; the step was finished and saved before (SIGTERM: what the caller made of it).
    """
    with Run(options, trainer.config) as run, Stop() as stop:
        step = run.resume(trainer.load_state)
        print(f"device {trainer.device} | step {step} of {options.steps} | {options.out}")
        data = batches(photographs, options, step)
        ended = step == options.steps
        with _bar(options.steps, step) as bar:
            while not ended:
                values = trainer.step(step, next(data))
                step += 1
                ended = step == options.steps or stop.signal is not None or run.out_of_time()
                log_now = step % options.log_every == 0
                save_now = ended or step % options.snapshot_every == 0
                if log_now or save_now:
                    check_finite(step, values)  # before anything is kept
                if log_now:
                    run.log(step, values)
                    bar.set_postfix({k: f"{float(v):.3f}" for k, v in list(values.items())[:4]})
                if save_now:
                    snapshot(run, trainer, step, photographs)
                bar.update()
        print(f"{run.folder}: step {step}, {run.hours:.2f} hours")
    stop.pass_on(f"{options.out} is whole at step {step}, the same command goes on from there")


def snapshot(run: Run, trainer: Trainer, step: int, photographs: PackedDataset) -> None:
    """Write weights, a picture when it is due, and the state."""
    info = {"stage": trainer.stage, "step": step, "hours": round(run.hours, 3)}
    checkpoint.save(trainer.average.module, run.folder, config=trainer.config, extra=info, prefix=trainer.prefix)
    if step % run.options.sample_every == 0 or step == run.options.steps:
        shown = next(batches(photographs, run.options, start=0, workers=0))
        trainer.sample(run.folder / "samples" / f"{step:07d}.png", shown)
    run.save(step, trainer.state())  # last: a run killed before it repeats the steps, weights and picture included


def check_finite(step: int, values: Mapping[str, Tensor]) -> None:
    """Raise ValueError if a loss is NaN or infinite."""
    bad = [key for key, value in values.items() if not value.isfinite()]
    if bad:
        raise ValueError(
            f"{'loss' if len(bad) == 1 else 'losses'} {', '.join(bad)} became NaN or infinite at step {step}; "
            "the last snapshot is whole: start a new run with a lower --lr"
        )


def _bar(steps: int, done: int) -> Any:
    from tqdm import tqdm

    return tqdm(total=steps, initial=done, unit="step", dynamic_ncols=True)


def training_set(options: RunConfig, resolution: int) -> PackedDataset:
    """The training split, which must suit the model."""
    dataset = PackedDataset(options.data, "train")
    if dataset.size != resolution:
        raise ValueError(
            f"{options.data} holds squares of {dataset.size} pixels, the preset needs {resolution}: "
            f"prepare the photographs with --size {resolution}, or choose another --preset"
        )
    if not len(dataset):
        raise ValueError(f"{options.data} must have photographs to train on, its split train is empty: prepare more")
    return dataset


def surplus_labels(options: RunConfig, dataset: PackedDataset, classes: int) -> str | None:
    """What to say of a set that has more labels than a model's ``classes``, or None."""
    n = dataset.num_classes
    if n <= classes:
        return None
    return (
        f"{options.data} must have at most the {classes} labels of the model, got {n}; prepare it with --classes "
        f"{classes}, or give --override encoder.num_classes={n}"
    )


def batches(
    dataset: PackedDataset, options: RunConfig, start: int, workers: int | None = None
) -> Iterator[dict[str, Any]]:
    """Endless batches, beginning with the batch of step ``start``; ``workers`` are those of the options by default."""
    sampler = InfiniteSampler(len(dataset), seed=options.seed, start=start * options.batch)
    return data_batches(dataset, sampler, options.batch, options.workers if workers is None else workers)


def seed_step(seed: int, step: int) -> np.random.Generator:
    """Seed torch for one step and return a NumPy generator for the same step."""
    rng = np.random.default_rng((seed, step))
    torch.manual_seed(int(rng.integers(2**63)))
    return rng


def flip_half(*tensors: Tensor, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Mirror the same random half of a batch in every tensor ``[N, ..., W]``."""
    flip = torch.from_numpy(rng.random(tensors[0].shape[0]) < 0.5).to(tensors[0].device)
    return tuple(torch.where(flip.view(-1, *[1] * (t.ndim - 1)), t.flip(-1), t) for t in tensors)


def load_optimiser(optimiser: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Take the moments from ``state``; rates and betas stay those of the options.

    Raises:
        ValueError: the state belongs to other parameters; torch itself only counts them.
    """
    own = [{k: v for k, v in group.items() if k != "params"} for group in optimiser.param_groups]
    optimiser.load_state_dict(state)
    for group, values in zip(optimiser.param_groups, own, strict=True):
        group.update(values)
    if any(m.shape != p.shape for p, moments in optimiser.state.items() for m in moments.values() if m.ndim):
        raise ValueError("an optimiser's moments have another shape than its parameters")


def save_pictures(path: Path, images: Tensor, columns: int = 8) -> None:
    """Write images [N, 3, H, W] in [-1, 1] as one PNG."""
    picture = sheet(in_rows(list(from_model(images)), columns), gap=0)
    with writing(path) as file:
        picture.save(file, "PNG")
