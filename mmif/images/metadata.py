"""What a photograph's file says beside its pixels: kept if it can be read, dropped with a word if not.

Orientation is no such thing: a picture that was read is upright, and so is whatever is made of it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, TypeVar

from PIL import ExifTags, Image, JpegImagePlugin

from mmif.images.decode import guarded

_T = TypeVar("_T")

_ORIENTATION = ExifTags.Base.Orientation
_TURNS: dict[Any, Image.Transpose] = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
# In TIFF the description of the pixels sits among the EXIF tags; only these speak of the photograph.
_TIFF_KEPT = frozenset({0x010E, 0x010F, 0x0110, 0x0131, 0x0132, 0x013B, 0x013C, 0x8298, 0x8769, 0x8825})
_TIFF_KEPT |= {0x4746, 0x4749, *range(0x9C9B, 0x9CA0)}  # ratings, and titles as Windows has them
_XMP_ORIENTATION = re.compile(rb"""(tiff:Orientation\s*(?:=\s*["']|>\s*))[2-8]""")
_UNUSABLE: Any = object()
_OTHERWISE_KEPT = ("XML:com.adobe.xmp", "Raw profile type ")  # PNG texts that hold XMP and EXIF


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a file says of its picture.

    Attributes:
        icc_profile: colour profile of the pixels.
        exif: EXIF block whose orientation says upright.
        xmp: XMP packet, UTF-8, whose orientation says upright.
        dpi: pixels per inch, across and down.
        comment: comment of a JPEG or GIF file.
        text: texts of a PNG file by their keyword.
        jpeg: how Pillow is told to compress as the file was: ``qtables``, ``subsampling``, ``progressive``.
    """

    icc_profile: bytes | None = None
    exif: bytes | None = None
    xmp: bytes | None = None
    dpi: tuple[float, float] | None = None
    comment: bytes | None = None
    text: dict[str, str] = field(default_factory=dict)
    jpeg: dict[str, Any] = field(default_factory=dict)


def upright(image: Image.Image, notes: list[str], owner: str = "") -> Image.Image:
    """Turn a decoded picture as its EXIF says; what was done is added to ``notes``, ``owner`` in front."""
    turn = _attempt(lambda: _TURNS.get(image.getexif().get(_ORIENTATION)), None)
    if turn is None:
        return image
    notes.append(f"{owner}turned upright as its EXIF says")
    return image.transpose(turn)


def read_metadata(image: Image.Image) -> tuple[Metadata, list[str]]:
    """Read what the file of a decoded picture says; return it and a note for each part that had to be dropped."""
    notes: list[str] = []

    def take(what: str, read: Callable[[], _T | None]) -> _T | None:
        """The part, None if the file has none or, with a note, one that cannot be used."""
        value = _attempt(read, _UNUSABLE)
        if value is _UNUSABLE:
            notes.append(f"its {what} could not be read and was dropped")
            return None
        return value

    return Metadata(
        take("colour profile", lambda: _bytes(image.info.get("icc_profile"))),
        take("EXIF", lambda: _exif(image)),
        take("XMP", lambda: _xmp(image)),
        take("resolution", lambda: _dpi(image)),
        take("comment", lambda: _bytes(image.info.get("comment"))),
        take("text", lambda: _text(image)) or {},
        take("JPEG quality", lambda: _jpeg(image)) or {},
    ), notes


def _attempt(read: Callable[[], Any], otherwise: Any) -> Any:
    """What ``read`` returns, ``otherwise`` if it fails in whichever way."""
    try:
        with guarded(""):
            return read()
    except (ValueError, PermissionError):
        return otherwise


def _bytes(value: object) -> bytes | None:
    if value is not None and not isinstance(value, bytes):
        raise TypeError(f"expected bytes, got {type(value).__name__}")
    return value or None


def exif_for_tiff(block: bytes) -> Image.Exif:
    """The tags of an EXIF block that may stand among those that describe the pixels of a TIFF file."""
    kept = Image.Exif()
    kept.load(block)
    for tag in set(kept) - _TIFF_KEPT:
        del kept[tag]
    return kept


def _exif(image: Image.Image) -> bytes | None:
    block = image.getexif().tobytes()
    if image.format == "TIFF":
        kept = exif_for_tiff(block)
    else:
        kept = Image.Exif()
        kept.load(block)
    if _ORIENTATION in kept:
        del kept[_ORIENTATION]
    return kept.tobytes() if len(kept) else None


def _xmp(image: Image.Image) -> bytes | None:
    xmp = _bytes(image.info.get("xmp"))
    if xmp is None:
        return None
    xmp.decode()  # XMP in another encoding cannot go into every format
    return _XMP_ORIENTATION.sub(rb"\g<1>1", xmp.rstrip(b"\0"))


def _dpi(image: Image.Image) -> tuple[float, float] | None:
    if "dpi" not in image.info:
        return None
    across, down = (float(value) for value in image.info["dpi"])
    if (across, down) in ((0.0, 0.0), (1.0, 1.0)):  # what Pillow says where a file says nothing
        return None
    if not (math.isfinite(across * down) and 1 <= min(across, down) and max(across, down) <= 65535):
        raise ValueError(f"{across} x {down} dpi is not a usable resolution")
    return across, down


def _text(image: Image.Image) -> dict[str, str]:
    if image.format != "PNG":
        return {}
    texts = getattr(image, "text", {})
    return {key: value for key, value in texts.items() if not key.startswith(_OTHERWISE_KEPT)}


def _jpeg(image: Image.Image) -> dict[str, Any]:
    if not isinstance(image, JpegImagePlugin.JpegImageFile) or image.mode not in ("L", "RGB"):
        return {}
    sampling = JpegImagePlugin.get_sampling(image)
    return {
        "qtables": {key: list(table) for key, table in image.quantization.items()},
        "subsampling": max(sampling, 0),  # -1: grey, or none that Pillow can write
        "progressive": bool(image.info.get("progressive")),
    }
