"""Files that are wrong in one place, built from bytes."""

from __future__ import annotations

import io
import struct
import zlib
from typing import Any

import numpy as np
from PIL import Image

SIZE = (12, 8)
PIXELS = np.random.default_rng(3).integers(0, 256, (8, 12, 3), np.uint8)


def encoded(file_format: str, image: Image.Image | None = None, **options: Any) -> bytes:
    out = io.BytesIO()
    (image or Image.fromarray(PIXELS)).save(out, file_format, **options)
    return out.getvalue()


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, depth: int = 8, colour: int = 2) -> bytes:
    """A PNG file that ends before its pixels."""
    header = struct.pack(">IIBBBBB", width, height, depth, colour, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", b"")


def png_with(*chunks: bytes, image: Image.Image | None = None) -> bytes:
    """A PNG file with more chunks behind its header."""
    png = encoded("PNG", image)
    return png[:33] + b"".join(chunks) + png[33:]


def entry(tag: int, kind: int, count: int, value: bytes) -> bytes:
    return struct.pack("<HHI", tag, kind, count) + value.ljust(4, b"\0")


def exif(*entries: bytes) -> bytes:
    """An EXIF block of entries whose values fit into four bytes, or point nowhere."""
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(entries)) + b"".join(entries) + struct.pack("<I", 0)


ORIENTATION, MAKE, X_RESOLUTION = 0x0112, 0x010F, 0x011A
ASCII, SHORT, LONG, RATIONAL, SIGNED_SHORT = 2, 3, 4, 5, 8

BROKEN_EXIF = {
    "orientation-ascii": exif(entry(ORIENTATION, ASCII, 2, b"6\0")),
    "orientation-rational-beyond-the-end": exif(entry(ORIENTATION, RATIONAL, 1, struct.pack("<I", 9999))),
    "orientation-none": exif(entry(ORIENTATION, SHORT, 0, b"")),
    "orientation-77": exif(entry(ORIENTATION, SHORT, 1, struct.pack("<H", 77))),
    "make-rational": exif(entry(MAKE, RATIONAL, 1, struct.pack("<I", 8))),
    "make-long": exif(entry(MAKE, LONG, 1, struct.pack("<I", 8))),
    "resolution-ascii": exif(entry(X_RESOLUTION, ASCII, 2, b"7\0")),
    "exif-ifd-beyond-the-end": exif(entry(0x8769, LONG, 1, struct.pack("<I", 123456))),
    "ifd-in-a-circle": exif(entry(0x8769, LONG, 1, struct.pack("<I", 8))),
    "kind-99": exif(entry(ORIENTATION, 99, 1, struct.pack("<H", 6))),
    "no-tiff": b"Exif\0\0rubbish that is none",
    "cut": b"Exif\0\0II*\0\x08",
    "count-beyond-the-end": b"Exif\0\0II*\0" + struct.pack("<IH", 8, 60000),
    "empty": b"Exif\0\0",
}
