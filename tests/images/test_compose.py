"""A filled photograph is what its file was: as deep, as grey, as transparent; known pixels keep every bit."""

from __future__ import annotations

import io

import numpy as np
import pytest
from images.malformed import encoded
from PIL import Image

from mmif.images.compose import compose, compose_note
from mmif.images.photo import Photo, read_rgb, to_photo
from mmif.images.write import lost_in, write_image

RNG = np.random.default_rng(11)
GREY = RNG.integers(0, 256, (8, 12), np.uint8)
RGB = RNG.integers(0, 256, (8, 12, 3), np.uint8)
FILL = RNG.integers(0, 256, (8, 12, 3), np.uint8)
HOLE = np.zeros((8, 12), bool)
HOLE[2:5, 3:7] = True


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def luma(rgb: np.ndarray) -> np.ndarray:
    return np.rint(rgb @ np.array([0.299, 0.587, 0.114])).astype(int)


def filled(photo: Photo, fill: np.ndarray = FILL) -> np.ndarray:
    return np.where(HOLE[..., None], fill, photo.rgb)


def test_colours_stay_as_they_were_filled():
    photo = Photo(RGB)
    before = filled(photo)
    image = compose(photo, before, HOLE)
    assert image.mode == "RGB"
    assert np.array_equal(np.asarray(image), filled(photo))


# Greyness, by content


@pytest.mark.parametrize(
    "photo",
    [
        Photo(grey3(GREY)),
        Photo(np.where(HOLE[..., None], RGB, grey3(GREY))),  # the hole is painted in colour
        Photo(np.where((RGB[..., :1] > 99), RGB, grey3(GREY)), np.where(RGB[..., 0] > 99, 0, 255).astype(np.uint8)),
    ],
    ids=["grey-as-rgb", "hole-in-colour", "hidden-in-colour"],
)
def test_a_photograph_that_is_grey_where_it_is_known_gets_a_grey_fill(photo):
    rgb = filled(photo)
    pixels = np.asarray(compose(photo, rgb, HOLE))[..., :3]
    assert np.array_equal(pixels[~HOLE], photo.rgb[~HOLE])
    assert (pixels[HOLE] == pixels[HOLE][:, :1]).all()
    assert np.abs(pixels[HOLE][:, 0].astype(int) - luma(FILL[HOLE])).max() <= 1
    assert np.array_equal(rgb, filled(photo))  # what came is not changed


@pytest.mark.parametrize("channel", [0, 1, 2])
def test_one_coloured_pixel_makes_a_photograph_a_coloured_one(channel):
    values = grey3(GREY)
    values[0, 0] = 100
    values[0, 0, channel] = 101
    photo = Photo(values)
    assert np.array_equal(np.asarray(compose(photo, filled(photo), HOLE)), filled(photo))


def test_where_nothing_is_known_nothing_is_grey():
    everywhere = np.ones((8, 12), bool)
    assert np.array_equal(np.asarray(compose(Photo(grey3(GREY)), FILL, everywhere)), FILL)


def test_a_grey_file_stays_one_and_nothing_is_copied_without_a_hole():
    photo = to_photo(GREY)
    image = compose(photo, filled(photo), HOLE)
    assert image.mode == "L"
    assert np.array_equal(np.asarray(image)[~HOLE], GREY[~HOLE])
    assert np.abs(np.asarray(image).astype(int)[HOLE] - luma(FILL[HOLE])).max() <= 1
    assert np.array_equal(np.asarray(compose(photo, photo.rgb, np.zeros_like(HOLE))), GREY)


def test_one_bit_becomes_grey_and_says_so():
    photo = to_photo(Image.fromarray(GREY > 127))
    assert photo.notes == ("1-bit: the result is 8-bit grey",)
    assert compose(photo, filled(photo), HOLE).mode == "L"


# Alpha


def test_hidden_pixels_are_those_of_alpha_0():
    alpha = np.full((8, 12), 255, np.uint8)
    assert Photo(RGB).hidden is None
    assert Photo(RGB, alpha).hidden is None
    alpha[0, :3] = 0, 1, 254
    hidden = Photo(RGB, alpha).hidden
    assert hidden is not None
    assert np.argwhere(hidden).tolist() == [[0, 0]]


def test_the_fill_of_a_transparent_hole_is_opaque_and_other_alpha_is_kept():
    alpha = np.full((8, 12), 200, np.uint8)
    alpha[0, :4] = 0
    alpha[2, 3:7] = 0, 1, 254, 255
    photo = Photo(RGB, alpha)
    image = compose(photo, filled(photo), HOLE)
    wanted = alpha.copy()
    wanted[2, 3] = 255
    assert image.mode == "RGBA"
    assert np.array_equal(np.asarray(image), np.dstack([filled(photo), wanted]))
    assert compose_note(photo, HOLE) == "the hole is transparent (alpha 0) in places: the fill is opaque there"
    assert photo.alpha is alpha
    assert alpha[2, 3] == 0


