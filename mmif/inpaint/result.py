"""A photograph on its way through the model: cut into squares, :class:`Unit`, and back, :class:`Result`."""

from __future__ import annotations

import functools
import os
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmif.images.compose import compose
from mmif.images.labels import UNKNOWN, label_image
from mmif.images.photo import Photo
from mmif.images.write import check_target, write_image
from mmif.inpaint.plan import plan_crops
from mmif.inpaint.request import MAX_SAMPLES, Guidance, Job, Loaded, read, read_guidance, whole
from mmif.inpaint.squares import (
    Box,
    Crop,
    paste,
    paste_map,
    scale_edges,
    scale_hole,
    scale_image,
    scale_labels,
)


class Seen(NamedTuple):
    """What one square shows, at the model's size S."""

    rgb: np.ndarray  # uint8 [S, S, 3]
    hole: np.ndarray  # bool [S, S]
    labels: np.ndarray  # uint8 [S, S], 255 = unknown
    edges: np.ndarray  # bool [S, S]
    edge_hole: np.ndarray  # bool [S, S], True = unknown


class Predicted(NamedTuple):
    """What the model took one square for; None for a branch that it lacks."""

    crop: Crop
    labels: np.ndarray | None  # uint8 [s, s]
    edges: np.ndarray | None  # uint8 [s, s], 0 or 255


@dataclass(slots=True)
class Unit:
    """One square on its way through the model: one crop of one photograph, for one sample.

    A photograph may have thousands: the pixels of a square are cut when its batch is filled and pasted at once.
    """

    name: str
    index: int  # of the noise
    sample: int
    crop: Crop
    photograph: Pending

    def cut(self, side: int) -> Seen:
        """What the square shows."""
        square, guidance = self.crop.square, self.photograph.guidance
        return Seen(
            scale_image(self.photograph.photo.rgb, square, side),
            scale_hole(self.photograph.unknown, square, side),
            _scaled(scale_labels, guidance.labels, square, side, UNKNOWN),
            _scaled(scale_edges, guidance.edges, square, side, False),
            _scaled(scale_hole, guidance.edge_hole, square, side, guidance.edges is None),
        )

    def take(self, fill: np.ndarray, labels: np.ndarray | None, edges: np.ndarray | None, seconds: float) -> None:
        """Paste ``fill``, uint8 [S, S, 3]; keep the first sample's :class:`Predicted`."""
        photograph = self.photograph
        paste(photograph.filled(self.sample), fill, photograph.hole, self.crop)
        if self.sample == 0:
            photograph.predicted.append(Predicted(self.crop, labels, edges))
        photograph.seconds += seconds
        photograph.left -= 1

    def fail(self, error: ValueError) -> None:
        """Say that this square cannot be filled, and so its photograph."""
        self.photograph.failed = self.photograph.failed or error
        self.photograph.left -= 1


