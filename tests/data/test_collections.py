from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from mmif.data.collections import LAYOUTS, drop_duplicates, read_layout


def splits(records) -> dict[str, set[str]]:
    return {split: {r.key for r in records if r.split == split} for split in ("train", "val", "test")}


@pytest.mark.parametrize("place", [".", "dataset", "intel"])
def test_intel_scenes(tmp_path: Path, photograph, place: str):
    base = tmp_path / place
    for i in range(60):
        photograph(base / "seg_train" / "sea" / f"{i}.jpg", i)
    photograph(base / "seg_pred" / "7.jpg", 100)
    photograph(base / "seg_test" / "sea" / "7.jpg", 101)
    found = splits(read_layout("intel-scenes", tmp_path))
    assert found["test"] == {"seg_test-sea-7"}
    assert found["train"] | found["val"] == {"seg_pred-7", *(f"seg_train-sea-{i}" for i in range(60))}
    assert 0 < len(found["val"]) < 6  # 2 % by hash


def test_bsds500(tmp_path: Path, photograph):
    for i, split in enumerate(("train", "val", "test")):
        photograph(tmp_path / "BSDS500" / "data" / "images" / split / f"{i}.jpg", i)
    (tmp_path / "BSDS500" / "data" / "images" / "train" / "Thumbs.db").write_bytes(b"x")
    assert splits(read_layout("bsds500", tmp_path)) == {"train": {"train-0"}, "val": {"val-1"}, "test": {"test-2"}}


def test_camvid_has_labels(tmp_path: Path, photograph):
    for i, split in enumerate(("train", "val", "test")):
        photograph(tmp_path / "CamVid" / split / f"{i}.png", i)
        photograph(tmp_path / "CamVid" / f"{split}annot" / f"{i}.png", i)
    records = read_layout("camvid", tmp_path)
    assert {r.key: r.seg for r in records} == {
        f"{split}-{i}": tmp_path / "CamVid" / f"{split}annot" / f"{i}.png"
        for i, split in enumerate(("train", "val", "test"))
    }
    assert len(LAYOUTS["camvid"].labels) == LAYOUTS["camvid"].void == 11


def test_folder_keeps_sidecars_out_and_crops_together(tmp_path: Path, photograph):
    for i in range(60):
        for crop in range(3):
            photograph(tmp_path / "deep" / f"p{i}_{crop:03d}.png", 3 * i + crop)
    photograph(tmp_path / "a.png", 500)
    photograph(tmp_path / "a_seg.png", 501)
    photograph(tmp_path / "a_edge.png", 502)
    photograph(tmp_path / "a_mask000.png", 503)
    photograph(tmp_path / "my_mask.png", 504)  # no photograph of that stem: it is one itself
    records = read_layout("folder", tmp_path)
    keys = {r.key: r for r in records}
    assert len(keys) == 182
    assert keys["a"].seg == tmp_path / "a_seg.png"
    assert "my_mask" in keys
    by_source: dict[str, set[str]] = {}
    for record in records:
        by_source.setdefault(re.sub(r"_\d{3}$", "", record.key), set()).add(record.split)
    assert all(len(found) == 1 for found in by_source.values())
    sizes = {split: len(found) for split, found in splits(records).items()}
    assert sizes["train"] > 130
    assert sizes["val"] > 0
    assert sizes["test"] > 0


def test_cameras_number_with_four_digits(tmp_path: Path, photograph):
    for i in range(40):
        photograph(tmp_path / f"IMG_{i:04d}.jpg", i)
    assert all(splits(read_layout("folder", tmp_path)).values())


def test_the_split_of_a_photograph_does_not_depend_on_the_others(folder: Path, photograph):
    before = {r.key: r.split for r in read_layout("folder", folder)}
    photograph(folder / "another.jpg", 99)
    after = {r.key: r.split for r in read_layout("folder", folder)}
    assert before.items() <= after.items()


