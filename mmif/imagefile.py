"""Photographs as files: read whole or not at all, keep what belongs to the photograph, write by rename."""

from __future__ import annotations

import os
import struct
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from PIL import ExifTags, Image, ImageOps

MAX_PIXELS = 178_000_000  # just below where Pillow itself refuses; 12000 x 9000 is 108 million

# What a result is written as, by the suffix of its name. All but JPEG give back the pixels that went in.
_WRITERS: dict[str, tuple[str, dict[str, object]]] = {
    ".png": ("PNG", {}),
    ".jpg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".jpeg": ("JPEG", {"quality": 95, "subsampling": 0}),
    ".webp": ("WEBP", {"lossless": True, "exact": True}),
    ".tif": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".tiff": ("TIFF", {"compression": "tiff_adobe_deflate"}),
    ".bmp": ("BMP", {}),
}
# What is read, whatever the name says. Pillow knows more: PostScript, for one, which it lets another program run.
FORMATS = ("PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM")
READ_SUFFIXES = frozenset(_WRITERS) | {".gif", ".jfif", ".mpo", ".avif"}
_OPAQUE = ("JPEG", "BMP")
_ORIENTATION = ExifTags.Base.Orientation
# In TIFF the description of the pixels sits among the EXIF tags; only these speak of the photograph.
_TIFF_KEPT = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x8298, 0x8769, 0x8825})
_BROKEN = (OSError, SyntaxError, ValueError, EOFError, IndexError, TypeError, struct.error)  # what decoders raise


@dataclass(frozen=True, slots=True)
class Photo:
    """A photograph as the model needs it, and what its file must keep.

    Attributes:
        rgb: uint8 [H, W, 3], upright.
        alpha: uint8 [H, W], or None if it is opaque.
        grey: the file holds one channel; the result will, too.
        icc_profile: colour profile of the pixels.
        exif: EXIF block whose orientation says upright.
        notes: what was changed on the way in, one line each.
    """

    rgb: np.ndarray
    alpha: np.ndarray | None = None
    grey: bool = False
    icc_profile: bytes | None = None
    exif: bytes | None = None
    notes: tuple[str, ...] = ()

    @property
    def size(self) -> tuple[int, int]:
        """(width, height) in pixels."""
        return self.rgb.shape[1], self.rgb.shape[0]


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


def read_rgb(path: str | os.PathLike[str]) -> Photo:
    """Read the photograph at ``path``; see :func:`photo_from_pil`. ValueError if it cannot be read whole."""
    with opened(path) as image:
        return photo_from_pil(image)


def photo_from_pil(image: Image.Image) -> Photo:
    """Turn any PIL image upright and into 8-bit RGB; what gets lost is said in ``notes``.

    Raises:
        ValueError: a mode without a meaning as a photograph, such as 32-bit float.
    """
    notes = decode(image)
    exif = image.getexif()
    if exif.get(_ORIENTATION, 1) != 1:
        image = ImageOps.exif_transpose(image)
        notes.append("turned upright as its EXIF says")
    icc_profile = image.info.get("icc_profile")
    if image.mode in ("CMYK", "YCbCr", "LAB", "HSV"):
        notes.append(f"{image.mode} converted to RGB" + (", its colour profile dropped" if icc_profile else ""))
        icc_profile = None
    rgb, alpha, grey = _pixels(image)
    return Photo(rgb, alpha, grey, icc_profile, _exif_bytes(exif, image.format), tuple(notes))


def _pixels(image: Image.Image) -> tuple[np.ndarray, np.ndarray | None, bool]:
    """(uint8 [H, W, 3], alpha or None, whether the image is grey)."""
    if image.mode.startswith("I"):
        image = Image.fromarray(_reduce_16_bit(np.asarray(image)))
    elif image.mode == "F":
        raise ValueError("a photograph must have 8 or 16 bits per channel; this one is 32-bit float; convert it first")
    grey = image.mode in ("1", "L", "LA", "La")
    alpha = None
    if image.has_transparency_data:
        image = image.convert("RGBA")
        alpha = np.asarray(image.getchannel("A"))
    return np.asarray(image if image.mode == "RGB" else image.convert("RGB")), alpha, grey