@dataclass
class Result:
    """What came of one photograph.

    Attributes:
        images: one PIL image per sample; known pixels unchanged. :meth:`save` writes one with profile and EXIF.
        seed: the seed that was used.
        notes: what a person should know, one line each.
        timings: seconds: ``model`` (the photograph's share of the batches) and ``total``.
        photo: the photograph as it was read.
        hole: bool [H, W], True = hole.
    """

    images: list[Image.Image]
    seed: int
    notes: list[str]
    timings: dict[str, float]
    photo: Photo
    hole: np.ndarray
    _predicted: list[Predicted] = field(repr=False)

    @property
    def image(self) -> Image.Image:
        """The first sample."""
        return self.images[0]

    def save(self, path: str | os.PathLike[str], sample: int = 0, quality: int | None = None) -> None:
        """Write one sample as ``mmif-inpaint`` does, with the profile and EXIF of the photograph.

        The format is that of the suffix. The file appears when it is whole, in place of one that is there; its folder
        is made. A JPEG file has the ``quality`` of the photograph's, unless another (1..100) is given.
        ``images[sample].save(path)`` is PIL's own and drops what PIL is not told to keep.

        Raises:
            ValueError: no such sample or quality, a suffix that cannot be written, a folder that is not writable.
        """
        if not 0 <= whole("sample", sample) < len(self.images):
            raise ValueError(f"sample must be 0..{len(self.images) - 1}, got {sample}")
        if quality is not None:
            whole("quality", quality, 1, 100)
        path = Path(path)
        check_target(path)
        write_image(self.images[sample], path, quality)

    @functools.cached_property
    def segmentation(self) -> Image.Image | None:
        """Predicted labels as a palette image of the photograph's size, 255 outside the squares that were filled.

        None if the model has no segmentation branch. May be edited and passed back as guidance.
        """
        canvas = self._canvas("labels", UNKNOWN)
        return None if canvas is None else label_image(canvas)

    @functools.cached_property
    def edges(self) -> Image.Image | None:
        """Predicted edges, 0 or 255, as a grey image of the photograph's size, 0 outside the squares.

        None if the model has no edge branch. May be edited and passed back as guidance.
        """
        canvas = self._canvas("edges", 0)
        return None if canvas is None else Image.fromarray(canvas)

    def _canvas(self, name: str, blank: int) -> np.ndarray | None:
        maps = [(square.crop, getattr(square, name)) for square in self._predicted]
        if any(values is None for _, values in maps):
            return None
        canvas = np.full(self.hole.shape, blank, np.uint8)
        for crop, values in maps:
            paste_map(canvas, values, crop)
        for crop, values in maps:  # where squares overlap, the one that filled a place tells what it took it for
            paste_map(canvas, values, crop, crop.target)
        return canvas


@dataclass(slots=True)
class Pending:
    """A photograph whose squares have not all been through the model yet."""

    photo: Photo
    hole: np.ndarray
    unknown: np.ndarray  # the hole, and what is hidden under alpha 0
    guidance: Guidance
    notes: list[str]
    started: float
    left: int = 0  # squares that are still to come
    seconds: float = 0.0
    predicted: list[Predicted] = field(default_factory=list)
    failed: ValueError | None = None  # why there is no result
    _filled: dict[int, np.ndarray] = field(default_factory=dict)

    def filled(self, sample: int) -> np.ndarray:
        """The copy of the photograph, uint8 [H, W, 3], that holds the fills of one sample."""
        if sample not in self._filled:
            self._filled[sample] = self.photo.rgb.copy()
        return self._filled[sample]

    def finish(self, seed: int, num_samples: int) -> Result:
        """Hand the samples out.

        Raises:
            ValueError: a square could not be filled.
        """
        if self.failed:
            raise self.failed
        # Nothing was copied where there is no hole.
        filled = [self._filled.pop(sample, self.photo.rgb) for sample in range(num_samples)]
        images = [compose(self.photo, rgb, self.hole) for rgb in filled]
        timings = {"model": self.seconds, "total": time.perf_counter() - self.started}
        return Result(images, seed, self.notes, timings, self.photo, self.hole, self.predicted)


def prepare(
    job: Job | Loaded, side: int, num_classes: int, margin: float, num_samples: int
) -> tuple[Pending, list[Unit]]:
    """Read a photograph with its mask and guidance, and plan the squares that the model must fill.

    Raises:
        ValueError: an input that cannot be used.
    """
    loaded = read(job) if isinstance(job, Job) else job
    guidance = read_guidance(loaded, num_classes)
    photo, hole = loaded.photo, loaded.hole
    unknown = hole if photo.hidden is None else hole | photo.hidden
    pending = Pending(photo, hole, unknown, guidance, loaded.notes, loaded.started)
    units = []
    for number, crop in enumerate(plan_crops(hole, side, margin)):
        first = loaded.job.key + MAX_SAMPLES * number
        units += [Unit(loaded.job.name, first + sample, sample, crop, pending) for sample in range(num_samples)]
    pending.left = len(units)
    return pending, units


def _scaled(
    scale: Callable[[np.ndarray, Box, int], np.ndarray], plane: np.ndarray | None, square: Box, side: int, missing: int
) -> np.ndarray:
    """The square of ``plane`` at the model's size, or all ``missing``."""
    if plane is None:
        return np.full((side, side), missing, np.uint8 if missing == UNKNOWN else bool)
    return scale(plane, square, side)
