"""What a mask means: colours first, alpha where colours say nothing, upright, and never in silence."""

from __future__ import annotations

import io

import numpy as np
import pytest
import torch
from PIL import Image

from mmif.images.masks import hole_note, to_binary, to_hole
from mmif.images.photo import Photo, read_rgb, to_photo

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
SIZE = (9, 6)


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


def rgba(colour: np.ndarray, alpha: np.ndarray) -> Image.Image:
    return Image.fromarray(np.dstack([colour if colour.ndim == 3 else grey3(colour), alpha]).astype(np.uint8))


WHITE = GREY > 127


@pytest.mark.parametrize(
    "source",
    [
        WHITE,
        WHITE.astype(np.uint8),
        WHITE * np.uint8(255),
        GREY,
        WHITE.astype(np.int64),
        np.where(WHITE, 0.5, 0.49),
        torch.from_numpy(WHITE)[None, None],
        torch.from_numpy(WHITE).bfloat16(),
        Image.fromarray(WHITE),
        Image.fromarray(GREY),
        Image.fromarray(grey3(GREY)),
        Image.fromarray(grey3(WHITE * np.uint8(255))).convert("P"),
        Image.fromarray(np.dstack([np.full_like(RGB, 9), GREY])),  # a brush layer: its alpha is the mask
        Image.fromarray(np.dstack([grey3(GREY), np.full_like(GREY, 255)])),  # opaque: its brightness is
        Image.fromarray(GREY.astype(np.uint16) * 257),
    ],
    ids=[
        "bool", "0-1", "0-255", "threshold", "int64", "float", "tensor", "bfloat16",
        "pil-1", "pil-L", "pil-RGB", "pil-P", "alpha", "opaque", "16-bit",
    ],
)  # fmt: skip
def test_masks(source, tmp_path):
    assert np.array_equal(to_binary(source, (9, 6)), WHITE)
    assert np.array_equal(to_binary(source, (9, 6), invert=True), ~WHITE)
    if isinstance(source, Image.Image):
        source.save(tmp_path / "mask.png")
        assert np.array_equal(to_binary(tmp_path / "mask.png", (9, 6)), WHITE)


def test_a_mask_of_another_size_names_both():
    with pytest.raises(ValueError, match=r"9 x 6; it has 6 x 9; make it .* upright"):
        to_binary(WHITE.T, (9, 6))


def test_unusable_masks(tmp_path):
    with pytest.raises(ValueError, match="shape"):
        to_binary(np.zeros((2, 6, 9), bool), (9, 6))
    with pytest.raises(ValueError, match=r"in \[0, 1\]"):
        to_binary(np.full((6, 9), np.nan), (9, 6))
    with pytest.raises(ValueError, match=r"0\.\.255"):
        to_binary(np.full((6, 9), -1), (9, 6))
    with pytest.raises(TypeError, match="complex"):
        to_binary(np.zeros((6, 9), complex), (9, 6))
    (tmp_path / "mask.png").write_bytes(b"no mask")
    with pytest.raises(ValueError, match="not an image that can be read here"):
        to_binary(tmp_path / "mask.png", (9, 6))


def test_a_hole_is_remarked_when_it_looks_wrong():
    hole = np.zeros((100, 100), bool)
    assert "empty" in (hole_note(hole) or "")
    hole[0, 0] = True
    assert hole_note(hole) is None  # one pixel is a speck of dust, not the other polarity
    hole[:90] = True
    assert hole_note(hole) is None
    hole[90, :5] = True
    assert hole_note(hole) == ("the hole covers 90.05 % of the photograph (white = hole): did you mean --invert-mask?")
    assert "100.00 %" in (hole_note(np.ones((3, 3), bool)) or "")


@pytest.mark.parametrize(
    "source",
    [
        grey3(WHITE),
        grey3(WHITE * np.uint8(255)),
        grey3(WHITE.astype(np.int64)),
        grey3(np.where(WHITE, 0.51, 0.49)),
        np.moveaxis(grey3(WHITE), 2, 0),
        torch.from_numpy(grey3(WHITE)).permute(2, 0, 1)[None],
        torch.from_numpy(grey3(WHITE)),
        WHITE[:, :, None],
        np.dstack([grey3(WHITE), np.ones_like(WHITE)]),
        grey3(GREY.astype(np.uint16) * 257),
    ],
    ids=["HWC-bool", "HWC", "HWC-int64", "HWC-float", "3HW-bool", "13HW", "HW3-tensor", "HW1", "HW4", "HWC-uint16"],
)
def test_masks_with_channels(source):
    notes: list[str] = []
    assert np.array_equal(to_binary(source, SIZE, notes=notes), WHITE)
    assert notes == []


