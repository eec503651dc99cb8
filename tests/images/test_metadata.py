"""What a file says beside its pixels: kept in every format that can hold it, or said."""

from __future__ import annotations

import io
import zlib
from dataclasses import fields, replace

import numpy as np
import pytest
from images.malformed import PIXELS, SHORT, X_RESOLUTION, chunk, encoded, entry, exif, png_with
from PIL import Image, ImageCms, PngImagePlugin, UnidentifiedImageError

from mmif.images.compose import compose
from mmif.images.metadata import Metadata
from mmif.images.photo import Photo, read_rgb, to_photo
from mmif.images.write import lost_in, write_image

PROFILE = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
XMP = b'<x:xmpmeta><rdf:Description tiff:Orientation="1" dc:title="a"/></x:xmpmeta>'
HOLE = np.zeros((8, 12), bool)
HOLE[2:5, 3:7] = True


def camera_exif() -> Image.Exif:
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif[0x8769] = {0x9003: "2020:01:01 00:00:00"}
    return exif


def png_texts(**texts: str) -> PngImagePlugin.PngInfo:
    chunks = PngImagePlugin.PngInfo()
    for key, value in texts.items():
        chunks.add_text(key, value)
    return chunks


def result_of(photo: Photo, path, quality: int | None = None) -> Photo:
    """What is read of a photograph that was filled and written."""
    write_image(compose(photo, photo.rgb, HOLE), path, quality)
    return read_rgb(path)


EXIF = camera_exif().tobytes()
FULL = {
    "PNG": {
        "pnginfo": png_texts(Title="hello"),
        "dpi": (300, 300),
        "exif": EXIF,
        "icc_profile": PROFILE,
    },
    "JPEG": {
        "dpi": (300, 300),
        "exif": EXIF,
        "icc_profile": PROFILE,
        "xmp": XMP,
        "comment": b"c\xc3\xb6",
    },
    "WEBP": {"exif": EXIF, "icc_profile": PROFILE, "xmp": XMP, "lossless": True},
    "TIFF": {"dpi": (300, 200), "icc_profile": PROFILE, "exif": EXIF},
    "BMP": {"dpi": (300, 300)},
    "GIF": {"comment": b"c"},
}
SUFFIX = {"PNG": ".png", "JPEG": ".jpg", "WEBP": ".webp", "TIFF": ".tif", "BMP": ".bmp", "GIF": ".png"}
FULL["PNG"]["pnginfo"].add_itxt("XML:com.adobe.xmp", XMP.decode())


@pytest.mark.parametrize("file_format", ["PNG", "JPEG", "WEBP", "TIFF", "BMP"])
def test_a_result_keeps_all_that_its_photograph_said(tmp_path, file_format):
    before = to_photo(io.BytesIO(encoded(file_format, **FULL[file_format])))
    assert before.notes == ()
    path = tmp_path / f"out{SUFFIX[file_format]}"
    assert [note for note in lost_in(path, before) if "cannot keep" in note] == []
    after = result_of(before, path)
    for field in fields(Metadata):
        wanted, came = getattr(before.metadata, field.name), getattr(after.metadata, field.name)
        if field.name == "dpi" and wanted:
            assert np.allclose(wanted, came, atol=1e-3)
        elif field.name == "exif" and wanted:
            assert exif_of(came) == exif_of(wanted) == {0x010F: "maker", 0x8769: {0x9003: "2020:01:01 00:00:00"}}
        else:
            assert came == wanted, field.name


def exif_of(block: bytes) -> dict:
    exif = Image.Exif()
    exif.load(block)
    return {**exif, 0x8769: exif.get_ifd(0x8769)}


def test_what_was_read_is_what_the_file_says():
    png = to_photo(io.BytesIO(encoded("PNG", **FULL["PNG"]))).metadata
    assert (png.icc_profile, png.xmp, png.text, png.comment, png.jpeg) == (PROFILE, XMP, {"Title": "hello"}, None, {})
    assert png.dpi == pytest.approx((300, 300), abs=1e-3)
    jpeg = to_photo(io.BytesIO(encoded("JPEG", **FULL["JPEG"]))).metadata
    assert (jpeg.icc_profile, jpeg.xmp, jpeg.text, jpeg.comment) == (PROFILE, XMP, {}, b"c\xc3\xb6")
    assert jpeg.dpi == (300, 300)
    assert to_photo(io.BytesIO(encoded("TIFF", **FULL["TIFF"]))).metadata.dpi == (300, 200)
    assert to_photo(io.BytesIO(encoded("GIF", **FULL["GIF"]))).metadata.comment == b"c"
    for file_format in ("PNG", "WEBP", "TIFF"):
        assert to_photo(io.BytesIO(encoded(file_format))).metadata == Metadata()


