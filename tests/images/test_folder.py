"""What a folder holds: pictures, and what is left out with the reason."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from mmif.images import decode, folder
from mmif.images.folder import look_into


def touch(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_bytes(b"")


def names(paths, root: Path) -> list[str]:
    return [path.relative_to(root).as_posix() for path in paths]


@pytest.fixture(params=[False, True])
def heif(request, monkeypatch) -> bool:
    """Without pillow-heif, and with it."""
    monkeypatch.setattr(folder, "heif_is_readable", lambda: request.param)
    return request.param


def test_what_was_left_out_is_said(tmp_path, heif):
    touch(tmp_path, "b.JPG", "a.png", "c.heic", "d.HEIF", "e.txt", "f", ".hidden.png", "._b.JPG", "in/side.png")
    (tmp_path / "g.png").symlink_to(tmp_path / "nowhere.png")
    (tmp_path / "h.png").mkdir()
    found = look_into(tmp_path)
    assert names(found.pictures, tmp_path) == ["a.png", "b.JPG", *(["c.heic", "d.HEIF"] if heif else [])]
    reasons = {path.name: reason for path, reason in found.skipped.items()}
    wanted = {"e.txt": "not a picture that is read", "f": "not a picture that is read"}
    wanted["in"] = "a folder of pictures; --recursive fills them, too"
    wanted["g.png"] = "a link that leads nowhere, or no file"
    if not heif:
        wanted |= dict.fromkeys(["c.heic", "d.HEIF"], 'HEIC needs pillow-heif: pip install "mminvertfill[heif]"')
    assert reasons == wanted


def test_folders_are_entered_on_demand_but_hidden_ones_never(tmp_path):
    touch(tmp_path, "b.png", "a/z.png", "a/y.txt", "a/.x.png", ".cache/w.png", "a/.thumbnails/v.png", "a/b/c.png")
    found = look_into(tmp_path, recursive=True)
    assert names(found.pictures, tmp_path) == ["a/b/c.png", "a/z.png", "b.png"]
    assert names(found.skipped, tmp_path) == ["a/y.txt"]
    assert names(look_into(tmp_path).pictures, tmp_path) == ["b.png"]


def test_a_folder_behind_a_link_is_not_entered_but_said(tmp_path):
    touch(tmp_path, "in/a.png", "far/b.png")
    (tmp_path / "in/link").symlink_to(tmp_path / "far")
    found = look_into(tmp_path / "in", recursive=True)
    assert names(found.pictures, tmp_path) == ["in/a.png"]
    assert found.note() == "skipped: link (a link to a folder, which is not followed)"


def test_the_folders_of_masks_and_results_are_not_said_to_be_skipped(tmp_path):
    touch(tmp_path, "a.png", "masks/a.png", "trip/b.png", "empty/notes.txt")
    found = look_into(tmp_path)
    assert found.note([tmp_path / "masks"]) == "skipped: trip (a folder of pictures; --recursive fills them, too)"


def test_a_folder_that_cannot_be_read_is_said(tmp_path, monkeypatch):
    touch(tmp_path, "a/x.png", "b/y.png")
    scan = os.scandir

    def refuse(path):
        if str(path).endswith("a"):
            raise PermissionError(13, "Permission denied", str(path))
        return scan(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = look_into(tmp_path, recursive=True)
    assert names(found.pictures, tmp_path) == ["b/y.png"]
    assert found.skipped == {tmp_path / "a": "a folder that cannot be read: Permission denied"}


def test_the_note_counts_and_names_five_of_each_reason(tmp_path):
    touch(tmp_path, "a.png")
    assert look_into(tmp_path).note() is None
    touch(tmp_path, "1.txt")
    assert look_into(tmp_path).note() == "skipped: 1.txt (not a picture that is read)"
    touch(tmp_path, *(f"{i}.txt" for i in range(2, 6)))
    assert look_into(tmp_path).note() == ("skipped: 1.txt, 2.txt, 3.txt, 4.txt, 5.txt (not a picture that is read)")
    touch(tmp_path, "6.txt", "7.txt")
    (tmp_path / "z.png").symlink_to("nowhere")
    assert look_into(tmp_path).note() == (
        "skipped: 1.txt, 2.txt, 3.txt, 4.txt, 5.txt and 2 more (not a picture that is read); "
        "z.png (a link that leads nowhere, or no file)"
    )


def test_a_folder_that_is_none(tmp_path):
    touch(tmp_path, "a.png")
    with pytest.raises(ValueError, match=r"^no folder at .*no; check the path$"):
        look_into(tmp_path / "no")
    with pytest.raises(ValueError, match=r"a\.png is a file; give a folder$"):
        look_into(tmp_path / "a.png")


def test_every_format_that_is_read_has_its_suffixes():
    from PIL import Image

    Image.init()
    for suffix in decode.READ_SUFFIXES - {".jpe", ".mpo"}:
        assert Image.EXTENSION[suffix] in decode.FORMATS
    common = {f".{name}" for name in "png jpg jpeg jfif webp tif tiff bmp gif avif ppm pgm pbm".split()}
    assert common <= decode.READ_SUFFIXES
    assert {Image.EXTENSION[suffix] for suffix in common | {".pnm"}} == set(decode.FORMATS)


def test_a_pillow_heif_that_is_missing_or_broken_is_no_pillow_heif(monkeypatch):
    def broken(name):
        assert name == "pillow_heif"
        raise RuntimeError("built for another Pillow")

    monkeypatch.setattr(decode.importlib, "import_module", broken)
    assert not decode.heif_is_readable.__wrapped__()