def test_channels_of_a_picture_three_pixels_high_lie_where_its_kind_has_them():
    values = np.zeros((3, 4, 3), bool)
    values[0, 1] = True
    wanted = np.zeros((3, 4), bool)
    wanted[0, 1] = True
    assert np.array_equal(to_binary(values, (4, 3)), wanted)
    assert np.array_equal(to_binary(torch.from_numpy(values).permute(2, 0, 1), (4, 3)), wanted)


def test_open_files_are_masks_too(tmp_path):
    Image.fromarray(WHITE).save(tmp_path / "m.png")
    content = (tmp_path / "m.png").read_bytes()
    file = io.BytesIO(content)
    file.read()  # whatever was read before
    assert np.array_equal(to_binary(file, SIZE), WHITE)
    with open(tmp_path / "m.png", "rb") as opened:
        assert np.array_equal(to_binary(opened, SIZE), WHITE)
    with pytest.raises(ValueError, match="the file: must be a whole image file"):
        to_binary(io.BytesIO(content[:-30]), SIZE)


# Alpha

HOLE = np.zeros((6, 9), bool)
HOLE[1:3, 2:8] = True
BW = HOLE * np.uint8(255)
ALPHA_READ = "the mask has one colour only: its alpha was read, opaque = white (--invert-mask: transparent = hole)"
OVER_BLACK = "the mask is transparent in places: it was laid over black"


def almost_opaque() -> np.ndarray:
    alpha = np.full((6, 9), 255, np.uint8)
    alpha[0, 0] = 254
    return alpha


@pytest.mark.parametrize(
    ("mask", "wanted", "said"),
    [
        (rgba(BW, almost_opaque()), HOLE, [OVER_BLACK]),
        (rgba(BW, np.full((6, 9), 255)), HOLE, []),
        (rgba(BW, np.zeros((6, 9))), HOLE, []),  # alpha that is the same everywhere says nothing
        (rgba(np.full((6, 9), 255), BW), HOLE, [ALPHA_READ]),
        (rgba(np.zeros((6, 9)), BW), HOLE, [ALPHA_READ]),
        (rgba(np.full((6, 9, 3), (200, 30, 40)), BW), HOLE, [ALPHA_READ]),
        (rgba(RGB * ~HOLE[..., None] + HOLE[..., None] * np.uint8(7), BW), HOLE, [ALPHA_READ]),  # hidden: any colour
        (rgba(np.full((6, 9), 255), 255 - BW), ~HOLE, [ALPHA_READ]),  # an eraser: said, and --invert-mask helps
        (rgba(BW, np.where(HOLE, 128, 255)), HOLE, [OVER_BLACK]),
        (rgba(np.full((6, 9), 255), np.where(HOLE, 128, 127)), HOLE, [ALPHA_READ]),
    ],
    ids=[
        "one-pixel-254", "opaque", "all-hidden", "white-brush", "black-brush", "red-brush", "rubbish-under-alpha-0",
        "eraser", "soft-hole", "alpha-threshold",
    ],
)  # fmt: skip
def test_colours_decide_and_alpha_only_where_they_say_nothing(mask, wanted, said, tmp_path):
    mask.save(tmp_path / "m.png")
    for source in (mask, tmp_path / "m.png", np.asarray(mask)):
        notes: list[str] = []
        assert np.array_equal(to_binary(source, SIZE, notes=notes), wanted)
        assert notes == said
        assert np.array_equal(to_binary(source, SIZE, invert=True), ~wanted)


def test_half_transparent_paint_counts_as_it_looks_over_black():
    alpha = np.full((6, 9), 255, np.uint8)
    alpha[1, 2:5] = 127, 128, 129
    white = to_binary(rgba(BW, alpha), SIZE)
    assert white[1, 2:8].tolist() == [False, True, True, True, True, True]
    assert np.array_equal(np.delete(white, 1, 0), np.delete(HOLE, 1, 0))


def test_an_edge_map_has_no_polarity_to_turn_round():
    notes: list[str] = []
    to_binary(rgba(np.full((6, 9), 255), BW), SIZE, "edge map", notes=notes)
    assert notes == ["the edge map has one colour only: its alpha was read, opaque = white"]


