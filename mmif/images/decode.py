"""Image files opened and decoded: whole or not at all, and none that is too large.

Whatever a decoder raises, it is a fault of that file: :func:`guarded` turns it into one line that names the file.
"""

from __future__ import annotations

import importlib
import io
import os
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import IO

from PIL import Image, UnidentifiedImageError

from mmif.images.bare import bare

MAX_PIXELS = 178_000_000  # just below where Pillow itself refuses; 12000 x 9000 is 108 million
MAX_SIDE = 100_000  # squares round a hole are as long as the hole: memory grows with the side, too
# What is read, whatever the name says. Pillow knows more: PostScript, for one, which it lets another program run.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
READ_SUFFIXES = frozenset(
    {".png", ".jpg", ".jpeg", ".jpe", ".jfif", ".mpo", ".webp", ".tif", ".tiff", ".bmp", ".gif", ".avif"}
    | {".ppm", ".pgm", ".pbm", ".pnm"}
)
HEIF_SUFFIXES = frozenset({".heic", ".heif"})  # read where the extra `heif` is installed
NO_HEIF = 'HEIC needs pillow-heif: pip install "mminvertfill[heif]"'
_DROPPED = "mmif.dropped"  # key of image.info
_HEIF_BRANDS = (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1")

Source = str | os.PathLike[str] | IO[bytes]


@cache
def heif_is_readable() -> bool:
    """Whether pillow-heif is here; it is registered with Pillow on the first call."""
    try:
        importlib.import_module("pillow_heif").register_heif_opener()
    except Exception:  # not installed, or not for this Pillow: a foreign package may fail in any way
        return False
    return True


def name_of(source: object, what: str) -> str:
    """What a file, or a PIL image of one, is called in errors; ``what`` if it has no name."""
    if isinstance(source, (str, os.PathLike)):
        return os.fspath(source)
    name = getattr(source, "filename", None) or getattr(source, "name", None)
    return os.fspath(name) if isinstance(name, (str, os.PathLike)) and name else what


@contextmanager
def guarded(name: str) -> Iterator[None]:
    """Run foreign code on a foreign file: every failure is a ValueError of one line, and its warnings are silent.

    Raises:
        ValueError: the code failed, whatever it raised, out of memory among it.
        PermissionError: the file must not be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            yield
    except PermissionError:
        raise
    except Image.DecompressionBombError:
        raise ValueError(f"{name}: {_LIMIT}; reduce it first") from None
    except MemoryError:
        raise ValueError(f"{name}: there is not enough memory to read it; reduce it first") from None
    except Exception as error:
        reason = " ".join(str(error).split()) or type(error).__name__
        raise ValueError(f"{name}: must be a whole image file; reading it failed: {reason}") from None


_LIMIT = f"an image may have at most {MAX_PIXELS // 1_000_000} million pixels and a side of {MAX_SIDE:,}"


def check_bounds(width: int, height: int, name: str) -> None:
    """Raise ValueError if a picture has too many pixels, or too long a side."""
    if width * height > MAX_PIXELS or max(width, height) > MAX_SIDE:
        raise ValueError(f"{name}: {_LIMIT}; it has {width} x {height}; reduce it first")


@contextmanager
def opened(source: Source) -> Iterator[Image.Image]:
    """Open an image file, by its path or opened for reading bytes; :func:`decode` reads its pixels.

    Raises:
        ValueError: the file is missing, no image, or larger than the bounds.
        PermissionError: it must not be read.
    """
    name = name_of(source, "the file")
    if isinstance(source, (str, os.PathLike)):
        if not Path(source).is_file():
            folder = Path(source).is_dir()
            raise ValueError(
                f"{name} is a folder; name an image file" if folder else f"no image file at {name}; check the path"
            )
        # A file that Pillow knows by name it maps into memory, and swaps the sides of some TIFF files when it does.
        with open(source, "rb") as file, opened(file) as image:
            yield image
        return
    with guarded(name):
        file = source if source.seekable() else io.BytesIO(source.read())
        heif = _is_heif(file)
        image = _open(file, heif)
    if image is None:
        if heif and not heif_is_readable():
            raise ValueError(f"{name}: {NO_HEIF}")
        raise ValueError(f"{name}: not an image that can be read here ({', '.join(FORMATS)})")
    with image:
        check_bounds(*image.size, name)
        yield image


def _open(file: IO[bytes], heif: bool) -> Image.Image | None:
    try:
        return Image.open(file, formats=(*FORMATS, "HEIF") if heif and heif_is_readable() else FORMATS)
    except UnidentifiedImageError:
        return _open_bare(file)
    except ValueError:  # a chunk of a PNG file that is cut, or swells
        image = _open_bare(file)
        if image is None:
            raise
        return image


def _open_bare(file: IO[bytes]) -> Image.Image | None:
    """Open a file whose pixels may be whole though what stands beside them is broken."""
    rest = bare(file)
    if rest is None:
        return None
    data, note = rest
    try:
        image = Image.open(io.BytesIO(data), formats=FORMATS)
    except UnidentifiedImageError:
        return None
    image.info[_DROPPED] = note
    return image


def _is_heif(file: IO[bytes]) -> bool:
    """Whether a file begins as HEIC does, whatever it is called."""
    file.seek(0)
    start = file.read(12)
    return start[4:8] == b"ftyp" and start[8:] in _HEIF_BRANDS


def decode(image: Image.Image, name: str) -> list[str]:
    """Read the pixels of an opened image, of the first frame; return notes on what is left behind.

    Args:
        image: from :func:`opened`, or any other.
        name: what it is called in errors.

    Raises:
        ValueError: the file ends early, is broken, or larger than the bounds.
    """
    check_bounds(*image.size, name)
    notes = [image.info[_DROPPED]] if _DROPPED in image.info else []
    with guarded(name):
        if getattr(image, "n_frames", 1) > 1 and image.format != "MPO":  # MPO: a JPEG with previews behind it
            image.seek(0)
            notes.append("animated or several pages: the first one is used")
        if _has_deep_colours(image):
            notes.append("16-bit reduced to 8-bit")
        image.load()
    return notes


def _has_deep_colours(image: Image.Image) -> bool:
    """Whether the file has several channels of 16 bits; Pillow gives 8 of them."""
    if image.mode.startswith("I"):
        return False
    for tile in getattr(image, "tile", ()):
        arguments = tile[3] if isinstance(tile[3], tuple) else (tile[3],)
        if ";16" in str(arguments[0]) or (image.format == "PPM" and arguments[-1] == 65535):
            return True
    return False