def test_keys_are_unique_and_safe(tmp_path: Path, photograph):
    for i, name in enumerate(("a.jpg", "a.png", "a b.c.jpg", "a-b-c.jpg")):
        photograph(tmp_path / name, i)
    keys = [r.key for r in read_layout("folder", tmp_path)]
    assert len(set(keys)) == 4
    assert all(re.fullmatch(r"[A-Za-z0-9_-]+", key) for key in keys)


def test_names_in_any_script_are_told_apart(tmp_path: Path, photograph):
    names = ["".join(chr(0x4E00 + int(digit)) for digit in f"{i:03d}") for i in range(60)]
    for i, name in enumerate(names):
        photograph(tmp_path / f"{name}.png", i)
    found = splits(read_layout("folder", tmp_path))
    assert all(found.values())  # no longer one group, and so one split
    assert max(map(len, set.union(*found.values()))) == len("--01234567")
    (tmp_path / f"{names[0]}.png").unlink()
    assert set.union(*splits(read_layout("folder", tmp_path)).values()) < set.union(*found.values())


def test_crops_in_any_script_share_a_split(tmp_path: Path, photograph):
    for i in range(90):
        photograph(tmp_path / f"{chr(0x4E00 + i // 3)}_{i % 3:03d}.png", i)
    records = read_layout("folder", tmp_path)
    splits_of = {
        stem: {r.split for r in records if r.path.stem[0] == stem} for stem in {r.path.stem[0] for r in records}
    }
    assert len(splits_of) == 30
    assert all(len(found) == 1 for found in splits_of.values())
    assert len(set.union(*splits_of.values())) > 1


def test_a_plain_name_is_its_key(tmp_path: Path, photograph):
    photograph(tmp_path / "deep" / "IMG-1_a.jpg")
    photograph(tmp_path / "deep" / "a b.jpg", 1)
    assert sorted(r.key for r in read_layout("folder", tmp_path)) == ["deep-IMG-1_a", "deep-a-b-6f3aed0f"]


def test_the_order_is_mixed_and_fixed(folder: Path):
    keys = [r.key for r in read_layout("folder", folder)]
    assert keys == [r.key for r in read_layout("folder", folder)]
    assert keys != sorted(keys)


@pytest.mark.parametrize(("held_out", "other"), [("seg_test", "seg_train"), ("seg_test", "seg_pred")])
def test_a_duplicate_stays_in_the_most_held_out_split(tmp_path: Path, photograph, held_out: str, other: str):
    photograph(tmp_path / "seg_train" / "sea" / "1.jpg", 1)
    original = photograph(tmp_path / held_out / "sea" / "2.jpg", 2)
    copy = tmp_path / other / "sea" / "3.jpg"
    copy.parent.mkdir(parents=True, exist_ok=True)
    shutil.copy(original, copy)
    kept, dropped = drop_duplicates(read_layout("intel-scenes", tmp_path))
    assert [r.path for r in dropped] == [copy]
    assert {r.path.name for r in kept} == {"1.jpg", "2.jpg"}


def test_a_duplicate_in_val_leaves_train(tmp_path: Path, photograph):
    for i in range(60):
        photograph(tmp_path / "seg_train" / "sea" / f"{i}.jpg", 0)  # all the same photograph
    (tmp_path / "seg_test").mkdir()
    kept, dropped = drop_duplicates(read_layout("intel-scenes", tmp_path))
    assert [r.split for r in kept] == ["val"]
    assert len(dropped) == 59


@pytest.mark.parametrize("layout", sorted(set(LAYOUTS) - {"folder"}))
def test_a_folder_without_the_layout(tmp_path: Path, layout: str):
    with pytest.raises(ValueError, match="--from must hold one of the folders"):
        read_layout(layout, tmp_path)


def test_nothing_to_read(tmp_path: Path):
    with pytest.raises(ValueError, match="found none"):
        read_layout("folder", tmp_path)
    with pytest.raises(ValueError, match="--from must be a folder"):
        read_layout("folder", tmp_path / "missing")
    with pytest.raises(ValueError, match="--layout must be one of"):
        read_layout("imagenet", tmp_path)


def test_every_layout_states_its_terms():
    assert all(len(layout.terms) > 40 for layout in LAYOUTS.values())
