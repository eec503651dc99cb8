"""A file without what stands beside its pixels: where Pillow fails over that, the pixels may still be perfect."""

from __future__ import annotations

from typing import IO

_PNG = b"\x89PNG\r\n\x1a\n"
_JPEG = b"\xff\xd8\xff"
_APP1, _SCAN, _FILL = b"\xe1", b"\xda", b"\xff"


def bare(file: IO[bytes]) -> tuple[bytes, str] | None:
    """A JPEG file without EXIF and XMP, or a PNG file without ancillary chunks, and the note; None of other formats.

    The pixels of a result are those of the file, but for the transparency that a PNG file has in a chunk of its own.
    """
    file.seek(0)
    start = file.read(len(_PNG))
    if start == _PNG:
        return _bare_png(start + file.read()), "its chunks beside the pixels could not be read and were dropped"
    if start.startswith(_JPEG):
        return _bare_jpeg(start + file.read()), "its EXIF could not be read and was dropped"
    return None


def _bare_png(data: bytes) -> bytes:
    kept, at = [_PNG], len(_PNG)
    while at < len(data):
        end = at + 12 + int.from_bytes(data[at : at + 4])  # length, kind, data, CRC
        if data[at + 4 : at + 5].isupper():  # a lower-case letter: ancillary
            kept.append(data[at:end])
        at = end
    return b"".join(kept)


def _bare_jpeg(data: bytes) -> bytes:
    kept, at = [data[:2]], 2
    while data[at : at + 1] == b"\xff" and data[at + 1 : at + 2] not in (_SCAN, _FILL):
        end = at + 2 + int.from_bytes(data[at + 2 : at + 4])
        if data[at + 1 : at + 2] != _APP1:
            kept.append(data[at:end])
        at = end
    return b"".join([*kept, data[at:]])
