"""One photograph to fill, as everybody asks for it: the shell, a folder, evaluation, Python."""

from __future__ import annotations

import operator
import os
import time
import zlib
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from mmif.files import naming
from mmif.images import holes
from mmif.images.compose import compose_note
from mmif.images.decode import name_of
from mmif.images.labels import UNKNOWN, to_labels
from mmif.images.masks import hole_note, to_binary, to_hole
from mmif.images.photo import Photo, to_photo
from mmif.images.source import ImageLike

MAX_SAMPLES = 1000  # results of one photograph: the next square's noise begins so many keys further


@dataclass(frozen=True, slots=True)
class Job:
    """One photograph to fill, and what of it: the request behind every command and every call.

    Attributes:
        image: photograph; path, PIL image, array or tensor.
        mask: white = 1 = hole, of the photograph's size; None: ``boxes`` say it.
        segmentation: labels, 255 = unknown; None: the model predicts them.
        edge: white = edge; None: the model predicts them.
        segmentation_mask: where the labels are unknown (white); None: known wherever they are given.
        edge_mask: likewise for the edges.
        index: keys the noise together with the seed; None: from the stem of the file name, 0 without a file.
        boxes: rectangles to fill in place of a mask, (x, y, width, height) in pixels of the upright photograph.
        invert_mask: black = hole.
        grow_mask: pixels by which the hole is made larger on all sides, for a mask that follows its object so closely
            that its soft edge or shadow would stay; 0..1000.

    Raises:
        ValueError: fields that do not go together, or outside their range.
    """

    image: ImageLike
    mask: ImageLike | None = None
    segmentation: ImageLike | None = None
    edge: ImageLike | None = None
    segmentation_mask: ImageLike | None = None
    edge_mask: ImageLike | None = None
    index: int | None = None
    boxes: Sequence[Sequence[int]] = ()
    invert_mask: bool = False
    grow_mask: int = 0

    def __post_init__(self) -> None:
        if (self.mask is None) == (len(self.boxes) == 0):
            raise ValueError(f"give a mask or boxes; got {'neither' if self.mask is None else 'both'}")
        if self.invert_mask and self.mask is None:
            raise ValueError("boxes are the hole as they stand, there is nothing to invert; leave out invert_mask")
        if self.segmentation is None and self.segmentation_mask is not None:
            raise ValueError("a segmentation mask needs a segmentation; pass both, or none")
        if self.edge is None and self.edge_mask is not None:
            raise ValueError("an edge mask needs an edge map; pass both, or none")
        object.__setattr__(self, "boxes", tuple(tuple(whole("a box", n) for n in box) for box in self.boxes))
        whole("grow_mask", self.grow_mask, 0, holes.MAX_GROWTH)
        if self.index is not None:
            whole("index", self.index)

    @property
    def file(self) -> Path | None:
        """The photograph's file, if it came as one."""
        return Path(self.image) if isinstance(self.image, (str, os.PathLike)) else None

    @property
    def name(self) -> str:
        """What to call it in a message."""
        return str(self.file or "the image")

    @property
    def key(self) -> int:
        """The photograph's own index: a file keeps it whatever else is in its folder."""
        if self.index is not None:
            return int(self.index)
        return zlib.crc32(os.fsencode(self.file.stem)) & 0x7FFFFFFF if self.file else 0


class Loaded(NamedTuple):
    """A job whose photograph and mask have been read: all that can be checked without a model."""

    job: Job
    photo: Photo
    hole: np.ndarray  # bool [H, W], True = hole
    notes: list[str]  # what a person should know, one line each; reading guidance adds to it
    started: float  # time.perf_counter() before the reading


class Guidance(NamedTuple):
    """What a person says of a photograph; None where nothing is given."""

    labels: np.ndarray | None  # uint8 [H, W], 255 = unknown
    edges: np.ndarray | None  # bool [H, W]
    edge_hole: np.ndarray | None  # bool [H, W], True = unknown


def read(job: Job) -> Loaded:
    """Read the photograph and the hole of a job.

    Raises:
        ValueError: one that cannot be used; the message names the file at fault, and the photograph's.
    """
    started = time.perf_counter()
    with _naming(job.image):
        photo = to_photo(job.image)
        notes = list(photo.notes)
        if job.mask is None:
            hole = holes.boxes(photo.size, job.boxes)
        else:
            with _naming(job.mask):
                hole = to_hole(job.mask, photo, job.invert_mask, notes)
            notes += filter(None, [hole_note(hole)])
        hole = holes.grow(hole, job.grow_mask) if job.grow_mask else hole
    notes += filter(None, [compose_note(photo, hole)])
    return Loaded(job, photo, hole, notes, started)


def read_guidance(loaded: Loaded, num_classes: int) -> Guidance:
    """Read what a job says of its photograph.

    Raises:
        ValueError: one that cannot be used; the message names the file at fault, and the photograph's.
    """
    job, size, notes = loaded.job, loaded.photo.size, loaded.notes
    labels = edges = edge_hole = None
    with _naming(job.image):
        if job.segmentation is not None:
            with _naming(job.segmentation):
                labels = to_labels(job.segmentation, size, num_classes, notes)
        if labels is not None and job.segmentation_mask is not None:
            with _naming(job.segmentation_mask):
                labels[to_binary(job.segmentation_mask, size, "segmentation mask", notes=notes)] = UNKNOWN
        if job.edge is not None:
            with _naming(job.edge):
                edges = to_binary(job.edge, size, "edge map", notes=notes)
        if job.edge_mask is not None:
            with _naming(job.edge_mask):
                edge_hole = to_binary(job.edge_mask, size, "edge mask", notes=notes)
    return Guidance(labels, edges, edge_hole)


def _naming(source: ImageLike) -> AbstractContextManager[None]:
    """Let a ValueError name the file that ``source`` is, or was read from."""
    return naming(name_of(source, "") or None)


def whole(name: str, value: Any, least: int | None = None, most: int | None = None) -> int:
    """Take a whole number of any type; 1.0 is none, and keys another noise than 1.

    Raises:
        ValueError: something else, less than ``least``, or more than ``most``.
    """
    try:
        number = int(operator.index(value))
    except TypeError:
        raise ValueError(f"{name} must be a whole number, got {value!r}") from None
    if least is not None and number < least:
        raise ValueError(f"{name} must be >= {least}, got {number}")
    if most is not None and number > most:
        raise ValueError(f"{name} must be <= {most}, got {number}")
    return number
