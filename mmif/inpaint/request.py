"""One photograph's way to the model and back: :class:`Job` in, :class:`Unit` squares between, :class:`Result` out."""

from __future__ import annotations

import functools
import operator
import os
import time
import zlib
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image

from mmif.images.compose import compose, compose_note
from mmif.images.labels import UNKNOWN, label_image, to_labels
from mmif.images.masks import hole_note, to_binary, to_hole
from mmif.images.photo import Photo, to_photo
from mmif.images.source import ImageLike
from mmif.images.write import check_target, write_image
from mmif.inpaint.squares import (
    Box,
    Crop,
    paste,
    paste_map,
    plan_crops,
    scale_edges,
    scale_hole,
    scale_image,
    scale_labels,
)


@dataclass(frozen=True, slots=True)
class Job:
    """One photograph to fill.

    Attributes:
        image: photograph; path, PIL image, array or tensor.
        mask: white = 1 = hole, of the photograph's size.
        segmentation: labels, 255 = unknown; None: the model predicts them.
        edge: white = edge; None: the model predicts them.
        segmentation_mask: where the labels are unknown (white); None: known wherever they are given.
        edge_mask: likewise for the edges.
        index: keys the noise together with the seed; None: from the stem of the file name, 0 without a file.
    """

    image: ImageLike
    mask: ImageLike
    segmentation: ImageLike | None = None
    edge: ImageLike | None = None
    segmentation_mask: ImageLike | None = None
    edge_mask: ImageLike | None = None
    index: int | None = None

    @property
    def file(self) -> Path | None:
        """The photograph's file, if it came as one."""
        return Path(self.image) if isinstance(self.image, (str, os.PathLike)) else None

    @property
    def key(self) -> int:
        """The photograph's own index: a file keeps it whatever else is in its folder."""
        if self.index is not None:
            return whole("index", self.index)
        return zlib.crc32(os.fsencode(self.file.stem)) & 0x7FFFFFFF if self.file else 0


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

    def save(self, path: str | os.PathLike[str], sample: int = 0) -> None:
        """Write one sample as ``mmif-inpaint`` does, with the profile and EXIF of the photograph.

        The format is that of the suffix. The file appears when it is whole, in place of one that is there; its folder
        is made. ``images[sample].save(path)`` is PIL's own and drops what PIL is not told to keep.

        Raises:
            ValueError: no such sample, a suffix that cannot be written, a folder that is not writable.
        """
        if not 0 <= whole("sample", sample) < len(self.images):
            raise ValueError(f"sample must be 0..{len(self.images) - 1}, got {sample}")
        path = Path(path)
        check_target(path)
        write_image(self.images[sample], path)

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
        canvas = np.full(self.hole.shape, blank, np.uint8)
        for square in self._predicted:
            values = getattr(square, name)
            if values is None:
                return None
            paste_map(canvas, values, square.crop)
        return canvas


class Guidance(NamedTuple):
    """What a person says of a photograph; None where nothing is given."""

    labels: np.ndarray | None  # uint8 [H, W], 255 = unknown
    edges: np.ndarray | None  # bool [H, W]
    edge_hole: np.ndarray | None  # bool [H, W], True = unknown


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
    _filled: dict[int, np.ndarray] = field(default_factory=dict)

    def filled(self, sample: int) -> np.ndarray:
        """The copy of the photograph, uint8 [H, W, 3], that holds the fills of one sample."""
        if sample not in self._filled:
            self._filled[sample] = self.photo.rgb.copy()
        return self._filled[sample]

    def finish(self, seed: int, num_samples: int) -> Result:
        """Hand the samples out."""
        # Nothing was copied where there is no hole.
        filled = [self._filled.pop(sample, self.photo.rgb) for sample in range(num_samples)]
        images = [compose(self.photo, rgb, self.hole) for rgb in filled]
        timings = {"model": self.seconds, "total": time.perf_counter() - self.started}
        return Result(images, seed, self.notes, timings, self.photo, self.hole, self.predicted)


def whole(name: str, value: object, least: int | None = None) -> int:
    """Take a whole number of any type; 1.0 is none, and keys another noise than 1.

    Raises:
        ValueError: something else, or less than ``least``.
    """
    try:
        number = int(operator.index(value))  # pyright: ignore[reportArgumentType]
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be >= {least}, got {number}")
    return number


def prepare(
    job: Job, side: int, num_classes: int, margin: float, num_samples: int, invert_mask: bool
) -> tuple[Pending, list[Unit]]:
    """Read a photograph with its mask and guidance, and plan the squares that the model must fill.

    Raises:
        ValueError: an input that cannot be used.
    """
    started = time.perf_counter()
    try:
        photo = to_photo(job.image)
        notes = [*photo.notes]
        hole = to_hole(job.mask, photo, invert_mask, notes)
        guidance = _read_guidance(job, photo.size, num_classes, notes)
    except ValueError as error:
        if job.file is None or str(job.file) in str(error):
            raise
        raise ValueError(f"{job.file}: {error}") from None
    notes += filter(None, (hole_note(hole), compose_note(photo, hole)))
    unknown = hole if photo.hidden is None else hole | photo.hidden
    pending = Pending(photo, hole, unknown, guidance, notes, started)
    name, units = str(job.file or "the image"), []
    for number, crop in enumerate(plan_crops(hole, side, margin)):
        # 1000 apart: a square's samples do not share their noise with the next square's.
        first = job.key + 1000 * number
        units += [Unit(name, first + sample, sample, crop, pending) for sample in range(num_samples)]
    pending.left = len(units)
    return pending, units


def _read_guidance(job: Job, size: tuple[int, int], num_classes: int, notes: list[str]) -> Guidance:
    if job.segmentation is None and job.segmentation_mask is not None:
        raise ValueError("a segmentation mask needs a segmentation; pass both, or none")
    if job.edge is None and job.edge_mask is not None:
        raise ValueError("an edge mask needs an edge map; pass both, or none")
    labels = edges = edge_hole = None
    if job.segmentation is not None:
        labels = to_labels(job.segmentation, size, num_classes, notes)
        if job.segmentation_mask is not None:
            labels[to_binary(job.segmentation_mask, size, "segmentation mask", notes=notes)] = UNKNOWN
    if job.edge is not None:
        edges = to_binary(job.edge, size, "edge map", notes=notes)
    if job.edge_mask is not None:
        edge_hole = to_binary(job.edge_mask, size, "edge mask", notes=notes)
    return Guidance(labels, edges, edge_hole)


def _scaled(
    scale: Callable[[np.ndarray, Box, int], np.ndarray], plane: np.ndarray | None, square: Box, side: int, missing: int
) -> np.ndarray:
    """The square of ``plane`` at the model's size, or all ``missing``."""
    if plane is None:
        return np.full((side, side), missing, np.uint8 if missing == UNKNOWN else bool)
    return scale(plane, square, side)
