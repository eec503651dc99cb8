"""What both trainings share: devices, step-keyed randomness, averaged weights, state on disk, logs and pictures.

A run is a folder: ``config.json``, ``model.safetensors`` (the averaged weights, loadable by everything else),
``trainer/state.pt`` (tensors and numbers only), ``trainer/log.jsonl``, ``trainer/options.json``, ``samples/``.

Everything random in a step comes from generators seeded with (seed, step), and the photographs of a step are found by
counting, so a run that stops and goes on is the same run.
"""

from __future__ import annotations

import copy
import dataclasses
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from textwrap import shorten
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmif.config import ModelConfig
from mmif.data.dataset import InfiniteSampler, PackedDataset
from mmif.data.dataset import batches as data_batches
from mmif.files import claim, writing
from mmif.images.sheet import in_rows, sheet
from mmif.images.tensors import from_model
from mmif.train.config import RunConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

M = TypeVar("M", bound=nn.Module)

MAY_CHANGE = ("steps", "workers", "snapshot_every", "sample_every", "log_every", "max_hours", "device", "data", "out")
MAY_CHANGE += ("change_options",)


def seed_step(seed: int, step: int) -> np.random.Generator:
    """Seed torch for one step and return a NumPy generator for the same step."""
    rng = np.random.default_rng((seed, step))
    torch.manual_seed(int(rng.integers(2**63)))
    return rng


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


class Run:
    """A run folder: options, resume, state, log."""

    def __init__(self, options: RunConfig, model_config: ModelConfig):
        self.options, self.folder = options, Path(options.out)
        self.model_config = model_config
        self.started = time.monotonic()
        self.hours_before = 0.0
        (self.folder / "trainer").mkdir(parents=True, exist_ok=True)
        (self.folder / "samples").mkdir(exist_ok=True)
        self._log = open(self.folder / "trainer" / "log.jsonl", "a", encoding="utf-8")
        claim(self.folder, self._log)  # two runs in one folder would mix
        self._changed = self._check_options()
        self._board = _tensorboard(self.folder / "trainer")

    @property
    def state_file(self) -> Path:
        return self.folder / "trainer" / "state.pt"

    @property
    def hours(self) -> float:
        """Wall-clock hours of training, earlier parts of the run included."""
        return self.hours_before + (time.monotonic() - self.started) / 3600

    @property
    def _options_file(self) -> Path:
        return self.folder / "trainer" / "options.json"

    def _options(self) -> dict[str, Any]:
        now = {**dataclasses.asdict(self.options), "model": self.model_config.to_dict()}
        return json.loads(json.dumps(now))

    def _check_options(self) -> dict[str, list[Any]]:
        """A run that goes on must be the same run: options that change the result may not differ, unless asked for.

        Returns:
            What differs: name to [before, now].
        """
        if not self.state_file.exists():
            return {}
        before, now = _flat(_read_options(self._options_file)), _flat(self._options())
        changed = {k: [before.get(k), v] for k, v in now.items() if k not in MAY_CHANGE and before.get(k) != v}
        if changed and not self.options.change_options:
            raise ValueError(
                f"{self.folder} holds a run with other options ({', '.join(sorted(changed))} differ); give the same "
                f"options to go on, --change_options true to go on with these, or another --out to start anew"
            )
        return changed

    def resume(self, load_state: Callable[[dict[str, Any]], None]) -> int:
        """Give the state on disk to ``load_state`` and return the step to go on from, 0 in a new run.

        Only then are the options written: they have been found to fit.
        """
        step, changes = 0, []
        if self.state_file.exists():
            step = self._load(load_state)
            changes = _read_options(self._options_file).get("changes", [])
        if self._changed:
            changes.append({"step": step, "changed": self._changed})
            words = ", ".join(f"{k} {json.dumps(a)} -> {json.dumps(b)}" for k, (a, b) in self._changed.items())
            print(f"{self.folder}: from step {step} on with other options: {words}")
        write_text(self._options_file, json.dumps({**self._options(), "changes": changes}, indent=2))
        return step

    def _load(self, load_state: Callable[[dict[str, Any]], None]) -> int:
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
            self.hours_before, step = float(state["hours"]), int(state["step"])
            load_state(state)
        except Exception as error:  # whatever a damaged file can bring about
            why = shorten(f"{type(error).__name__}: {error}", 300)
            raise ValueError(
                f"{self.state_file} must be the state of a run with these options, and cannot be loaded ({why}); "
                f"restore it, give the run's own options, or another --out to start anew"
            ) from error
        return step

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state whole: to a temporary name first."""
        temporary = self.state_file.with_suffix(".tmp")
        torch.save({**state, "step": step, "hours": self.hours}, temporary)
        os.replace(temporary, self.state_file)

    def log(self, step: int, values: Mapping[str, Tensor]) -> None:
        row = {k: round(float(v), 5) for k, v in values.items()}
        line = {"step": step, "hours": round(self.hours, 4), **row}
        self._log.write(json.dumps(line) + "\n")
        self._log.flush()
        if self._board is not None:
            for key, value in row.items():
                self._board.add_scalar(key, value, step)

    def out_of_time(self) -> bool:
        limit = self.options.max_hours
        return limit > 0 and (time.monotonic() - self.started) / 3600 >= limit


def _read_options(file: Path) -> dict[str, Any]:
    try:
        return dict(json.loads(file.read_text(encoding="utf-8")))
    except (OSError, ValueError, TypeError) as error:
        raise ValueError(f"{file} must hold the options of the run, and cannot be read: {error}") from error


def _flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
    return flat


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


def _tensorboard(folder: Path) -> SummaryWriter | None:
    """A TensorBoard writer where TensorBoard is installed (the ``train`` extra); log.jsonl has the same numbers."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


