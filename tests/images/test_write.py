"""Pictures to files: in the format of the suffix, whole or not at all."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmif.images import write
from mmif.images.photo import Photo, read_rgb

RNG = np.random.default_rng(5)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9), np.uint8)


@pytest.mark.parametrize("suffix", [".png", ".PNG", ".webp", ".tif", ".TIFF", ".bmp"])
def test_what_is_written_is_what_is_read(tmp_path, suffix):
    write.write_image(Image.fromarray(RGB), tmp_path / f"a{suffix}")
    assert np.array_equal(read_rgb(tmp_path / f"a{suffix}").rgb, RGB)


@pytest.mark.parametrize("suffix", [".png", ".webp", ".tif"])
def test_so_is_alpha_and_what_lies_under_it(tmp_path, suffix):
    alpha = ALPHA.copy()
    alpha[:, 0] = 0
    write.write_image(Image.fromarray(np.dstack([RGB, alpha])), tmp_path / f"a{suffix}")
    photo = read_rgb(tmp_path / f"a{suffix}")
    assert np.array_equal(photo.rgb, RGB)
    assert photo.alpha is not None
    assert np.array_equal(photo.alpha, alpha)


@pytest.mark.parametrize(("suffix", "distance"), [(".jpg", 3), (".JPEG", 3), (".bmp", 1e-9)])
@pytest.mark.parametrize("grey", [False, True])
def test_alpha_is_left_out_where_there_is_no_room(tmp_path, suffix, distance, grey):
    smooth = np.asarray(Image.fromarray(RGB).resize((32, 32), Image.Resampling.BICUBIC))
    image = Image.fromarray(smooth).convert("L" if grey else "RGB")
    levels = np.asarray(image.convert("RGB"))
    image.putalpha(7)
    write.write_image(image, tmp_path / f"a{suffix}")
    photo = read_rgb(tmp_path / f"a{suffix}")
    assert (photo.alpha, photo.grey) == (None, grey)
    assert np.abs(photo.rgb.astype(int) - levels).mean() < distance


def test_a_write_that_breaks_leaves_the_old_file_and_nothing_else(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_bytes(b"old")

    def save(self, file, *_, **__):
        file.write(b"half of")
        raise KeyboardInterrupt

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(KeyboardInterrupt):
        write.write_image(Image.fromarray(RGB), path)
    assert [(p.name, p.read_bytes()) for p in tmp_path.iterdir()] == [("a.png", b"old")]


def test_what_a_format_cannot_hold_is_said_with_the_name_of_the_file(tmp_path):
    with pytest.raises(OSError, match=r"a\.webp could not be written as WEBP: ") as caught:
        write.write_image(Image.new("RGB", (20_000, 1)), tmp_path / "a.webp")
    assert caught.value.__cause__ is not None
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("failure", [ValueError, TypeError, RuntimeError, OSError, MemoryError])
def test_whatever_a_writer_raises_is_one_oserror(tmp_path, monkeypatch, failure):
    def save(self, file, *_, **__):
        raise failure("no\nroom")

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(OSError, match=r"a\.png could not be written as PNG: no room$"):
        write.write_image(Image.fromarray(RGB), tmp_path / "a.png")
    assert not list(tmp_path.iterdir())


def test_targets_are_checked_before_anything_is_written(tmp_path):
    write.check_target(tmp_path / "new" / "deep" / "a.png")
    assert sorted(tmp_path.rglob("*")) == [tmp_path / "new", tmp_path / "new" / "deep"]
    (tmp_path / "file").write_bytes(b"")
    for path, word in (("file/a.png", "must be writable"), ("a.xyz", "must end in"), ("a", "must end in")):
        with pytest.raises(ValueError, match=word):
            write.check_target(tmp_path / path)
    (tmp_path / "dir.png").mkdir()
    with pytest.raises(ValueError, match="is a folder"):
        write.check_target(tmp_path / "dir.png")


def test_a_folder_that_cannot_be_written_to_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr("os.access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(ValueError, match=r"a\.png must be a file in a folder that exists and can be written to"):
        write.check_target(tmp_path / "a.png")


@pytest.mark.parametrize(
    ("name", "suffix"),
    [("a.jpg", ".jpg"), ("a.JPEG", ".JPEG"), ("a.b.tif", ".tif"), ("a.gif", ".png"), ("a.heic", ".png"), ("a", ".png")],
)
def test_a_result_keeps_the_suffix_of_what_can_be_written(tmp_path, name, suffix):
    assert write.writable_suffix(tmp_path / name) == suffix


def test_what_a_format_loses_is_said(tmp_path):
    photo = Photo(RGB, ALPHA)
    lossy = "JPEG is lossy: write to .png to keep known pixels byte-identical"
    assert write.lost_in(tmp_path / "a.png", photo) == []
    assert write.lost_in(tmp_path / "a.webp", photo) == []
    assert write.lost_in(tmp_path / "a.tif", photo) == []
    assert write.lost_in(tmp_path / "a.bmp", photo) == ["BMP has no alpha: write to .png to keep it"]
    assert write.lost_in(tmp_path / "a.JPG", photo) == [lossy, "JPEG has no alpha: write to .png to keep it"]
    assert write.lost_in(tmp_path / "a.jpeg", Photo(RGB)) == [lossy]