def test_transparency_of_a_palette_and_of_a_grey_level_is_read_alike(tmp_path):
    Image.fromarray(HOLE.astype(np.uint8)).save(tmp_path / "l.png", transparency=0)
    palette = Image.fromarray(HOLE.astype(np.uint8))
    palette.putpalette([9, 9, 9, 9, 9, 9])
    palette.save(tmp_path / "p.png", transparency=b"\0\xff")
    for name in ("l.png", "p.png"):
        notes: list[str] = []
        assert np.array_equal(to_binary(tmp_path / name, SIZE, notes=notes), HOLE)
        assert notes == [ALPHA_READ]


# Neither white nor empty


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (Image.fromarray(grey3(BW) * np.array([1, 0, 0], np.uint8)), "brightest value is 76 of 255, below half"),
        (HOLE * np.uint8(2), "brightest value is 2 of 255, below half"),
        (HOLE * np.uint8(127), "brightest value is 127 of 255, below half"),
        (HOLE * np.uint16(32767), "brightest value is 32767 of 65535, below half"),
        (HOLE * 0.49, "brightest value is 0.49 of 1, below half"),
        (rgba(np.full((6, 9), 255), HOLE * 102), "brightest value is 102 of 255, below half"),
        (np.full((6, 9), 76, np.uint8), "brightest value is 76 of 255, below half"),
    ],
    ids=["red", "labels-0-2", "just-below", "16-bit", "float", "faint-brush", "one-dark-grey"],
)
def test_a_mask_without_white_is_not_called_empty(mask, line):
    with pytest.raises(ValueError, match=f"^the mask has no white: its {line}; paint the hole white$"):
        to_binary(mask, SIZE)
    with pytest.raises(ValueError, match=r"^the edge map has no white: .*; paint the marks white$"):
        to_binary(mask, SIZE, "edge map")


@pytest.mark.parametrize(
    ("mask", "line"),
    [
        (np.where(HOLE, 130, 255).astype(np.uint8), "darkest value is 130 of 255"),
        (np.where(HOLE, 0.5, 1.0), "darkest value is 0.5 of 1"),
    ],
)
def test_nor_is_an_inverted_one_without_black(mask, line):
    with pytest.raises(ValueError, match=f"^the mask has no black: its {line}, above half; paint the hole black$"):
        to_binary(mask, SIZE, invert=True)
    assert to_binary(mask, SIZE).all()


def test_an_empty_mask_is_empty_in_either_polarity():
    for dtype in (bool, np.uint8, np.float32):
        assert not to_binary(np.zeros((6, 9), dtype), SIZE).any()
        assert not to_binary(np.ones((6, 9), dtype), SIZE, invert=True).any()
    assert not to_binary(np.full((6, 9), 255, np.uint8), SIZE, invert=True).any()


@pytest.mark.parametrize(
    ("value", "white"),
    [
        (np.uint8(127), False), (np.uint8(128), True), (np.uint16(32767), False), (np.uint16(32768), True),
        (np.int32(1), True), (np.float32(0.4999), False), (np.float64(0.5), True),
    ],
)  # fmt: skip
def test_white_begins_at_half_of_the_range(value, white):
    top = {"f": 1, "u": 65535 if value.dtype.itemsize == 2 else 255, "i": 1}[value.dtype.kind]
    mask = np.array([[top, value, 0]], value.dtype)
    assert to_binary(mask, (3, 1)).tolist() == [[True, white, False]]


def test_values_beyond_16_bits_are_refused():
    with pytest.raises(ValueError, match=r"a mask must have values in 0\.\.255, got 0\.\.65536; convert it first"):
        to_binary(np.array([[0, 65536]]), (2, 1))
    assert to_binary(np.array([[0, 65535]]), (2, 1)).tolist() == [[False, True]]


# Orientation: every picture that is read is upright

TURNED = {
    2: HOLE[:, ::-1], 3: HOLE[::-1, ::-1], 4: HOLE[::-1], 5: HOLE.T, 6: np.rot90(HOLE), 7: HOLE[::-1, ::-1].T,
    8: np.rot90(HOLE, -1),
}  # fmt: skip


