"""Images, masks and guidance at the door: every kind of picture in, one line for what cannot be used."""

from __future__ import annotations

import struct
import zlib

import cv2
import numpy as np
import pytest
import torch
from PIL import Image, ImageCms

from mmif import imagefile
from mmif.image import (
    binary_to_model,
    from_model,
    hole_note,
    label_image,
    labels_to_model,
    read_hole,
    read_rgb,
    to_binary,
    to_labels,
    to_model,
    to_photo,
)

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9), np.uint8)


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


# Reading photographs


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


def test_16_bit_is_reduced_with_a_word(tmp_path):
    deep = GREY.astype(np.uint16) * 257
    Image.fromarray(deep).save(tmp_path / "grey.png")
    Image.fromarray(deep).save(tmp_path / "grey.tif")
    cv2.imwrite(str(tmp_path / "rgb.png"), RGB[:, :, ::-1].astype(np.uint16) * 257)
    for name, expected in (("grey.png", grey3(GREY)), ("grey.tif", grey3(GREY)), ("rgb.png", RGB)):
        photo = read_rgb(tmp_path / name)
        assert np.array_equal(photo.rgb, expected), name
        assert photo.notes == ("16-bit reduced to 8-bit",), name


def test_cmyk_is_converted_and_its_profile_dropped(tmp_path):
    image = Image.fromarray(np.full((6, 9, 3), (200, 30, 90), np.uint8)).convert("CMYK")
    image.save(tmp_path / "a.jpg", quality=100, icc_profile=b"a profile of inks")
    photo = read_rgb(tmp_path / "a.jpg")
    assert np.abs(photo.rgb.astype(int) - (200, 30, 90)).max() <= 3
    assert photo.icc_profile is None
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
    exif[imagefile._ORIENTATION] = 6  # turn by 90 degrees clockwise
    exif[0x010F] = "maker"
    Image.fromarray(RGB).save(tmp_path / "a.png", exif=exif)
    photo = read_rgb(tmp_path / "a.png")
    assert np.array_equal(photo.rgb, np.rot90(RGB, -1))
    assert photo.notes == ("turned upright as its EXIF says",)
    kept = Image.Exif()
    assert photo.exif is not None
    kept.load(photo.exif)
    assert dict(kept) == {0x010F: "maker"}


def test_icc_profile_is_kept(tmp_path):
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    Image.fromarray(RGB).save(tmp_path / "a.png", icc_profile=profile)
    assert read_rgb(tmp_path / "a.png").icc_profile == profile


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
    with pytest.raises(ValueError, match=r"a\.png: must be"):
        read_rgb(tmp_path / "a.png")


def test_missing_file_and_folder(tmp_path):
    with pytest.raises(ValueError, match="none is there"):
        read_rgb(tmp_path / "no.png")
    with pytest.raises(ValueError, match="it is a folder"):
        read_rgb(tmp_path)


@pytest.mark.parametrize("side", [13_400, 60_000])  # refused by us, refused by Pillow
def test_decompression_bomb_is_refused_with_the_limit(tmp_path, side):
    header = struct.pack(">IIBBBBB", side, side, 1, 0, 0, 0, 0)
    chunk = b"IHDR" + header
    data = b"\x89PNG\r\n\x1a\n" + struct.pack(">I", 13) + chunk + struct.pack(">I", zlib.crc32(chunk))
    (tmp_path / "a.png").write_bytes(data + struct.pack(">I", 0) + b"IDAT" + struct.pack(">I", zlib.crc32(b"IDAT")))
    with pytest.raises(ValueError, match="at most 178 million pixels"):
        read_rgb(tmp_path / "a.png")


def test_a_tensor_without_values_is_refused():
    with pytest.raises(ValueError, match="must be a tensor with values; got one on the meta device"):
        to_photo(torch.empty(1, 3, 4, 4, device="meta"))


def test_32_bit_float_is_refused(tmp_path):
    Image.fromarray(GREY.astype(np.float32)).save(tmp_path / "a.tif")
    with pytest.raises(ValueError, match="32-bit float"):
        read_rgb(tmp_path / "a.tif")


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RGB, RGB),
        (GREY, grey3(GREY)),
        (GREY[:, :, None], grey3(GREY)),
        (RGB.astype(np.float32) / 255, RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1)[None].double() / 255, RGB),
        (torch.from_numpy(GREY)[None], grey3(GREY)),
        (Image.fromarray(RGB), RGB),
    ],
    ids=["uint8", "grey", "one-channel", "float", "uint16", "tensor", "batch-of-one", "grey-tensor", "pil"],
)
def test_photographs_from_python(source, expected):
    assert np.array_equal(to_photo(source).rgb, expected)


def test_alpha_of_an_array():
    photo = to_photo(np.dstack([RGB, ALPHA]))
    assert np.array_equal(photo.rgb, RGB)
    assert np.array_equal(np.asarray(photo.alpha), ALPHA)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((2, 3, 5)),
        np.zeros((1, 2, 3, 3)),
        torch.zeros(6, 9, 3),
        np.zeros((0, 4, 3)),
    ],
    ids=["five-channels", "batch", "channels-last-tensor", "no-pixels"],
)
def test_wrong_shape_of_a_photograph(source):
    with pytest.raises(ValueError, match="an image must be"):
        to_photo(source)


@pytest.mark.parametrize("value", [-1.0, 255.0, np.nan, np.inf])
def test_float_photographs_outside_the_unit_range(value):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        to_photo(np.full((4, 4, 3), value, np.float32))


