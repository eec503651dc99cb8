"""A run folder: ``config.json``, ``model.safetensors`` (the averaged weights, loadable by everything else),
``trainer/state.pt`` (tensors and numbers only), ``trainer/log.jsonl``, ``trainer/options.json``, ``samples/``.
"""  # noqa: D205 -- a list of files

from __future__ import annotations

import dataclasses
import json
import pickle
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from textwrap import shorten
from typing import IO, TYPE_CHECKING, Any

import torch
from torch import Tensor

from mmif.config import ModelConfig
from mmif.files import claim, parse_json, read_json, remove_orphans, write_json, writing
from mmif.options import Count, Factor, build, marked
from mmif.train.config import MAY_CHANGE, RunConfig

if TYPE_CHECKING:
    from torch.utils.tensorboard import SummaryWriter


@dataclasses.dataclass(frozen=True, slots=True)
class Progress:
    """How far a run has come."""

    step: Count
    hours: Factor


class Run:
    """A run folder that this process holds: options, resume, state, log. Close it, or use it as a context.

    Raises:
        ValueError: another run is using the folder, or it holds a run with other options.
    """

    def __init__(self, options: RunConfig, model_config: ModelConfig):
        self.options, self.folder = options, Path(options.out)
        self.model_config = model_config
        self.started = time.monotonic()
        self.hours_before = 0.0
        (self.folder / "trainer").mkdir(parents=True, exist_ok=True)
        (self.folder / "samples").mkdir(exist_ok=True)
        self._board: SummaryWriter | None = None
        self._log = open(self.folder / "trainer" / "log.jsonl", "a+b")
        try:
            claim(self.folder, self._log)  # two runs in one folder would mix
            for folder in (self.folder, self.folder / "trainer", self.folder / "samples"):
                remove_orphans(folder)
            self._changed = self._check_options()
        except BaseException:
            self._log.close()
            raise

    def __enter__(self) -> Run:
        return self

    def __exit__(self, *_: object) -> None:
        self._log.close()
        if self._board is not None:
            self._board.close()

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
        return _plain({**dataclasses.asdict(self.options), "model": self.model_config.to_dict()})

    def _check_options(self) -> dict[str, list[Any]]:
        """A run that goes on must be the same run: options that change the result may not differ, unless asked for.

        Returns:
            What differs: name to [before, now].
        """
        if not self.state_file.exists():
            return {}
        # What an option is in a run from before there was one, is its default.
        before = _flat(_defaults(self.options) | _read_options(self._options_file))
        may_change = marked(type(self.options), MAY_CHANGE)
        now = _flat(self._options())
        changed = {k: [before.get(k), v] for k, v in now.items() if k not in may_change and before.get(k) != v}
        if changed and not self.options.change_options:
            raise ValueError(
                f"these options differ from those of the run in {self.folder}: {', '.join(sorted(changed))}; give the "
                "same options to go on, --change-options to go on with these, or another --out to start anew"
            )
        return changed

    def resume(self, load_state: Callable[[dict[str, Any]], None]) -> int:
        """Give the state on disk to ``load_state`` and return the step to go on from, 0 in a new run.

        Only then are the options written, which have been found to fit, and is the log cut to the state.
        """
        step, changes = 0, []
        if self.state_file.exists():
            step = self._load(load_state)
            changes = _read_options(self._options_file).get("changes", [])
        if step > self.options.steps:
            raise ValueError(
                f"--steps must be at least the {step} that the run in {self.folder} has made, got "
                f"{self.options.steps}; nothing was changed"
            )
        if self._changed:
            changes.append({"step": step, "changed": self._changed})
            words = ", ".join(f"{k} {json.dumps(a)} -> {json.dumps(b)}" for k, (a, b) in self._changed.items())
            print(f"{self.folder}: from step {step} on with other options: {words}")
        write_json(self._options_file, {**self._options(), "changes": changes})
        cut_log(self._log, step)
        self._board = _tensorboard(self.folder / "trainer", step)
        return step

    def _load(self, load_state: Callable[[dict[str, Any]], None]) -> int:
        try:
            state = torch.load(self.state_file, map_location="cpu", weights_only=True)  # a pickle could run anything
            progress = build(Progress, {key: state[key] for key in ("step", "hours")}, "its progress")
            load_state(state)
        except pickle.UnpicklingError as error:  # torch advises to switch this guard off
            raise ValueError(
                f"{self.state_file} must be the state of a run: it is damaged, or holds more than tensors and numbers "
                f"and was not loaded; restore it, or give another --out to start anew"
            ) from error
        except Exception as error:  # whatever a damaged file can bring about
            why = shorten(f"{type(error).__name__}: {error}", 300)
            raise ValueError(
                f"{self.state_file} must be the state of a run with these options, and cannot be loaded ({why}); "
                f"restore it, give the run's own options, or another --out to start anew"
            ) from error
        self.hours_before = progress.hours
        return progress.step

    def save(self, step: int, state: dict[str, Any]) -> None:
        """Write the state; OSError if the disk is full, and then the state of before is untouched."""
        with writing(self.state_file) as file:
            torch.save({**state, "step": step, "hours": self.hours}, file)

    def log(self, step: int, values: Mapping[str, Tensor]) -> None:
        """Append a line; the log grows in place, and a line cut short by a kill goes when the run goes on."""
        row = {k: round(float(v), 5) for k, v in values.items()}
        line = {"step": step, "hours": round(self.hours, 4), **row}
        self._log.write(json.dumps(line).encode() + b"\n")
        self._log.flush()
        if self._board is not None:
            for key, value in row.items():
                self._board.add_scalar(key, value, step)

    def out_of_time(self) -> bool:
        limit = self.options.max_hours
        return limit > 0 and (time.monotonic() - self.started) / 3600 >= limit


