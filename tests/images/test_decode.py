"""Files that are broken, too large, or none: one line that names the file, whatever the decoder raised."""

from __future__ import annotations

import io
import struct
import sys
import warnings

import numpy as np
import pytest
from images.malformed import BROKEN_EXIF, PIXELS, chunk, encoded, png_header, png_with
from PIL import Image

from mmif.images import decode
from mmif.images.masks import to_binary
from mmif.images.photo import read_rgb, to_photo

FAILURES = [
    RuntimeError, struct.error, TypeError, KeyError, SyntaxError, AssertionError, AttributeError, IndexError, EOFError,
    OSError, ValueError, MemoryError, OverflowError, ZeroDivisionError, RecursionError, Image.DecompressionBombError,
]  # fmt: skip


@pytest.mark.parametrize("failure", FAILURES, ids=lambda failure: failure.__name__)
def test_whatever_a_decoder_raises_is_one_line_with_the_name_of_the_file(failure):
    with pytest.raises(ValueError, match=r"^a\.png: [^\n]+$") as caught, decode.guarded("a.png"):
        raise failure("first line\n  and another")
    assert type(caught.value) is ValueError
    assert caught.value.__suppress_context__


def test_the_line_says_what_failed():
    lines = {
        MemoryError(): "a.png: there is not enough memory to read it; reduce it first",
        KeyError(): "a.png: must be a whole image file; reading it failed: KeyError",
        OSError("  two\n words "): "a.png: must be a whole image file; reading it failed: two words",
        Image.DecompressionBombError("x"): (
            "a.png: an image may have at most 178 million pixels and a side of 100,000; reduce it first"
        ),
    }
    for failure, line in lines.items():
        with pytest.raises(ValueError) as caught, decode.guarded("a.png"):  # noqa: PT011 -- the whole line is compared
            raise failure
        assert str(caught.value) == line


@pytest.mark.parametrize("failure", [PermissionError, KeyboardInterrupt, SystemExit])
def test_what_is_no_fault_of_the_file_passes(failure):
    with pytest.raises(failure), decode.guarded("a.png"):
        raise failure("x")


def test_warnings_of_a_decoder_stay_with_it(recwarn):
    with decode.guarded("a.png"):
        warnings.warn("Corrupt EXIF data", stacklevel=1)
    assert not recwarn.list


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM"])
def test_every_format_is_read_by_its_content(tmp_path, file_format):
    (tmp_path / "a.jpg").write_bytes(encoded(file_format))
    photo = read_rgb(tmp_path / "a.jpg")
    assert photo.size == (12, 8)
    if file_format in ("PNG", "TIFF", "BMP", "PPM"):
        assert np.array_equal(photo.rgb, PIXELS)


@pytest.mark.parametrize("file_format", ["PSD", "ICO", "SGI", "TGA", "PCX", "JPEG2000", "EPS", "DDS", "PDF"])
def test_no_other_is(tmp_path, file_format):
    """Pillow would read them: EPS by running Ghostscript on it."""
    if file_format == "PSD":
        content = b"8BPS\0\1" + bytes(6) + struct.pack(">HIIHH", 3, 8, 12, 8, 3) + bytes(1000)
    else:
        content = encoded(file_format)
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError) as caught:  # noqa: PT011 -- the whole line is compared
        read_rgb(tmp_path / "a.png")
    assert str(caught.value) == (
        f"{tmp_path}/a.png: not an image that can be read here (PNG, JPEG, WEBP, TIFF, BMP, GIF, AVIF, PPM)"
    )


@pytest.mark.parametrize("position", [0, 5, 100])
def test_an_open_file_is_read_from_its_beginning(position):
    file = io.BytesIO(encoded("PNG"))
    file.seek(position)
    assert np.array_equal(to_photo(file).rgb, PIXELS)
    assert not file.closed


def test_a_pipe_is_read_to_its_end():
    class Pipe(io.RawIOBase):
        def __init__(self, content: bytes):
            self.content = io.BytesIO(content)

        def readable(self) -> bool:
            return True

        def readinto(self, buffer) -> int:
            return self.content.readinto(buffer)

    assert np.array_equal(to_photo(io.BufferedReader(Pipe(encoded("PNG")))).rgb, PIXELS)


def test_names_in_errors(tmp_path):
    (tmp_path / "a.png").write_bytes(b"")
    with open(tmp_path / "a.png", "rb") as file, pytest.raises(ValueError, match=rf"^{tmp_path}/a\.png: not an im"):
        to_photo(file)
    with pytest.raises(ValueError, match=r"^the file: not an image that can be read here"):
        to_photo(io.BytesIO())
    image = Image.open(io.BytesIO(encoded("PNG")[:-30]))
    with pytest.raises(ValueError, match=r"^the image: must be a whole"):
        to_photo(image)
    (tmp_path / "a.png").write_bytes(encoded("PNG")[:-30])
    with Image.open(tmp_path / "a.png") as image, pytest.raises(ValueError, match=rf"^{tmp_path}/a\.png: must be a wh"):
        to_photo(image)
    with Image.open(tmp_path / "a.png") as image, pytest.raises(ValueError, match=rf"^{tmp_path}/a\.png: must be a wh"):
        to_binary(image, (12, 8))


