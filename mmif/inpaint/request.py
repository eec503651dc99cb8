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
from typing import Any

import numpy as np
from PIL import Image

from mmif.images.labels import UNKNOWN, label_image, to_labels
from mmif.images.masks import hole_note, to_binary
from mmif.images.photo import Photo, to_photo
from mmif.images.source import ImageLike
from mmif.images.write import check_target, to_pil, write_image
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


@dataclass(slots=True)
class Unit:
    """One square on its way through the model: one crop of one photograph, for one sample."""

    name: str
    index: int  # of the noise
    sample: int
    crop: Crop
    rgb: np.ndarray  # uint8 [S, S, 3]
    hole: np.ndarray  # bool [S, S]
    labels: np.ndarray  # uint8 [S, S], 255 = unknown
    edges: np.ndarray  # bool [S, S]
    edge_hole: np.ndarray  # bool [S, S], True = unknown
    # From here on what the model made.
    fill: np.ndarray | None = None  # uint8 [S, S, 3]
    seen_labels: np.ndarray | None = None  # uint8 [s, s]
    seen_edges: np.ndarray | None = None  # uint8 [s, s], 0 or 255
    seconds: float = 0.0


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
    _units: list[Unit] = field(repr=False)

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
        canvas = self._canvas("seen_labels", UNKNOWN)
        return None if canvas is None else label_image(canvas)

    @functools.cached_property
    def edges(self) -> Image.Image | None:
        """Predicted edges, 0 or 255, as a grey image of the photograph's size, 0 outside the squares.

        None if the model has no edge branch. May be edited and passed back as guidance.
        """
        canvas = self._canvas("seen_edges", 0)
        return None if canvas is None else Image.fromarray(canvas)

    def _canvas(self, name: str, blank: int) -> np.ndarray | None:
        canvas = np.full(self.hole.shape, blank, np.uint8)
        for unit in self._units:
            values = getattr(unit, name)
            if values is None:
                return None
            paste_map(canvas, values, unit.crop)
        return canvas


@dataclass(slots=True)
class Pending:
    """A photograph whose squares have not all been through the model yet."""

    photo: Photo
    hole: np.ndarray
    units: list[Unit]
    notes: list[str]
    started: float

    @property
    def done(self) -> bool:
        return all(unit.fill is not None for unit in self.units)

    def finish(self, seed: int, num_samples: int) -> Result:
        """Paste the fills into copies of the photograph."""
        results = []
        for sample in range(num_samples):
            rgb = self.photo.rgb.copy() if self.units else self.photo.rgb
            for unit in self.units:
                if unit.sample == sample:
                    assert unit.fill is not None
                    paste(rgb, unit.fill, self.hole, unit.crop)
            results.append(to_pil(rgb, self.photo))
        total = time.perf_counter() - self.started
        timings = {"model": sum(unit.seconds for unit in self.units), "total": total}
        first = [unit for unit in self.units if unit.sample == 0]
        return Result(results, seed, self.notes, timings, self.photo, self.hole, first)


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


def prepare(job: Job, side: int, num_classes: int, margin: float, num_samples: int, invert_mask: bool) -> Pending:
    """Read a photograph with its mask and guidance, and cut the squares that the model must fill.

    Raises:
        ValueError: an input that cannot be used.
    """
    started = time.perf_counter()
    try:
        photo = to_photo(job.image)
        hole = to_binary(job.mask, photo.size, "mask", invert_mask)
        labels, edges, edge_hole = _read_guidance(job, photo.size, num_classes)
    except ValueError as error:
        if job.file is None or str(job.file) in str(error):
            raise
        raise ValueError(f"{job.file}: {error}") from None
    units = []
    for number, crop in enumerate(plan_crops(hole, side, margin)):
        planes: dict[str, Any] = {
            "rgb": scale_image(photo.rgb, crop.square, side),
            "hole": scale_hole(hole, crop.square, side),
            "labels": _scaled(scale_labels, labels, crop.square, side, UNKNOWN),
            "edges": _scaled(scale_edges, edges, crop.square, side, False),
            "edge_hole": _scaled(scale_hole, edge_hole, crop.square, side, edges is None),
        }
        for sample in range(num_samples):
            # 1000 apart: a square's samples do not share their noise with the next square's.
            units.append(Unit(str(job.file or "the image"), job.key + 1000 * number + sample, sample, crop, **planes))
    note = hole_note(hole)
    return Pending(photo, hole, units, [*photo.notes, *([note] if note else [])], started)


def _read_guidance(
    job: Job, size: tuple[int, int], num_classes: int
) -> tuple[np.ndarray | None, np.ndarray | None, np.ndarray | None]:
    """Labels uint8 (255 where unknown), edges bool, edge hole bool; each [H, W], or None where nothing is given."""
    if job.segmentation is None and job.segmentation_mask is not None:
        raise ValueError("a segmentation mask needs a segmentation; pass both, or none")
    if job.edge is None and job.edge_mask is not None:
        raise ValueError("an edge mask needs an edge map; pass both, or none")
    labels = edges = edge_hole = None
    if job.segmentation is not None:
        labels = to_labels(job.segmentation, size, num_classes)
        if job.segmentation_mask is not None:
            labels[to_binary(job.segmentation_mask, size, "segmentation mask")] = UNKNOWN
    if job.edge is not None:
        edges = to_binary(job.edge, size, "edge map")
    if job.edge_mask is not None:
        edge_hole = to_binary(job.edge_mask, size, "edge mask")
    return labels, edges, edge_hole


def _scaled(
    scale: Callable[[np.ndarray, Box, int], np.ndarray], plane: np.ndarray | None, square: Box, side: int, missing: int
) -> np.ndarray:
    """The square of ``plane`` at the model's size, or all ``missing``."""
    if plane is None:
        return np.full((side, side), missing, np.uint8 if missing == UNKNOWN else bool)
    return scale(plane, square, side)