# Of TIFF files Pillow turns the pixels itself, and wrongly so where it maps the file into memory: L, not compressed.
@pytest.mark.parametrize("suffix", ["png", "jpg", "tif", "webp"])
@pytest.mark.parametrize("orientation", TURNED)
def test_a_mask_is_turned_as_a_photograph_is(tmp_path, orientation, suffix):
    big = np.kron(TURNED[orientation], np.ones((8, 8), bool))  # whole blocks of a JPEG
    exif = Image.Exif()
    exif[0x0112] = orientation
    path = tmp_path / f"m.{suffix}"
    Image.fromarray(big).convert("L").save(path, exif=exif, **({"lossless": True} if suffix == "webp" else {}))
    notes: list[str] = []
    assert np.array_equal(to_binary(path, (72, 48), "edge mask", notes=notes), np.kron(HOLE, np.ones((8, 8), bool)))
    assert notes == ([] if suffix == "tif" else ["the edge mask was turned upright as its EXIF says"])
    assert np.array_equal(read_rgb(path).rgb[..., 0] > 127, np.kron(HOLE, np.ones((8, 8), bool)))


def test_an_animated_mask_is_remarked(tmp_path):
    frames = [Image.fromarray(BW), Image.fromarray(255 - BW)]
    frames[0].save(tmp_path / "m.gif", save_all=True, append_images=frames[1:])
    notes: list[str] = []
    assert np.array_equal(to_binary(tmp_path / "m.gif", SIZE, notes=notes), HOLE)
    assert notes == ["the mask: animated or several pages: the first one is used"]


# The photograph as its own mask

PHOTO = Photo(RGB)


@pytest.mark.parametrize(
    ("mask", "photo"),
    [
        (RGB, PHOTO),
        (Image.fromarray(RGB), PHOTO),
        (Image.fromarray(RGB).convert("L"), PHOTO),
        (rgba(RGB, 255 - BW), PHOTO),  # an eraser on the photograph
        (rgba(RGB, 255 - BW), Photo(RGB, 255 - BW)),
        (RGB / 255, PHOTO),
        (Image.fromarray(GREY), to_photo(GREY)),
        (Image.fromarray(GREY.astype(np.uint16) * 257), to_photo(GREY.astype(np.uint16) * 257)),
    ],
    ids=["array", "pil", "grey", "eraser", "own-alpha", "float", "grey-photograph", "16-bit"],
)
@pytest.mark.parametrize("invert", [False, True])
def test_the_photograph_is_no_mask_of_itself(mask, photo, invert):
    with pytest.raises(ValueError, match="the mask must show the hole, white on black; this is the photograph itself"):
        to_hole(mask, photo, invert)


@pytest.mark.parametrize("values", [BW, np.zeros((6, 9), np.uint8), np.full((6, 9), 255, np.uint8), HOLE * np.uint8(1)])
def test_a_black_and_white_photograph_may_be(values):
    assert np.array_equal(
        to_hole(values, to_photo(values * np.uint8(255) if values.max() == 1 else values)), values > 0
    )


def test_a_photograph_of_one_grey_is_not_taken_for_a_mask_of_one_grey():
    values = np.full((6, 9), 200, np.uint8)
    notes: list[str] = []
    assert to_hole(values, to_photo(values), notes=notes).all()
    assert notes == ["most of the mask is neither black nor white: is it a photograph?"]


@pytest.mark.parametrize(("share", "said"), [(27, False), (28, True)])
def test_what_looks_like_a_photograph_is_remarked(share, said):
    values = np.resize(np.array([0, 255], np.uint8), 54)
    values[:share] = np.resize(np.array([32, 223], np.uint8), share)
    notes: list[str] = []
    to_hole(values.reshape(6, 9), PHOTO, notes=notes)
    assert notes == ["most of the mask is neither black nor white: is it a photograph?"] * said
    values[:share] = np.resize(np.array([31, 224], np.uint8), share)
    notes.clear()
    to_hole(values.reshape(6, 9), PHOTO, notes=notes)
    assert notes == []


def test_the_mask_of_a_photograph_has_its_size_and_its_notes():
    notes: list[str] = []
    assert np.array_equal(to_hole(rgba(BW, almost_opaque()), PHOTO, True, notes), ~HOLE)
    assert notes == [OVER_BLACK]
    assert np.array_equal(to_hole(WHITE, PHOTO), WHITE)
    assert np.array_equal(to_hole(WHITE * 1.0, PHOTO), WHITE)
    with pytest.raises(ValueError, match="the mask must have the size of the photograph, 9 x 6; it has 6 x 9"):
        to_hole(WHITE.T, PHOTO)
