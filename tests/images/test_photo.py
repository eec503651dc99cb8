"""Photographs as files: every kind in, one line for what cannot be read, whole files out."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
from PIL import Image, ImageCms

from mmif.images.photo import read_rgb

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9), np.uint8)


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


# Reading


@pytest.mark.parametrize("suffix", ["png", "tif", "webp", "bmp"])
def test_rgb_is_read_as_it_is(tmp_path, suffix):
    Image.fromarray(RGB).save(tmp_path / f"a.{suffix}", **({"lossless": True} if suffix == "webp" else {}))
    photo = read_rgb(tmp_path / f"a.{suffix}")
    assert np.array_equal(photo.rgb, RGB)
    assert (photo.alpha, photo.grey, photo.notes, photo.size) == (None, False, (), (9, 6))


def test_grey_and_one_bit(tmp_path):
    Image.fromarray(GREY).save(tmp_path / "l.png")
    Image.fromarray(GREY > 127).save(tmp_path / "1.png")
    assert np.array_equal(read_rgb(tmp_path / "l.png").rgb, grey3(GREY))
    assert np.array_equal(read_rgb(tmp_path / "1.png").rgb, grey3((GREY > 127) * np.uint8(255)))
    assert read_rgb(tmp_path / "l.png").grey
    assert read_rgb(tmp_path / "1.png").grey


def test_transparency(tmp_path):
    Image.fromarray(np.dstack([RGB, ALPHA])).save(tmp_path / "rgba.png")
    Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(ALPHA)]).save(tmp_path / "la.png")
    for name, rgb, grey in (("rgba", RGB, False), ("la", grey3(GREY), True)):
        photo = read_rgb(tmp_path / f"{name}.png")
        assert np.array_equal(photo.rgb, rgb)
        assert photo.alpha is not None
        assert np.array_equal(photo.alpha, ALPHA)
        assert photo.grey == grey


@pytest.mark.parametrize("transparent", [False, True])
def test_palette(tmp_path, transparent):
    image = Image.fromarray(RGB).quantize(8)
    image.save(tmp_path / "p.png", **({"transparency": 3} if transparent else {}))
    photo = read_rgb(tmp_path / "p.png")
    assert np.array_equal(photo.rgb, np.asarray(image.convert("RGB")))
    assert (photo.alpha is not None) == transparent
    if transparent:
        assert np.array_equal(photo.alpha, np.where(np.asarray(image) == 3, 0, 255))


def test_16_bit_is_kept_in_grey_and_reduced_with_a_word_in_colour(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "grey.png")
    Image.fromarray(deep).save(tmp_path / "grey.tif")
    cv2.imwrite(str(tmp_path / "rgb.png"), RGB[:, :, ::-1].astype(np.uint16) * 257)
    photo = read_rgb(tmp_path / "rgb.png")
    assert np.array_equal(photo.rgb, RGB)
    assert (photo.notes, photo.deep) == (("16-bit reduced to 8-bit",), None)
    for name in ("grey.png", "grey.tif"):
        photo = read_rgb(tmp_path / name)
        assert np.array_equal(photo.rgb, grey3(GREY)), name
        assert np.array_equal(photo.deep, deep), name
        assert (photo.grey, photo.notes) == (True, ()), name


def test_cmyk_is_converted_and_its_profile_dropped(tmp_path):
    image = Image.fromarray(np.full((6, 9, 3), (200, 30, 90), np.uint8)).convert("CMYK")
    image.save(tmp_path / "a.jpg", quality=100, icc_profile=b"a profile of inks")
    photo = read_rgb(tmp_path / "a.jpg")
    assert np.abs(photo.rgb.astype(int) - (200, 30, 90)).max() <= 3
    assert photo.metadata.icc_profile is None
    assert photo.notes == ("CMYK converted to RGB, its colour profile dropped",)


def test_of_an_animation_the_first_frame_is_used(tmp_path):
    frames = [Image.fromarray(np.full((6, 9, 3), colour, np.uint8)) for colour in (40, 200)]
    for name in ("a.gif", "a.webp", "a.tif"):
        frames[0].save(tmp_path / name, save_all=True, append_images=frames[1:])
        photo = read_rgb(tmp_path / name)
        assert np.abs(photo.rgb.astype(int) - 40).max() <= 2, name
        assert photo.notes == ("animated or several pages: the first one is used",), name


def test_a_jpeg_with_a_preview_is_no_animation(tmp_path):
    image = Image.fromarray(RGB)
    image.save(tmp_path / "a.mpo", save_all=True, append_images=[image])
    assert read_rgb(tmp_path / "a.mpo").notes == ()


def test_exif_rotation_is_applied_and_the_rest_kept(tmp_path):
    exif = Image.Exif()
    exif[0x0112] = 6  # turn by 90 degrees clockwise
    exif[0x010F] = "maker"
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    photo = read_rgb(tmp_path / "a.png")
    assert np.array_equal(photo.rgb, np.rot90(RGB, -1))
    assert photo.notes == ("turned upright as its EXIF says",)
    kept = Image.Exif()
    assert photo.metadata.exif is not None
    kept.load(photo.metadata.exif)
    assert dict(kept) == {0x010F: "maker"}


def test_icc_profile_is_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RGB).save(tmp_path / "a.png", icc_profile=profile)
    assert read_rgb(tmp_path / "a.png").metadata.icc_profile == profile


@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp", "gif", "bmp"])
def test_truncated_file(tmp_path, suffix):
    whole = tmp_path / f"whole.{suffix}"
    Image.fromarray(RNG.integers(0, 256, (80, 80, 3), np.uint8)).save(whole)
    cut = tmp_path / f"cut.{suffix}"
    cut.write_bytes(whole.read_bytes()[: whole.stat().st_size // 2])
    with pytest.raises(ValueError, match=rf"cut\.{suffix}: must be"):
        read_rgb(cut)


EPS = b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 10 10\n%%EndComments\n"  # Pillow runs Ghostscript on it


@pytest.mark.parametrize("content", [b"", b"hello", b"\x89PNG\r\n\x1a\n", bytes(1000), EPS])
def test_not_an_image(tmp_path, content):
    (tmp_path / "a.png").write_bytes(content)
    with pytest.raises(ValueError, match=r"a\.png: not an image that can be read here \(PNG, "):
        read_rgb(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match=r"^no image file at .*; check the path$"):
        read_rgb(tmp_path / "no.png")
    with pytest.raises(ValueError, match=r"is a folder; name an image file$"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("side", [13_400, 60_000])  # refused by us, refused by Pillow
def test_decompression_bomb_is_refused_with_the_limit(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(ValueError, match="at most 178 million pixels"):
        read_rgb(tmp_path / "a.png")


def test_32_bit_float_is_refused(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="32-bit float"):
        read_rgb(tmp_path / "a.tif")
