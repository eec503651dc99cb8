"""The manifest of a packed set is checked whole before anything is read by it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from mmif.data.manifest import Shard, read_manifest

SHARD = {"file": "train/000000.tar", "count": 3, "sha256": "0" * 64}
WHOLE: dict[str, Any] = {
    "format": 1,
    "complete": True,
    "layout": "folder",
    "size": 128,
    "seg": "given",
    "num_classes": 2,
    "labels": ["sky", "sea"],
    "canny_sigma": 1.0,
    "photographs_sha256": "f" * 64,
    "terms": "yours",
    "duplicates": [],
    "splits": {"train": {"count": 3, "shards": [SHARD]}, "val": {"count": 0, "shards": []}},
    "corrupt": [{"path": "a.png", "reason": "no image"}],
    "made_by": "mmif-data 0.1.0",
}


def read(tmp_path: Path, **changes: Any):
    (tmp_path / "manifest.json").write_text(json.dumps(WHOLE | changes))
    return read_manifest(tmp_path)


def shards(*changes: dict[str, Any], count: object = 3) -> dict[str, Any]:
    return {"train": {"count": count, "shards": [SHARD | change for change in changes]}}


def test_a_whole_manifest(tmp_path: Path):
    manifest = read(tmp_path)
    assert (manifest.size, manifest.labels, manifest.complete) == (128, ("sky", "sea"), True)
    assert manifest.splits["train"].shards == (Shard("train/000000.tar", 3, "0" * 64),)
    assert manifest.corrupt[0].reason == "no image"
    assert manifest.skipped == ()  # sets of before do not list them


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"size": float("inf")}, "Infinity is not valid JSON"),
        ({"size": 15}, "the manifest.size must be a whole number in 16..2048, got 15"),
        ({"size": 128.0}, "the manifest.size must be a whole number in 16..2048, got 128.0"),
        ({"size": "x"}, "the manifest.size must be a whole number in 16..2048, got 'x'"),
        ({"labels": None}, "the manifest.labels must be a list of values, each a text"),
        ({"num_classes": 3}, "num_classes must be the number of labels, 2; got 3"),
        ({"seg": "drawn"}, "the manifest.seg must be one of given, kmeans, none, got 'drawn'"),
        ({"canny_sigma": 0}, "the manifest.canny_sigma must be a number > 0, got 0"),
        (
            {"photographs_sha256": "f" * 63},
            "the manifest.photographs_sha256 must be a SHA-256 of 64 hexadecimal digits",
        ),
        ({"nonsense": 1}, "the manifest: unknown keys ['nonsense']"),
        ({"splits": 5}, "the manifest.splits must be an object"),
        ({"splits": {"train": {"shards": []}}}, "the manifest.splits.train must have the keys ['count']"),
        ({"splits": shards({"count": -1})}, "the manifest.splits.train.shards[0].count must be a whole number in 0.."),
        ({"splits": shards({"sha256": "x"})}, "the manifest.splits.train.shards[0].sha256 must be a SHA-256"),
        ({"splits": shards({"more": 1})}, "the manifest.splits.train.shards[0]: unknown keys ['more']"),
        ({"splits": shards({}, count=4)}, "the count of train must be the sum of its shards'; got 4"),
        ({"splits": {"val": WHOLE["splits"]["train"]}}, "the shards of val must lie in its folder"),
    ],
)
def test_each_value_has_its_bounds(tmp_path: Path, changes: dict[str, Any], words: str):
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the whole line is compared
        read(tmp_path, **changes)
    place = f"{tmp_path} must be a folder that `mmif-data prepare` wrote; in {tmp_path / 'manifest.json'}: "
    assert str(refused.value).startswith(place)
    assert words in str(refused.value)


@pytest.mark.parametrize(
    "file",
    ["../outside.tar", "/etc/passwd", "train/../../x.tar", "train/000000.tar/..", "000000.tar", "dev/000000.tar"],
)
def test_no_path_leaves_the_folder(tmp_path: Path, file: str):
    with pytest.raises(ValueError, match=r"file must be the name of a shard, such as train/000000\.tar, got"):
        read(tmp_path, splits=shards({"file": file}))


@pytest.mark.parametrize("key", sorted(WHOLE.keys() - {"splits", "corrupt", "made_by"}))
def test_no_key_may_be_missing(tmp_path: Path, key: str):
    (tmp_path / "manifest.json").write_text(json.dumps({k: v for k, v in WHOLE.items() if k != key}))
    with pytest.raises(ValueError, match=rf"must have the keys \['{key}'\]"):
        read_manifest(tmp_path)


@pytest.mark.parametrize("content", ["no json", "[]", "{}", "5", "[" * 100_000])
def test_no_packed_set(tmp_path: Path, content: str):
    (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="must be a folder that `mmif-data prepare` wrote"):
        read_manifest(tmp_path)


def test_another_format_and_an_unfinished_set(tmp_path: Path):
    with pytest.raises(ValueError, match="it must have format 1, got 2; prepare the set again"):
        read(tmp_path, format=2, whatever=3)
    with pytest.raises(ValueError, match="is not complete: run the same `mmif-data prepare` again to finish it"):
        read(tmp_path, complete=False)
