"""Pictures to files: in the format of the suffix, with what belongs to the photograph, written whole."""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, PngImagePlugin

from mmif.files import check_writable, writing
from mmif.images.metadata import exif_for_tiff
from mmif.images.photo import Photo
from mmif.images.source import reduce_16_bit

# What a result is written as, by the suffix of its name. All but JPEG give back the pixels that went in.
_FORMATS = {
    ".png": "PNG", ".jpg": "JPEG", ".jpeg": "JPEG", ".webp": "WEBP", ".tif": "TIFF", ".tiff": "TIFF", ".bmp": "BMP"
}  # fmt: skip
_OPTIONS: dict[str, dict[str, Any]] = {
    "PNG": {},
    "JPEG": {"quality": 95, "subsampling": 0},
    "WEBP": {"lossless": True, "exact": True},
    "TIFF": {"compression": "tiff_adobe_deflate"},
    "BMP": {},
}
# What a format keeps of a photograph beside its pixels, by the field of Metadata.
_KEEPS = {
    "PNG": {"icc_profile", "exif", "xmp", "dpi", "comment", "text"},
    "JPEG": {"icc_profile", "exif", "xmp", "dpi", "comment"},
    "WEBP": {"icc_profile", "exif", "xmp"},
    "TIFF": {"icc_profile", "exif", "xmp", "dpi"},
    "BMP": {"dpi"},
}
_NAMES = {
    "icc_profile": "colour profile", "exif": "EXIF", "xmp": "XMP", "dpi": "resolution", "comment": "comment",
    "text": "texts",
}  # fmt: skip
_MARKER = {"exif": 65_533, "xmp": 65_504, "comment": 65_533}  # bytes that fit into one marker of a JPEG file
_OPAQUE = ("JPEG", "BMP")
_DEEP = ("PNG", "TIFF")
_XMP_TAG = 700  # of TIFF


def writable_suffix(path: Path) -> str:
    """Suffix of a result for the photograph ``path``: its own, or ``.png`` where that format cannot hold one."""
    return path.suffix if path.suffix.lower() in _FORMATS else ".png"


def is_jpeg(path: Path) -> bool:
    """Whether a result of this name is a JPEG file."""
    return _FORMATS.get(path.suffix.lower()) == "JPEG"


def check_target(path: Path) -> None:
    """Check, before any work, that a result can be written at ``path``; its folder is made if it is missing.

    Raises:
        ValueError: unknown suffix, or the folder cannot be written.
    """
    if path.suffix.lower() not in _FORMATS:
        raise ValueError(f"an output must end in one of {', '.join(_FORMATS)}; got {path.name!r}")
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise ValueError(f"the output {path} must be writable: {error.strerror}; choose another folder") from None
    check_writable(path)


def lost_in(path: Path, photo: Photo) -> list[str]:
    """What the format of ``path`` cannot keep of ``photo``, one line each."""
    file_format = _FORMATS[path.suffix.lower()]
    notes = []
    if file_format == "JPEG":
        notes.append("JPEG is lossy: write to .png to keep known pixels byte-identical")
    if file_format in _OPAQUE and photo.alpha is not None:
        notes.append(f"{file_format} has no alpha: write to .png to keep it")
    if file_format not in _DEEP and photo.deep is not None:
        notes.append(f"{file_format} has no 16 bits: write to .png to keep them")
    said = {name: getattr(photo.metadata, name) for name in _NAMES}
    lost = [_NAMES[name] for name, value in said.items() if value and not _fits(file_format, name, value)]
    if lost:
        notes.append(f"{file_format} cannot keep the {', '.join(lost)} of this photograph: write to .png")
    return notes


def _fits(file_format: str, name: str, value: Any) -> bool:
    return name in _KEEPS[file_format] and (file_format != "JPEG" or len(value) <= _MARKER.get(name, len(value)))


def write_image(image: Image.Image, path: Path, quality: int | None = None) -> None:
    """Write ``image`` in the format of the suffix, with the metadata that :func:`mmif.images.compose.compose` gave it.

    A JPEG file is compressed as that of the photograph was, if it was one. The file appears under its name when it is
    whole.

    Args:
        image: of mode L, LA, RGB, RGBA, P or I;16.
        path: file to write; its folder exists.
        quality: of a JPEG file, 1..100; None: the photograph's, or 95.

    Raises:
        OSError: the picture is too large for the format, or the file cannot be written.
    """
    file_format = _FORMATS[path.suffix.lower()]
    options = _options(file_format, image.info, quality)
    if file_format in _OPAQUE and image.mode in ("LA", "RGBA"):
        image = image.convert(image.mode[:-1])
    if file_format not in _DEEP and image.mode == "I;16":
        image = Image.fromarray(reduce_16_bit(np.asarray(image)))
    encoded = io.BytesIO()
    try:
        image.save(encoded, file_format, **options)
    except Exception as error:  # the picture, or what belongs to it, is too much for this format
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"{path} could not be written as {file_format}: {reason}") from error
    with writing(path) as file:
        file.write(encoded.getbuffer())


def _options(file_format: str, info: dict[Any, Any], quality: int | None) -> dict[str, Any]:
    """What Pillow's writer of a format is told."""
    kept = {name: info[name] for name in _NAMES if info.get(name) and _fits(file_format, name, info[name])}
    options = dict(_OPTIONS[file_format])
    if file_format == "JPEG" and quality is not None:
        options["quality"] = quality
    elif file_format == "JPEG" and "jpeg" in info:
        options = dict(info["jpeg"])
    if file_format == "JPEG":
        kept.setdefault("comment", b"")  # else Pillow takes one that is too long from the image
    if file_format == "PNG":
        options["pnginfo"] = _png_texts(kept.pop("text", {}), kept.pop("comment", None), kept.pop("xmp", None))
    if file_format == "TIFF":
        exif = exif_for_tiff(kept.pop("exif", b""))
        if len(exif):
            del options["compression"]  # libtiff, which compresses, cannot write the directory of a camera's EXIF
        if "xmp" in kept:
            exif[_XMP_TAG] = kept.pop("xmp")
        options["exif"] = exif
    return options | kept


def _png_texts(text: dict[str, str], comment: bytes | None, xmp: bytes | None) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in text.items():
        chunks.add_text(key, value)
    if comment and "Comment" not in text:
        chunks.add_text("Comment", comment.decode(errors="replace"))
    if xmp:
        chunks.add_itxt("XML:com.adobe.xmp", xmp.decode())
    return chunks