# Bounds


@pytest.mark.parametrize(
    ("width", "height", "fits"),
    [
        (100_000, 1, True), (100_001, 1, False), (1, 100_001, False), (60_000_000, 1, False), (1, 60_000_000, False),
        (89_000, 2000, True), (89_001, 2000, False), (60_000, 60_000, False),
    ],
)  # fmt: skip
def test_what_is_too_large_is_refused_before_any_work(tmp_path, width, height, fits):
    path = tmp_path / "a.png"
    path.write_bytes(png_header(width, height))
    with pytest.raises(ValueError, match=r"a\.png: ") as caught, decode.opened(path):
        raise ValueError("a.png: it was opened")
    line = str(caught.value)
    assert (line == "a.png: it was opened") == fits
    if not fits:
        assert line.startswith(f"{path}: an image may have at most 178 million pixels and a side of 100,000; ")
        assert line.endswith("; reduce it first")
        assert f"it has {width} x {height}" in line or width * height > 200_000_000  # Pillow does not say


def test_pictures_in_memory_have_the_same_bounds():
    for source in (Image.new("1", (100_001, 1)), np.zeros((1, 100_001), np.uint8)):
        with pytest.raises(ValueError, match=r"the image: an image may have .*; it has 100001 x 1; reduce"):
            to_photo(source)
    with pytest.raises(ValueError, match=r"the mask: an image may have .*; it has 100001 x 1"):
        to_binary(Image.new("1", (100_001, 1)), (100_001, 1))
    assert to_photo(Image.new("1", (100_000, 1))).size == (100_000, 1)


# 16 bits


@pytest.mark.parametrize("width", [16, 160, 16 * 16])
@pytest.mark.parametrize("file_format", ["BMP", "TIFF", "PNG", "PPM"])
def test_8_bits_are_not_taken_for_16(file_format, width):
    picture = Image.new("RGB", (width, 16))
    assert to_photo(io.BytesIO(encoded(file_format, picture))).notes == ()


@pytest.mark.parametrize(("top", "notes"), [(255, ()), (65535, ("16-bit reduced to 8-bit",))])
def test_colours_of_16_bits_in_a_ppm_are_reduced_with_a_word(top, notes):
    kind = ">u2" if top > 255 else "u1"
    content = b"P6 2 1 %d\n" % top + np.array([0, top, 0, top, 0, top], kind).tobytes()
    photo = to_photo(io.BytesIO(content))
    assert photo.rgb.tolist() == [[[0, 255, 0], [255, 0, 255]]]
    assert photo.notes == notes


# Malformed on purpose


@pytest.mark.parametrize("broken", BROKEN_EXIF)
@pytest.mark.parametrize("file_format", ["JPEG", "PNG", "WEBP"])
def test_broken_exif_costs_no_photograph(tmp_path, file_format, broken):
    path = tmp_path / "a.xyz"
    if file_format == "PNG":
        path.write_bytes(png_with(chunk(b"eXIf", BROKEN_EXIF[broken][6:])))
    else:
        path.write_bytes(encoded(file_format, exif=BROKEN_EXIF[broken]))
    photo = read_rgb(path)
    assert photo.size == (12, 8)
    assert set(photo.notes) <= {"its EXIF could not be read and was dropped"}
    assert np.array_equal(to_binary(path, (12, 8)), to_binary(photo.rgb, (12, 8)))


@pytest.mark.parametrize("broken", ["make-rational", "orientation-ascii", "resolution-ascii"])
def test_exif_that_cannot_be_used_is_dropped_with_a_word(broken):
    photo = to_photo(io.BytesIO(encoded("JPEG", exif=BROKEN_EXIF[broken])))
    assert photo.notes == ("its EXIF could not be read and was dropped",)
    assert photo.metadata.exif is None


def read_or_line(source) -> str | None:
    """Read a photograph and, of its size, a mask; the line that refuses it, if one does."""
    try:
        photo = to_photo(source)
        assert to_binary(source, photo.size).shape == photo.rgb.shape[:2]
    except ValueError as error:
        return str(error)
    return None


