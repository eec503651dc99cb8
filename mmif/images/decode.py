"""Image files opened and decoded: whole or not at all, and none that is too large."""

from __future__ import annotations

import importlib
import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path

from PIL import Image

MAX_PIXELS = 178_000_000  # just below where Pillow itself refuses; 12000 x 9000 is 108 million
# What is read, whatever the name says. Pillow knows more: PostScript, for one, which it lets another program run.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
READ_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
HEIF_SUFFIXES = frozenset({".heic", ".heif"})  # read where the extra `heif` is installed
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)  # what decoders raise


@cache
def heif_is_readable() -> bool:
    """Whether pillow-heif is here; it is registered with Pillow on the first call."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except Exception:  # not installed, or not for this Pillow: a foreign package may fail in any way
        return False
    return True


@contextmanager
def opened(path: str | os.PathLike[str]) -> Iterator[Image.Image]:
    """Open an image file and check its size; :func:`decode` reads its pixels.

    Raises:
        ValueError: the file is missing, no image, or has more than ``MAX_PIXELS`` pixels.
    """
    if not Path(path).is_file():
        came = "it is a folder" if Path(path).is_dir() else "none is there"
        raise ValueError(f"an image file must exist at {path}; {came}")
    limit = f"{path}: an image may have at most {MAX_PIXELS // 1_000_000} million pixels"
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)  # MAX_PIXELS is our limit
            image = Image.open(path, formats=FORMATS)
    except Image.DecompressionBombError:
        raise ValueError(f"{limit}; reduce it first") from None
    except PermissionError:
        raise
    except _BROKEN:
        raise ValueError(f"{path}: must be an image ({', '.join(FORMATS)}); its content is none") from None
    with image:
        if image.width * image.height > MAX_PIXELS:
            raise ValueError(f"{limit}, it has {image.width} x {image.height}; reduce it first")
        yield image


def decode(image: Image.Image) -> list[str]:
    """Read the pixels of an opened image, of the first frame; return notes on what is left behind.

    Raises:
        ValueError: the file ends early or is broken.
    """
    notes = []
    try:
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a JPEG with previews behind it
            image.seek(0)
            notes.append("animated or several pages: the first one is used")
        if any("16" in str(tile[3]) for tile in getattr(image, "tile", ())) or image.mode.startswith("I"):
            notes.append("16-bit reduced to 8-bit")
        image.load()
    except _BROKEN as error:
        name = getattr(image, "filename", "") or "an image"
        raise ValueError(f"{name}: must be a whole image file; reading it failed: {error}") from None
    return notes