def cut_log(file: IO[bytes], step: int) -> None:
    """Drop the lines behind ``step``, which a run that was killed made after its last state, and half a line.

    In place: the open file is the lock of the folder.
    """
    file.seek(0)
    end = 0
    for line in file:
        if not line.endswith(b"\n") or _step_of(line) > step:
            break
        end += len(line)
    file.truncate(end)


def _step_of(line: bytes) -> float:
    try:
        return float(parse_json(line)["step"])
    except (ValueError, KeyError, TypeError):
        return 0  # not ours: it stays


def _defaults(options: RunConfig) -> dict[str, Any]:
    fields = [f for f in dataclasses.fields(options) if f.default is not dataclasses.MISSING]
    return _plain({f.name: f.default for f in fields})


def _read_options(file: Path) -> dict[str, Any]:
    """The options of a run, those of its model that it did not know yet filled in."""
    try:
        options = dict(read_json(file))
        if not isinstance(options.get("changes", []), list):
            raise ValueError("its changes are no list")
        return options | {"model": _plain(ModelConfig.from_dict(options["model"]).to_dict())}
    except (ValueError, TypeError, KeyError) as error:
        raise ValueError(f"{file} must hold the options of the run, and cannot be read: {error}") from error


def _plain(tree: Mapping[str, Any]) -> dict[str, Any]:
    """As JSON gives it back: lists for tuples."""
    return json.loads(json.dumps(tree))


def _flat(tree: Mapping[str, Any], where: str = "") -> dict[str, Any]:
    """``{"a": {"b": 1}}`` as ``{"a.b": 1}``."""
    flat: dict[str, Any] = {}
    for key, value in tree.items():
        flat |= _flat(value, f"{where}{key}.") if isinstance(value, dict) else {where + key: value}
    return flat


def _tensorboard(folder: Path, step: int) -> SummaryWriter | None:
    """A TensorBoard writer where TensorBoard is installed (the ``train`` extra); log.jsonl has the same numbers."""
    try:
        from torch.utils.tensorboard import SummaryWriter
    except ImportError:
        return None
    return SummaryWriter(str(folder), purge_step=step + 1)  # steps that are made again are shown once