@pytest.mark.parametrize(
    ("source", "suffix", "lost"),
    [
        ("PNG", ".jpg", "JPEG cannot keep the texts of this photograph: write to .png"),
        ("PNG", ".webp", "WEBP cannot keep the resolution, texts of this photograph: write to .png"),
        ("PNG", ".tiff", "TIFF cannot keep the texts of this photograph: write to .png"),
        ("PNG", ".BMP", "BMP cannot keep the colour profile, EXIF, XMP, texts of this photograph: write to .png"),
        ("JPEG", ".webp", "WEBP cannot keep the resolution, comment of this photograph: write to .png"),
        ("JPEG", ".tif", "TIFF cannot keep the comment of this photograph: write to .png"),
        ("JPEG", ".png", None),
        ("TIFF", ".jpeg", None),
        ("GIF", ".jpg", None),
    ],
)
def test_what_another_format_cannot_keep_is_said_and_the_rest_is_kept(tmp_path, source, suffix, lost):
    before = to_photo(io.BytesIO(encoded(source, **FULL[source])))
    notes = [note for note in lost_in(tmp_path / f"a{suffix}", before) if "lossy" not in note]
    assert notes == ([lost] if lost else [])
    after = result_of(before, tmp_path / f"a{suffix}").metadata
    for name, word in {"icc_profile": "profile", "exif": "EXIF", "xmp": "XMP", "dpi": "resolution"}.items():
        kept = bool(getattr(before.metadata, name)) and word not in (lost or "")
        assert bool(getattr(after, name)) == kept or (name == "dpi" and suffix == ".BMP"), name


def test_a_comment_becomes_a_text_of_a_png_and_yields_to_one_of_that_name(tmp_path):
    photo = Photo(PIXELS, metadata=Metadata(comment=b"c\xc3\xb6 \xff"))
    assert result_of(photo, tmp_path / "a.png").metadata.text == {"Comment": "cö \ufffd"}
    photo = Photo(PIXELS, metadata=Metadata(comment=b"c", text={"Comment": "text", "Title": "żółw"}))
    assert result_of(photo, tmp_path / "a.png").metadata.text == {"Comment": "text", "Title": "żółw"}


@pytest.mark.parametrize(("name", "most"), [("exif", 65_533), ("xmp", 65_504), ("comment", 65_533)])
def test_what_does_not_fit_into_a_jpeg_is_said_and_left_out(tmp_path, name, most):
    path = tmp_path / "a.jpg"
    block = b"Exif\0\0MM\0*\0\0\0\x08" + bytes(70_000) if name == "exif" else b"x" * 70_000
    word = {"exif": "EXIF", "xmp": "XMP"}.get(name, name)
    for size in (most, most + 1):
        photo = Photo(PIXELS, metadata=Metadata(**{name: block[:size]}))
        said = [note for note in lost_in(path, photo) if "lossy" not in note]
        assert said == ([] if size == most else [f"JPEG cannot keep the {word} of this photograph: write to .png"])
        write_image(compose(photo, photo.rgb, HOLE), path)
        assert (block[-100:] in path.read_bytes()) == (size == most)
        assert lost_in(tmp_path / "a.png", photo) == []


# JPEG is compressed as it was


@pytest.mark.parametrize("quality", [30, 60, 98])
@pytest.mark.parametrize("subsampling", [0, 1, 2])
@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_keeps_its_quality(tmp_path, quality, subsampling, progressive):
    smooth = Image.fromarray(PIXELS).resize((64, 64), Image.Resampling.BICUBIC)
    content = encoded("JPEG", smooth, quality=quality, subsampling=subsampling, progressive=progressive)
    before = to_photo(io.BytesIO(content))
    hole = np.zeros((64, 64), bool)
    write_image(compose(before, before.rgb, hole), tmp_path / "a.jpg")
    after = read_rgb(tmp_path / "a.jpg")
    assert after.metadata.jpeg == before.metadata.jpeg
    assert before.metadata.jpeg["subsampling"] == subsampling
    assert before.metadata.jpeg["progressive"] == progressive
    assert 0.8 < (tmp_path / "a.jpg").stat().st_size / len(content) < 1.2
    assert np.abs(after.rgb.astype(int) - before.rgb).mean() < 6


def test_a_grey_jpeg_keeps_its_quality(tmp_path):
    before = to_photo(io.BytesIO(encoded("JPEG", Image.fromarray(PIXELS).convert("L"), quality=40)))
    after = result_of(before, tmp_path / "a.jpg")
    assert after.grey
    assert after.metadata.jpeg == before.metadata.jpeg != {}