def _reduce_16_bit(values: np.ndarray) -> np.ndarray:
    """uint16 or int32 [H, W] in 0..65535 -> uint8, rounded."""
    if values.min() < 0 or values.max() > 65535:
        raise ValueError(f"16-bit values must lie in 0..65535, got {values.min()}..{values.max()}; convert it first")
    return ((values.astype(np.uint32) + 128) // 257).astype(np.uint8)


def _exif_bytes(exif: Image.Exif, file_format: str | None) -> bytes | None:
    kept = Image.Exif()
    kept.load(exif.tobytes())
    for tag in list(kept):
        if tag == _ORIENTATION or (file_format == "TIFF" and tag not in _TIFF_KEPT):
            del kept[tag]
    return kept.tobytes() if len(kept) else None


def to_pil(rgb: np.ndarray, photo: Photo) -> Image.Image:
    """Return ``rgb`` (uint8 [H, W, 3]) as a PIL image with the alpha, greyness, profile and EXIF of ``photo``."""
    image = Image.fromarray(rgb)
    if photo.grey:
        image = image.convert("L")  # exact for pixels whose channels are equal
    if photo.alpha is not None:
        image.putalpha(Image.fromarray(photo.alpha))
    if photo.icc_profile:
        image.info["icc_profile"] = photo.icc_profile
    if photo.exif:
        image.info["exif"] = photo.exif
    return image


def writable_suffix(path: Path) -> str:
    """Suffix of a result for the photograph ``path``: its own, or ``.png`` where that format cannot hold one."""
    return path.suffix if path.suffix.lower() in _WRITERS else ".png"


def check_target(path: Path) -> None:
    """Check, before any work, that a result can be written at ``path``; its folder is made if it is missing.

    Raises:
        ValueError: unknown suffix, or the folder cannot be written.
    """
    writer = _WRITERS.get(path.suffix.lower())
    if writer is None:
        raise ValueError(f"an output must end in one of {', '.join(_WRITERS)}; got {path.name!r}")
    if path.is_dir():
        raise ValueError(f"an output must be a file; {path} is a folder")
    probe = _temporary(path)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise ValueError(f"the output {path} must be writable: {error.strerror}; choose another folder") from None


def lost_in(path: Path, photo: Photo) -> list[str]:
    """What the format of ``path`` cannot keep of ``photo``, one line each."""
    file_format = _WRITERS[path.suffix.lower()][0]
    notes = []
    if file_format == "JPEG":
        notes.append("JPEG is lossy: write to .png to keep known pixels byte-identical")
    if file_format in _OPAQUE and photo.alpha is not None:
        notes.append(f"{file_format} has no alpha: write to .png to keep it")
    return notes


def write_image(image: Image.Image, path: Path) -> None:
    """Write ``image`` in the format of the suffix, with the profile and EXIF in ``image.info``.

    The file appears under its name when it is whole: it is written beside it and renamed.
    """
    file_format, options = _WRITERS[path.suffix.lower()]
    if file_format in _OPAQUE and image.mode in ("LA", "RGBA"):
        image = image.convert(image.mode[:-1])
    if file_format != "BMP":
        options = options | {key: image.info[key] for key in ("icc_profile", "exif") if key in image.info}
    if file_format == "TIFF" and "exif" in options:
        del options["compression"]  # libtiff, which compresses, cannot write the directory of a camera's EXIF
    temporary = _temporary(path)
    try:
        image.save(temporary, file_format, **options)
        os.replace(temporary, path)
    except (OSError, ValueError) as error:  # the disk is full, or the picture too large for this format
        raise OSError(f"{path} could not be written as {file_format}: {error}") from error
    finally:
        temporary.unlink(missing_ok=True)


def _temporary(path: Path) -> Path:
    return path.with_name(f".{path.name}.{os.getpid()}.part")