@pytest.mark.parametrize("source", [RGB.astype(np.int64), RGB > 3, [[1, 2]], None])
def test_wrong_type_of_a_photograph(source):
    with pytest.raises(TypeError, match="image must be"):
        to_photo(source)


# Masks

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
        Image.fromarray(np.dstack([RGB, GREY])),  # a brush layer: its alpha is the mask
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
        assert np.array_equal(read_hole(tmp_path / "mask.png", (9, 6)), WHITE)


def test_a_mask_of_another_size_names_both():
    with pytest.raises(ValueError, match="9 x 6; it has 6 x 9"):
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
    with pytest.raises(ValueError, match="must be an image"):
        read_hole(tmp_path / "mask.png", (9, 6))


def test_a_hole_is_remarked_when_it_looks_wrong():
    hole = np.zeros((100, 100), bool)
    assert "empty" in (hole_note(hole) or "")
    hole[0, :5] = True
    assert "0.05 %" in (hole_note(hole) or "")
    hole[:50] = True
    assert hole_note(hole) is None
    hole[:95] = True
    note = hole_note(hole) or ""
    assert "95.00 %" in note
    assert "--invert-mask" in note
    assert "100.00 %" in (hole_note(np.ones((3, 3), bool)) or "")


# Guidance

LABELS = (GREY % 5).astype(np.uint8)
LABELS[0, 0] = 255


@pytest.mark.parametrize(
    "source",
    [LABELS, LABELS.astype(np.int64), torch.from_numpy(LABELS)[None], label_image(LABELS), Image.fromarray(LABELS)],
    ids=["uint8", "int64", "tensor", "palette", "grey"],
)
def test_labels(source, tmp_path):
    assert np.array_equal(to_labels(source, (9, 6), 5), LABELS)
    if isinstance(source, Image.Image):
        source.save(tmp_path / "seg.png")
        assert np.array_equal(to_labels(tmp_path / "seg.png", (9, 6), 5), LABELS)


def test_unusable_labels():
    with pytest.raises(ValueError, match=r"0\.\.3, or 255 for unknown; got 4"):
        to_labels(LABELS, (9, 6), 4)
    with pytest.raises(ValueError, match="got -1"):
        to_labels(np.full((6, 9), -1), (9, 6), 4)
    with pytest.raises(ValueError, match="9 x 6; it has 6 x 9"):
        to_labels(LABELS.T, (9, 6), 5)
    with pytest.raises(ValueError, match="mode RGB"):
        to_labels(Image.fromarray(RGB), (9, 6), 5)
    with pytest.raises(TypeError, match="float64"):
        to_labels(np.zeros((6, 9)), (9, 6), 5)


def test_an_edge_map_of_another_size():
    with pytest.raises(ValueError, match="the edge map must have the size"):
        to_binary(np.zeros((6, 8), bool), (9, 6), "edge map")


# Into the model and out of it


def test_all_levels_survive_the_way_in_and_out():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    rgb = np.stack([levels, levels[:, ::-1], 255 - levels], axis=3)
    inside = to_model(rgb)
    assert inside.shape == (1, 3, 16, 16)
    assert (inside.min(), inside.max()) == (-1.0, 1.0)
    assert np.array_equal(from_model(inside), rgb)


def test_from_model_clamps_and_rounds():
    out = from_model(torch.tensor([-1.5, 0.001, 1.5]).view(1, 3, 1, 1))
    assert out.tolist() == [[[[0, 128, 255]]]]


def test_planes_for_the_model():
    assert torch.equal(binary_to_model(WHITE[None]), torch.from_numpy(WHITE).float()[None, None])
    one_hot = labels_to_model(LABELS[None], 5)
    assert one_hot.shape == (1, 5, 6, 9)
    assert torch.equal(one_hot.sum(1)[0], torch.from_numpy(LABELS != 255).float())  # unknown: all zero
    assert np.array_equal(one_hot.argmax(1)[0][LABELS != 255], LABELS[LABELS != 255])


# Writing


def test_a_write_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def save(self, name, *_, **__):
        name.write_bytes(b"half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        imagefile.write_image(Image.fromarray(RGB), path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


def test_what_a_format_cannot_hold_is_said_with_the_name_of_the_file(tmp_path):
    with pytest.raises(OSError, match=r"a\.webp could not be written as WEBP: "):
        imagefile.write_image(Image.new("RGB", (20_000, 1)), tmp_path / "a.webp")
    assert not list(tmp_path.iterdir())


def test_targets_are_checked_before_anything_is_written(tmp_path):
    imagefile.check_target(tmp_path / "new" / "a.png")
    assert list(tmp_path.rglob("*")) == [tmp_path / "new"]
    (tmp_path / "file").write_bytes(b"")
    for path, word in (("file/a.png", "writable"), ("a.xyz", "must end in"), ("a", "must end in")):
        with pytest.raises(ValueError, match=word):
            imagefile.check_target(tmp_path / path)
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        imagefile.check_target(tmp_path / "dir.png")


def test_what_a_format_loses_is_said(tmp_path):
    photo = to_photo(np.dstack([RGB, ALPHA]))
    assert imagefile.lost_in(tmp_path / "a.png", photo) == []
    assert [note.split(":")[0] for note in imagefile.lost_in(tmp_path / "a.jpg", photo)] == [
        "JPEG is lossy",
        "JPEG has no alpha",
    ]