def test_a_quality_that_is_asked_for_wins(tmp_path):
    before = to_photo(io.BytesIO(encoded("JPEG", quality=40, subsampling=2)))
    wanted = to_photo(io.BytesIO(encoded("JPEG", quality=77, subsampling=0))).metadata.jpeg
    assert result_of(before, tmp_path / "a.jpg", 77).metadata.jpeg == wanted
    assert result_of(Photo(PIXELS), tmp_path / "b.jpg", 77).metadata.jpeg == wanted
    assert np.array_equal(result_of(Photo(PIXELS), tmp_path / "b.png", 77).rgb, PIXELS)


def test_without_a_jpeg_the_quality_is_high(tmp_path):
    wanted = to_photo(io.BytesIO(encoded("JPEG", quality=95, subsampling=0))).metadata.jpeg
    assert result_of(Photo(PIXELS), tmp_path / "a.jpg").metadata.jpeg == wanted


def test_the_tables_of_inks_are_not_kept():
    photo = to_photo(io.BytesIO(encoded("JPEG", Image.fromarray(PIXELS).convert("CMYK"), quality=40)))
    assert photo.metadata.jpeg == {}


# What cannot be used


@pytest.mark.parametrize(
    ("name", "value", "word"),
    [
        ("icc_profile", "text", "colour profile"),
        ("xmp", "text", "XMP"),
        ("xmp", b"\xff\xfe<\0", "XMP"),
        ("comment", 7, "comment"),
        ("dpi", 300, "resolution"),
        ("dpi", (300, None), "resolution"),
        ("dpi", (float("nan"), 300), "resolution"),
        ("dpi", (float("inf"), 300), "resolution"),
        ("dpi", (0.5, 300), "resolution"),
        ("dpi", (300, 65_536), "resolution"),
        ("dpi", (300, -300), "resolution"),
    ],
)
def test_what_cannot_be_used_is_dropped_with_a_word(name, value, word):
    image = Image.fromarray(PIXELS)
    image.info[name] = value
    photo = to_photo(image)
    assert f"its {word} could not be read and was dropped" in photo.notes
    assert len(photo.notes) == 1 or isinstance(value, str)  # Pillow looks into XMP for an orientation
    assert photo.metadata == Metadata()
    assert np.array_equal(photo.rgb, PIXELS)


@pytest.mark.parametrize("dpi", [(0, 0), (1, 1)])
def test_no_resolution_is_none(dpi):
    image = Image.fromarray(PIXELS)
    image.info["dpi"] = dpi
    assert to_photo(image).metadata == Metadata()
    assert to_photo(image).notes == ()


@pytest.mark.parametrize("dpi", [(1, 2), (65_535, 65_535)])
def test_an_odd_resolution_is_one(dpi):
    image = Image.fromarray(PIXELS)
    image.info["dpi"] = dpi
    assert to_photo(image).metadata.dpi == dpi


@pytest.mark.parametrize("exif", [False, True])
def test_metadata_that_fails_in_the_decoder_is_dropped(exif):
    content = png_with(chunk(b"eXIf", b"rubbish")) if exif else png_with(chunk(b"tEXt", b"no zero byte"))
    photo = to_photo(io.BytesIO(content))
    assert photo.notes == (("its EXIF could not be read and was dropped",) if exif else ())
    assert np.array_equal(photo.rgb, PIXELS)


# Orientation


@pytest.mark.parametrize(
    "xmp",
    [b'<a tiff:Orientation="6"/>', b"<a tiff:Orientation = '6' />", b"<tiff:Orientation>6</tiff:Orientation>"],
)
def test_xmp_says_upright_once_the_picture_is(xmp):
    exif = Image.Exif()
    exif[0x0112] = 6
    photo = to_photo(io.BytesIO(encoded("JPEG", exif=exif, xmp=xmp)))
    assert photo.notes == ("turned upright as its EXIF says",)
    assert photo.metadata.xmp == xmp.replace(b"6", b"1")
    assert photo.metadata.exif is None


def test_zeros_behind_xmp_are_no_part_of_it():
    image = Image.fromarray(PIXELS)
    image.info["xmp"] = XMP + b"\0\0"
    assert to_photo(image).metadata.xmp == XMP


@pytest.mark.parametrize("orientation", [0, 1, 9, 77])
def test_an_orientation_that_is_none_turns_nothing_and_is_not_kept(orientation):
    exif = camera_exif()
    exif[0x0112] = orientation
    photo = to_photo(io.BytesIO(encoded("PNG", exif=exif)))
    assert np.array_equal(photo.rgb, PIXELS)
    assert photo.notes == ()
    assert photo.metadata.exif is not None
    assert exif_of(photo.metadata.exif) == exif_of(camera_exif().tobytes())


