"""Fill holes in photographs from Python; ``mmif.commands.inpaint`` is the command."""

from __future__ import annotations

import inspect
import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import groupby
from numbers import Real
from pathlib import Path
from typing import Any, Literal, TypedDict, TypeVar, Unpack, get_args

import numpy as np
import torch
from torch import Tensor

from mmif import checkpoint
from mmif.host import pick_device
from mmif.images.labels import UNKNOWN
from mmif.images.source import ImageLike
from mmif.images.tensors import binary_to_model, from_model, labels_to_model, to_model
from mmif.inpaint import foreign
from mmif.inpaint.request import MAX_SAMPLES, Job, Loaded, whole
from mmif.inpaint.result import Pending, Result, Seen, Unit, prepare
from mmif.inpaint.seam import match_seam
from mmif.ops import dispatch
from mmif.runtimes import choose

T = TypeVar("T")
Seam = Literal["match", "none"]


class JobFields(TypedDict, total=False):
    """Fields of :class:`Job` that a call takes by name."""

    segmentation_mask: ImageLike | None
    edge_mask: ImageLike | None
    index: int | None
    boxes: Sequence[Sequence[int]]
    invert_mask: bool
    grow_mask: int


class Inpainter:
    """Fills holes in photographs of any size with an MMInvertFill model.

    Crops squares round the holes, lets the model fill them, and pastes the fill back; known pixels stay byte-identical.

    Args:
        model: a :class:`mmif.MMInvertFill` in evaluation mode on ``device``.
        info: what the checkpoint says of itself; its ``name`` and ``sha256`` are shown.
        device: where the model is.
        backend: op backend, ``auto`` or one of ``mmif.ops.dispatch.OP_BACKENDS``; None: ``MMIF_BACKEND``, or auto.
        seam: ``match`` corrects the colours of the fill near the border of the hole, ``none`` pastes it as it is.
        margin: surroundings seen on each side of a hole, as a share of its extent.
    """

    def __init__(
        self,
        model: Any,
        info: dict[str, Any] | None = None,
        device: str | torch.device = "cpu",
        backend: str | None = None,
        *,
        seam: Seam = "match",
        margin: float = 0.5,
    ) -> None:
        _check(seam, margin)
        self.model, self.info, self.device = model, info or {}, torch.device(device)
        self.backend, self.seam, self.margin = backend, seam, margin
        self.runtime = choose.choose()
        self.side: int = model.config.resolution
        self.num_classes: int = model.config.encoder.num_classes

    @classmethod
    def from_pretrained(
        cls,
        name: str | Path,
        device: str | torch.device | None = None,
        backend: str | None = None,
        *,
        seam: Seam = "match",
        margin: float = 0.5,
    ) -> Inpainter:
        """Load bundled weights by name, a checkpoint folder, or a hub id.

        Args:
            name: as :func:`mmif.checkpoint.load` takes it.
            device: ``cpu``, ``cuda`` or ``cuda:N``; None: a GPU if torch sees one.
            backend: op backend.
            seam: as in the class.
            margin: likewise.

        Raises:
            ValueError: no such weights, or broken ones; no such device; found before anything is loaded.
            BackendUnavailable: the backend cannot serve here.
        """
        _check(seam, margin)
        target = pick_device(device)
        dispatch.require(backend)
        model, info = checkpoint.load(name, target)
        return cls(model, info, target, backend, seam=seam, margin=margin)

    def to(self, device: str | torch.device | torch.dtype, dtype: torch.dtype | None = None) -> Inpainter:
        """Move the model to another device; return this object.

        Raises:
            ValueError: no such device, or a number type other than float32.
        """
        if isinstance(device, torch.dtype):
            device, dtype = self.device, device
        if dtype not in (None, torch.float32):
            raise ValueError(f"an Inpainter computes in float32, {dtype} is not supported yet; leave it out")
        self.device = pick_device(device)
        self.model.to(self.device)
        return self

    def half(self) -> Inpainter:
        """Not supported yet: ValueError."""
        return self.to(torch.float16)

    def bfloat16(self) -> Inpainter:
        """Not supported yet: ValueError."""
        return self.to(torch.bfloat16)

    def describe(self) -> str:
        """One line: device, op backend, runtime, weights."""
        with dispatch.use(self.backend):
            ops = dispatch.describe()
        sha256 = str(self.info.get("sha256", ""))[:12]
        weights = f"weights {self.info.get('name', 'given')}" + (f" (sha256 {sha256})" if sha256 else "")
        return f"device {self.device} | {ops} | runtime {self.runtime} | {weights}"

    def __call__(
        self,
        image: ImageLike,
        mask: ImageLike | None = None,
        segmentation: ImageLike | None = None,
        edge: ImageLike | None = None,
        *,
        seed: int | None = None,
        num_samples: int = 1,
        mask_image: ImageLike | None = None,
        **fields: Unpack[JobFields],
    ) -> Result:
        """Fill one photograph.

        Args:
            image: photograph; path, PIL image, array ([H, W, C]) or tensor ([C, H, W]).
            mask: **white = 1 = hole**, of the photograph's size; ``boxes`` can stand in its place.
            segmentation: labels [H, W], 255 = unknown; None: the model predicts them.
            edge: white = edge [H, W]; None: the model predicts them.
            seed: keys the noise; None means 0: the same call gives the same picture.
            num_samples: results to draw, 1..1000; the first is the same whatever their number.
            mask_image: the mask, under the name that it has in diffusers.
            fields: the other fields of :class:`Job`: ``boxes``, ``grow_mask``, ``invert_mask``, ...

        Returns:
            The result; an empty mask gives the photograph back.

        Raises:
            ValueError: an input that cannot be used, or a network that returned NaN or infinity.
            TypeError: an unknown argument; for one of diffusers', with what to pass in its place.
        """
        for name in fields:
            if name not in JobFields.__annotations__:
                foreign.refuse(name, _arguments())
        if mask is not None and mask_image is not None:
            raise ValueError("mask and mask_image are two names of one thing; pass one")
        job = Job(image, mask_image if mask is None else mask, segmentation, edge, **fields)
        return next(self.batch([job], seed=seed, num_samples=num_samples))

    def batch(
        self, jobs: Iterable[Job | Loaded], batch_size: int = 8, *, seed: int | None = None, num_samples: int = 1
    ) -> Iterator[Result]:
        """Fill many photographs, in order, with model calls shared between them.

        Jobs are read as they are needed and results come as soon as they are whole: memory holds about one batch. A
        result does not depend on the order or on the other jobs, nor, but for the rounding of one pixel value in a
        hundred thousand by one level, on the batch size. Arguments and errors are those of a single call; a job that
        cannot be used ends the iteration, after the results of those before it.
        """
        for result in self.attempts(jobs, batch_size, seed=seed, num_samples=num_samples):
            if not isinstance(result, Result):
                raise result
            yield result

    def attempts(
        self, jobs: Iterable[Job | Loaded], batch_size: int = 8, *, seed: int | None = None, num_samples: int = 1
    ) -> Iterator[Result | Exception]:
        """:meth:`batch` that goes on: a job that fails, in whichever way, gives its error in place of a result.

        What is wrong with the whole run still ends it: a model that runs out of memory, a device that fails.
        """
        batch_size, num_samples = whole("batch_size", batch_size, 1), whole("num_samples", num_samples, 1, MAX_SAMPLES)
        seed = 0 if seed is None else whole("seed", seed)
        waiting: deque[Pending | Exception] = deque()
        queue: list[Unit] = []

        def finished() -> Iterator[Result | Exception]:
            while waiting and (isinstance(waiting[0], Exception) or not waiting[0].left):
                first = waiting.popleft()
                yield first if isinstance(first, Exception) else _attempt(first.finish, seed, num_samples)

        for job in jobs:
            prepared = _attempt(prepare, job, self.side, self.num_classes, self.margin, num_samples)
            if isinstance(prepared, Exception):
                waiting.append(prepared)
            else:
                pending, units = prepared
                waiting.append(pending)
                queue += units
            while len(queue) >= batch_size:
                self._fill(queue[:batch_size], seed)
                del queue[:batch_size]
            yield from finished()
        self._fill(queue, seed)
        yield from finished()

    def _fill(self, units: Sequence[Unit], seed: int) -> None:
        # The first sample takes the model's own mean latent, the others draw one each.
        for drawn, group in groupby(sorted(units, key=lambda unit: unit.sample > 0), lambda unit: unit.sample > 0):
            self._run(list(group), seed, drawn)

    @torch.inference_mode()
    def _run(self, units: list[Unit], seed: int, drawn: bool) -> None:
        """One call of the model; its fills are pasted and its guidance put into ``units``."""
        started = time.perf_counter()
        keys = [(seed, unit.index) for unit in units]
        seen = [unit.cut(self.side) for unit in units]
        inputs = [None if plane is None else plane.to(self.device) for plane in self._inputs(seen)]
        with dispatch.use(self.backend):
            output = self.model(
                *inputs,
                noise=self.model.make_noise(keys),
                mean_latent=self.model.sample_mean_latent(keys) if drawn else None,
            )
        finite = output.image.isfinite().flatten(1).all(1).tolist()
        labels = None if output.seg_full is None else output.seg_full.argmax(1).byte().cpu().numpy()
        edges = None if output.edge_full is None else output.edge_full[:, 0].gt(0.5).byte().mul(255).cpu().numpy()
        for i, (unit, fill) in enumerate(zip(units, from_model(output.image), strict=True)):
            if not finite[i]:
                unit.fail(
                    ValueError(
                        f"the network gave NaN or infinity for {unit.name}, which was not "
                        "written; check the weights, or try another device"
                    )
                )
                continue
            matched = match_seam(fill, seen[i].rgb, seen[i].hole) if self.seam == "match" else fill
            seconds = (time.perf_counter() - started) / len(units)
            unit.take(matched, None if labels is None else labels[i], None if edges is None else edges[i], seconds)

    def _inputs(self, seen: Sequence[Seen]) -> tuple[Tensor | None, ...]:
        """image, hole, seg, seg_hole, edge, edge_hole as the model takes them; None where no square has guidance."""
        labels = np.stack([square.labels for square in seen])
        edge_hole = np.stack([square.edge_hole for square in seen])
        seg_hole = labels == UNKNOWN
        seg = edge = (None, None)
        if not seg_hole.all():
            seg = labels_to_model(labels, self.num_classes), binary_to_model(seg_hole)
        if not edge_hole.all():
            edge = binary_to_model(np.stack([square.edges for square in seen])), binary_to_model(edge_hole)
        image = to_model(np.stack([square.rgb for square in seen]))
        return image, binary_to_model(np.stack([square.hole for square in seen])), *seg, *edge


def _arguments() -> list[str]:
    """What a call takes by name, in the order of its signature."""
    return [*list(inspect.signature(Inpainter.__call__).parameters)[1:-1], *JobFields.__annotations__]


def _check(seam: str, margin: float) -> None:
    if seam not in get_args(Seam):
        raise ValueError(f"seam must be 'match' or 'none', got {seam!r}")
    if not (isinstance(margin, Real) and 0.0 <= margin <= 10.0):
        raise ValueError(f"margin must lie in [0, 10] (a share of the hole's extent), got {margin!r}")


def _attempt(function: Callable[..., T], *args: Any) -> T | Exception:
    """What ``function`` returns, or the error that it ends with."""
    try:
        return function(*args)
    except Exception as error:  # of one photograph: the others must not pay for it
        return error
