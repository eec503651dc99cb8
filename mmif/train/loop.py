"""What both trainings share: devices, step-keyed randomness, averaged weights, state on disk, logs and pictures.

A run is a folder: ``config.json``, ``model.safetensors`` (the averaged weights, loadable by everything else),
``trainer/state.pt`` (tensors and numbers only), ``trainer/log.jsonl``, ``trainer/options.json``, ``samples/``.

Everything random in a step comes from generators seeded with (seed, step), and the photographs of a step are found by
counting, so a run that stops and goes on is the same run.
"""

from __future__ import annotations

import copy
import dataclasses
import fcntl
import json
import os
import time
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import numpy as np
import torch
from torch import Tensor, nn

from mmif.config import ModelConfig
from mmif.train.config import RunConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter

M = TypeVar("M", bound=nn.Module)

MAY_CHANGE = ("steps", "workers", "snapshot_every", "sample_every", "log_every", "max_hours", "device", "data", "out")


def pick_device(name: str) -> torch.device:
    """``auto`` is the first CUDA device, else the CPU; a CUDA device that is not there is an error."""
    torch.set_flush_denormal(True)  # on a CPU, vanishing gradients and moments would cost a hundredfold
    if name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except RuntimeError:
        device = None
    if device is None or device.type not in ("cpu", "cuda"):
        raise ValueError(f"--device must be auto, cpu, cuda or cuda:N, got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ValueError(f"--device {name} needs a CUDA device that torch can see, and there is none; use --device cpu")
    return device


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
        self._claim()
        self._check_options()
        self._board = _tensorboard(self.folder / "trainer")

    @property
    def state_file(self) -> Path:
        return self.folder / "trainer" / "state.pt"

    @property
    def hours(self) -> float:
        """Wall-clock hours of training, earlier parts of the run included."""
        return self.hours_before + (time.monotonic() - self.started) / 3600

    def _claim(self) -> None:
        """Hold the log for this process, until it ends in whichever way: two runs in one folder would mix."""
        try:
            fcntl.flock(self._log, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise ValueError(f"{self.folder} must have one run at a time, and another is at work in it") from None

    def _check_options(self) -> None:
        """A run that goes on must be the same run: options that change the result may not differ."""
        file = self.folder / "trainer" / "options.json"
        now = {**dataclasses.asdict(self.options), "model": self.model_config.to_dict()}
        now = json.loads(json.dumps(now))
        if self.state_file.exists():
            before = _read_options(file)
            changed = [k for k in now if k not in MAY_CHANGE and before.get(k) != now[k]]
            if changed:
                raise ValueError(
                    f"{self.folder} holds a run with other options ({', '.join(sorted(changed))} differ); "
                    f"give the same options to go on, or another --out to start anew"
                )
        write_text(file, json.dumps(now, indent=2))

    def load(self) -> dict[str, Any] | None:
        """The state to go on from, or None for a new run."""
        if not self.state_file.exists():
            return None
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)
            self.hours_before = float(state["hours"])
        except Exception as error:
            message = f"{self.state_file} must be a state of this program, and cannot be read: {error}"
            raise ValueError(message) from error
        return state

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


def _tensorboard(folder: Path) -> SummaryWriter | None:
    """A TensorBoard writer where TensorBoard is installed (the ``train`` extra); log.jsonl has the same numbers."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder))


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


def batches(options: RunConfig, resolution: int, start: int) -> Iterator[dict[str, Any]]:
    """Endless batches of the training split, beginning with the batch of step ``start``."""
    from mmif.data.dataset import InfiniteSampler, PackedDataset
    from mmif.data.dataset import batches as data_batches

    dataset = PackedDataset(options.data, "train")
    if dataset.size != resolution:
        raise ValueError(f"{options.data} holds squares of {dataset.size} pixels, the preset needs {resolution}")
    sampler = InfiniteSampler(len(dataset), seed=options.seed, start=start * options.batch)
    return iter(data_batches(dataset, sampler, options.batch, options.workers))


def flip_half(*tensors: Tensor, rng: np.random.Generator) -> tuple[Tensor, ...]:
    """Mirror the same random half of a batch in every tensor ``[N, ..., W]``."""
    flip = torch.from_numpy(rng.random(tensors[0].shape[0]) < 0.5).to(tensors[0].device)
    return tuple(torch.where(flip.view(-1, *[1] * (t.ndim - 1)), t.flip(-1), t) for t in tensors)