REFUSED = ("not an image that can be read here (", "must be a whole image file; ")
MALFORMED = {
    "palette-without-colours": png_header(2, 2, 8, 3),
    "transparency-of-no-palette": png_with(chunk(b"tRNS", b"\0")),
    "transparency-too-short": png_with(chunk(b"tRNS", b"\0\0\0")),
    "profile-cut": png_with(chunk(b"iCCP", b"x")),
    "profile-no-zlib": png_with(chunk(b"iCCP", b"x\0\0rubbish")),
    "gamma-short": png_with(chunk(b"gAMA", b"")),
    "resolution-short": png_with(chunk(b"pHYs", b"\0")),
    "text-bomb": png_with(chunk(b"zTXt", b"x\0\0" + b"\x78\x9c" + bytes(30))),
    "header-short": b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", b"\0\0"),
    "no-side": png_header(0, 4),
    "tiff-without-tags": b"II*\0" + struct.pack("<IH", 8, 0) + bytes(4),
    "tiff-beyond-the-end": b"II*\0" + struct.pack("<I", 999_999),
    "avif-cut": encoded("AVIF")[:200],
    "avif-no-picture": encoded("AVIF")[:32] + bytes(300),
    "gif-no-frame": encoded("GIF")[:13] + b";",
    "webp-cut": encoded("WEBP")[:24],
    "bmp-header": b"BM" + bytes(30),
    "ppm-no-number": b"P6\nx y 255\n",
    "jpeg-no-picture": b"\xff\xd8\xff\xd9",
}


@pytest.mark.parametrize("name", MALFORMED)
def test_a_malformed_file_is_read_or_one_line(tmp_path, name):
    (tmp_path / "a.png").write_bytes(MALFORMED[name])
    line = read_or_line(tmp_path / "a.png")
    assert line is None or line.startswith(tuple(f"{tmp_path}/a.png: {words}" for words in REFUSED))


def test_a_short_transparency_of_a_palette_is_read_or_one_line():
    palette = Image.fromarray(PIXELS).quantize(16)
    for transparency in (b"", b"\0", bytes(16), bytes(300)):
        content = encoded("PNG", palette)
        at = content.index(b"IDAT") - 4
        line = read_or_line(io.BytesIO(content[:at] + chunk(b"tRNS", transparency) + content[at:]))
        assert line is None or line.startswith(tuple(f"the file: {words}" for words in REFUSED))


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP", "GIF", "AVIF", "PPM"])
def test_bytes_that_flipped_are_read_or_one_line(file_format):
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    rng = np.random.default_rng(sum(file_format.encode()))
    whole = bytearray(encoded(file_format, exif=exif) if file_format != "PPM" else encoded("PPM"))
    lines = []
    for _ in range(150):
        content = bytearray(whole)
        for at in rng.integers(0, min(len(content), 400), rng.integers(1, 4)):
            content[at] = rng.integers(0, 256)
        lines.append(read_or_line(io.BytesIO(content)))
    refused = [line for line in lines if line is not None]
    assert refused
    assert all(line.startswith(("the file: ", "the mask ", "a mask ")) and "\n" not in line for line in refused)


# HEIC

HEIC = b"\0\0\0\x1cftypheic" + bytes(200)


def test_heic_without_pillow_heif_says_what_to_install(tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "heif_is_readable", lambda: False)
    for brand in (b"heic", b"heix", b"heim", b"heis", b"hevc", b"hevx", b"mif1", b"msf1"):
        (tmp_path / "a.jpg").write_bytes(HEIC.replace(b"heic", brand))
        with pytest.raises(ValueError, match=r'^.*a\.jpg: HEIC needs pillow-heif: pip install "mminvertfill\[heif\]"$'):
            read_rgb(tmp_path / "a.jpg")
    file = io.BytesIO(HEIC)
    file.seek(5)
    with pytest.raises(ValueError, match=r"^the file: HEIC needs"):
        read_rgb(file)


@pytest.mark.parametrize("content", [b"\0\0\0\x1cftypisom" + bytes(99), b"\0\0\0\x1cfyytheic" + bytes(99)])
def test_a_film_is_no_heic(content, monkeypatch):
    monkeypatch.setattr(decode, "heif_is_readable", lambda: False)
    with pytest.raises(ValueError, match=r"^the file: not an image that can be read here"):
        to_photo(io.BytesIO(content))


def test_heic_is_read_where_pillow_heif_is(tmp_path):
    heif = pytest.importorskip("pillow_heif", reason="pillow-heif is not installed")
    exif = Image.Exif()
    exif[0x0112], exif[0x010F] = 6, "maker"
    heif.register_heif_opener()
    smooth = Image.fromarray(PIXELS).resize((64, 48), Image.Resampling.BICUBIC)
    smooth.save(tmp_path / "a.heic", "HEIF", quality=100, exif=exif.tobytes())
    photo = read_rgb(tmp_path / "a.heic")
    assert photo.size == (48, 64)
    assert np.abs(photo.rgb.astype(int) - np.rot90(np.asarray(smooth), -1)).mean() < 12  # half the colours
    assert photo.metadata.exif is not None
    (tmp_path / "b.heic").write_bytes(HEIC)
    with pytest.raises(ValueError, match=r"b\.heic: (not an image|must be a whole)"):
        read_rgb(tmp_path / "b.heic")


def test_the_modules_of_pillow_heif_are_not_loaded_for_other_files(tmp_path):
    if "pillow_heif" in sys.modules:
        pytest.skip("another test has loaded it")
    (tmp_path / "a.png").write_bytes(encoded("PNG"))
    read_rgb(tmp_path / "a.png")
    assert "pillow_heif" not in sys.modules
