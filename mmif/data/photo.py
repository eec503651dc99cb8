"""One photograph as it is packed: its centred square, its labels, and the bytes of its members."""

from __future__ import annotations

import io
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmif.data.collections import Record
from mmif.data.settings import Settings
from mmif.images.labels import UNKNOWN, to_labels
from mmif.images.photo import Photo, read_rgb

_JPEG = b"\xff\xd8"  # how a JPEG file begins


@dataclass(frozen=True, slots=True)
class Square:
    """The centred square of a photograph."""

    image: NDArray[np.uint8]  # [S, S, 3]
    labels: NDArray[np.uint8] | None  # [S, S], 255 = unknown; None unless labels are given
    data: bytes  # the file to store: the source itself if it is a JPEG of this size, else a PNG


def read_square(record: Record, settings: Settings) -> Square:
    """Read the centred square of a photograph, and of its label map where labels are given.

    Raises:
        ValueError: not a whole image file, or a label map of another size or with other labels.
    """
    size = settings.size
    photo = read_rgb(record.path)
    box = _box(*photo.size)
    # reducing_gap: what is many times larger is first reduced by averaging, which is as good and much faster
    image = Image.fromarray(photo.rgb).resize((size, size), Image.Resampling.LANCZOS, box, reducing_gap=3.0)
    source = record.path.read_bytes()
    as_it_is = photo.size == (size, size) and source.startswith(_JPEG) and not photo.notes
    labels = _read_labels(record, photo, settings) if settings.seg == "given" else None
    return Square(np.asarray(image), labels, source if as_it_is else encode_png(image))


def encode_png(image: Image.Image) -> bytes:
    """Encode as PNG; level 1 costs a few per cent of size and a fraction of the time of the default."""
    out = io.BytesIO()
    image.save(out, "PNG", compress_level=1)
    return out.getvalue()


def _box(width: int, height: int) -> tuple[int, int, int, int]:
    side = min(width, height)
    left, top = (width - side) // 2, (height - side) // 2
    return left, top, left + side, top + side


def _read_labels(record: Record, photo: Photo, settings: Settings) -> NDArray[np.uint8]:
    size, void = settings.size, settings.void
    if record.seg is None:
        return np.full((size, size), UNKNOWN, np.uint8)
    ids = len(settings.labels) + (void is not None)
    full = to_labels(record.seg, photo.size, ids)
    labels = np.asarray(Image.fromarray(full).resize((size, size), Image.Resampling.NEAREST, _box(*photo.size)))
    return labels if void is None else np.where(labels == void, np.uint8(UNKNOWN), labels)
