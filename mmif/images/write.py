"""Photographs to files: in the format of the suffix, with what belongs to the photograph, written whole."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
from PIL import Image

from mmif.images.photo import Photo

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
_OPAQUE = ("JPEG", "BMP")


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