def save_pictures(path: Path, images: Tensor, columns: int = 8) -> None:
    """Write images [N, 3, H, W] in [-1, 1] as one PNG."""
    picture = sheet(in_rows(list(from_model(images)), columns), gap=0)
    with writing(path) as file:
        picture.save(file, "PNG")


def write_text(path: Path, text: str) -> None:
    """Write a small file whole."""
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def steps(run: Run, start: int, body: Callable[[int], Mapping[str, Tensor]], snapshot: Callable[[int], None]) -> int:
    """Run ``body`` until the last step or the time limit, with logs and snapshots; returns the step reached."""
    from tqdm import tqdm

    options = run.options
    with tqdm(total=options.steps, initial=start, unit="step", dynamic_ncols=True) as bar:
        for step in range(start, options.steps):
            values = body(step)
            bar.update()
            stop = run.out_of_time()
            log_now = (step + 1) % options.log_every == 0
            save_now = stop or (step + 1) % options.snapshot_every == 0 or step + 1 == options.steps
            if log_now or save_now:
                _check_finite(step + 1, values)  # before anything is saved
            if log_now:
                run.log(step + 1, values)
                bar.set_postfix({k: f"{float(v):.3f}" for k, v in list(values.items())[:4]})
            if save_now:
                snapshot(step + 1)
            if stop:
                return step + 1
    return max(start, options.steps)


def _check_finite(step: int, values: Mapping[str, Tensor]) -> None:
    bad = [key for key, value in values.items() if not value.isfinite()]
    if bad:
        raise ValueError(
            f"the losses must stay finite, at step {step} {', '.join(bad)} did not; the last snapshot is whole: "
            f"start a new run with a lower --lr"
        )


def training_set(options: RunConfig, resolution: int) -> PackedDataset:
    """The training split, which must suit the model."""
    dataset = PackedDataset(options.data, "train")
    if dataset.size != resolution:
        raise ValueError(f"{options.data} holds squares of {dataset.size} pixels, the preset needs {resolution}")
    if not len(dataset):
        raise ValueError(f"{options.data} must have photographs to train on, its split train is empty: prepare more")
    return dataset


def batches(dataset: PackedDataset, options: RunConfig, start: int) -> Iterator[dict[str, Any]]:
    """Endless batches, beginning with the batch of step ``start``."""
    sampler = InfiniteSampler(len(dataset), seed=options.seed, start=start * options.batch)
    return iter(data_batches(dataset, sampler, options.batch, options.workers))


def flip_half(*tensors: Tensor, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Mirror the same random half of a batch in every tensor ``[N, ..., W]``."""
    flip = torch.from_numpy(rng.random(tensors[0].shape[0]) < 0.5).to(tensors[0].device)
    return tuple(torch.where(flip.view(-1, *[1] * (t.ndim - 1)), t.flip(-1), t) for t in tensors)