def test_no_word_where_the_hole_was_seen():
    alpha = np.full((8, 12), 1, np.uint8)
    alpha[0, :4] = 0
    assert compose_note(Photo(RGB, alpha), HOLE) is None
    assert compose_note(Photo(RGB), HOLE) is None


def test_grey_with_alpha(tmp_path):
    alpha = RNG.integers(1, 256, (8, 12), np.uint8)
    source = Image.merge("LA", [Image.fromarray(GREY), Image.fromarray(alpha)])
    source.save(tmp_path / "a.png")
    photo = read_rgb(tmp_path / "a.png")
    image = compose(photo, filled(photo), HOLE)
    assert image.mode == "LA"
    assert np.array_equal(np.asarray(image)[~HOLE], np.dstack([GREY, alpha])[~HOLE])
    assert np.array_equal(np.asarray(image)[..., 1], alpha)


# 16 bits

DEEP = RNG.integers(0, 65536, (8, 12), np.uint16)


@pytest.mark.parametrize("source", ["png", "tif", "array", "int32", "big-endian"])
@pytest.mark.parametrize("suffix", [".png", ".tif"])
def test_16_bits_of_grey_are_kept_outside_the_hole(tmp_path, source, suffix):
    if source == "array":
        photo = to_photo(DEEP)
    elif source == "int32":
        photo = to_photo(Image.fromarray(DEEP.astype(np.int32)))
    elif source == "big-endian":
        photo = to_photo(Image.frombytes("I;16B", (12, 8), DEEP.astype(">u2").tobytes()))
    else:
        Image.fromarray(DEEP).save(tmp_path / f"in.{source}")
        photo = read_rgb(tmp_path / f"in.{source}")
    assert photo.notes == ()
    assert np.array_equal(photo.rgb, grey3(np.rint(DEEP / 257).astype(np.uint8)))
    assert lost_in(tmp_path / f"out{suffix}", photo) == []
    write_image(compose(photo, filled(photo), HOLE), tmp_path / f"out{suffix}")
    after = read_rgb(tmp_path / f"out{suffix}")
    assert after.deep is not None
    assert np.array_equal(after.deep[~HOLE], DEEP[~HOLE])
    assert (after.deep[HOLE] % 257 == 0).all()
    assert np.abs(after.deep[HOLE] // 257 - luma(FILL[HOLE])).max() <= 1


@pytest.mark.parametrize(("suffix", "name"), [(".jpg", "JPEG"), (".webp", "WEBP"), (".bmp", "BMP")])
def test_where_16_bits_do_not_fit_8_are_written_and_said(tmp_path, suffix, name):
    photo = to_photo(DEEP)
    assert f"{name} has no 16 bits: write to .png to keep them" in lost_in(tmp_path / f"a{suffix}", photo)
    write_image(compose(photo, filled(photo), HOLE), tmp_path / f"a{suffix}")
    after = read_rgb(tmp_path / f"a{suffix}")
    assert np.abs(after.rgb[~HOLE].astype(int) - photo.rgb[~HOLE]).mean() < (3 if name == "JPEG" else 1e-9)


def test_16_bits_with_a_transparent_level_are_reduced_with_a_word():
    deep = DEEP.copy()
    deep[0, :5] = 777
    photo = to_photo(io.BytesIO(encoded("PNG", Image.fromarray(deep), transparency=777)))
    assert photo.notes == ("16-bit reduced to 8-bit",)
    assert photo.deep is None
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha == 0, deep == 777)
    assert set(np.unique(photo.alpha)) == {0, 255}
    assert compose(photo, filled(photo), HOLE).mode == "LA"


def test_16_bits_of_colour_are_reduced_with_a_word():
    photo = to_photo(RGB.astype(np.uint16) * 257)
    assert (photo.notes, photo.deep, photo.grey) == (("16-bit reduced to 8-bit",), None, False)
    assert np.array_equal(photo.rgb, RGB)


@pytest.mark.parametrize(("value", "line"), [(-1, r"got -1\.\.0"), (65536, r"got 0\.\.65536")])
def test_whole_numbers_beyond_16_bits_are_refused(value, line):
    with pytest.raises(ValueError, match=rf"16-bit values must lie in 0\.\.65535, {line}"):
        to_photo(Image.fromarray(np.array([[0, value]], np.int32)))