def test_the_description_of_a_tiffs_pixels_is_not_kept(tmp_path):
    exif = camera_exif()
    exif[0x0131] = "software"
    before = to_photo(io.BytesIO(encoded("TIFF", exif=exif.tobytes())))
    assert before.metadata.exif is not None
    kept = Image.Exif()
    kept.load(before.metadata.exif)
    assert set(kept) == {0x010F, 0x0131, 0x8769}


def test_exif_of_a_camera_does_not_describe_the_pixels_of_a_tiff(tmp_path):
    """Many a telephone writes the size of its pictures there, before they are turned."""
    exif = camera_exif()
    exif[0x0100], exif[0x0101], exif[0x0102], exif[0x9C9B] = 6, 7, (1, 1), b"t\0"
    before = to_photo(io.BytesIO(encoded("JPEG", exif=exif)))
    assert before.metadata.exif is not None
    assert exif_of(before.metadata.exif)[0x0100] == 6
    after = result_of(before, tmp_path / "a.tif")
    assert np.array_equal(after.rgb, before.rgb)
    assert after.metadata.exif is not None
    assert set(exif_of(after.metadata.exif)) == {0x010F, 0x9C9B, 0x8769}


def test_xmp_alone_leaves_a_tiff_compressed(tmp_path):
    assert result_of(Photo(PIXELS, metadata=Metadata(xmp=XMP)), tmp_path / "a.tif").metadata.xmp == XMP
    with Image.open(tmp_path / "a.tif") as image:
        assert image.info["compression"] == "tiff_adobe_deflate"


def test_texts_that_hold_xmp_or_exif_are_kept_once(tmp_path):
    texts = png_texts(Title="a", **{"Raw profile type exif": "\nexif\n 0\n", "XML:com.adobe.xmp": XMP.decode()})
    photo = to_photo(io.BytesIO(encoded("PNG", pnginfo=texts)))
    assert photo.metadata.text == {"Title": "a"}


def test_a_tiff_is_compressed_unless_it_carries_exif(tmp_path):
    for metadata, compression in ((Metadata(), "tiff_adobe_deflate"), (Metadata(exif=camera_exif().tobytes()), "raw")):
        write_image(compose(Photo(PIXELS, metadata=metadata), PIXELS, HOLE), tmp_path / "a.tif")
        with Image.open(tmp_path / "a.tif") as image:
            assert image.info["compression"] == compression


def test_a_result_can_be_written_twice(tmp_path):
    photo = to_photo(io.BytesIO(encoded("JPEG", **FULL["JPEG"])))
    image = compose(photo, photo.rgb, HOLE)
    for _ in range(2):
        write_image(image, tmp_path / "a.jpg")
        assert replace(read_rgb(tmp_path / "a.jpg").metadata, exif=None) == replace(photo.metadata, exif=None)


@pytest.mark.parametrize("kind", [1, 7])
def test_a_jpeg_whose_exif_keeps_pillow_from_opening_it_loses_its_exif_only(kind):
    """Of type BYTE or UNDEFINED the resolution is no fraction."""
    block = exif(entry(X_RESOLUTION, kind, 1, b"\x10"), entry(0x0128, SHORT, 1, b"\2\0"))
    file = encoded("JPEG", exif=block, icc_profile=PROFILE, comment=b"kept")
    with pytest.raises(UnidentifiedImageError):
        Image.open(io.BytesIO(file))
    photo = read_rgb(io.BytesIO(file))
    assert photo.notes == ("its EXIF could not be read and was dropped",)
    assert np.array_equal(photo.rgb, read_rgb(io.BytesIO(encoded("JPEG"))).rgb)
    assert (photo.metadata.icc_profile, photo.metadata.comment) == (PROFILE, b"kept")


@pytest.mark.parametrize(
    "broken",
    [
        chunk(b"sRGB", b""),
        *(chunk(kind, b"\0") for kind in (b"pHYs", b"gAMA", b"cHRM", b"tRNS")),
        chunk(b"zTXt", b"a\0\0" + zlib.compress(bytes(2**27))),
        chunk(b"iCCP", b"a\0"),
    ],
)
def test_a_png_whose_ancillary_chunk_is_cut_or_swells_keeps_its_pixels(broken):
    assert np.array_equal(read_rgb(io.BytesIO(png_with(broken))).rgb, PIXELS)


def test_what_is_broken_in_its_pixels_as_well_is_still_refused():
    file = png_with(chunk(b"pHYs", b"\0"))
    with pytest.raises(ValueError, match=r"whole image file|not an image"):
        read_rgb(io.BytesIO(file[: len(file) // 2]))
    with pytest.raises(ValueError, match="not an image"):
        read_rgb(io.BytesIO(b"\xff\xd8\xff" + bytes(50)))
