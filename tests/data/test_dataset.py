from __future__ import annotations

import io
import json
import multiprocessing
import pickle
import signal
import subprocess
import tarfile
import threading
from itertools import islice
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmif.data import prepare as module
from mmif.data.dataset import InfiniteSampler, PackedDataset, batches
from mmif.data.edges import canny
from mmif.data.prepare import prepare
from mmif.data.settings import Settings
from mmif.data.show import contact_sheet
from mmif.data.workers import signals_held


@pytest.fixture
def packed(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setattr(module, "_SHARD", 8)
    prepare(folder, tmp_path / "set", Settings("folder", size=32, seg="none"), progress=False)
    return tmp_path / "set"


def rewrite(root: Path, **changes: object) -> None:
    """Change keys of the manifest; None removes one."""
    path = root / "manifest.json"
    manifest = json.loads(path.read_text()) | changes
    path.write_text(json.dumps({key: value for key, value in manifest.items() if value is not None}))


def take(root: Path, count: int, workers: int = 0, start: int = 0) -> list[dict]:
    dataset = PackedDataset(root, "train")
    return list(islice(batches(dataset, InfiniteSampler(len(dataset), 3, start), 4, workers), count))


def test_items(packed: Path, folder: Path):
    dataset = PackedDataset(packed, "train")
    assert len(dataset) == dataset.manifest.splits["train"].count
    assert (dataset.size, dataset.labels, dataset.num_classes) == (32, [], 0)
    keys = set()
    for i in range(len(dataset)):
        item = dataset[i]
        assert {name: (value.dtype, tuple(value.shape)) for name, value in item.items() if name != "key"} == {
            "image": (torch.uint8, (3, 32, 32)),
            "seg": (torch.uint8, (32, 32)),
            "edge": (torch.uint8, (1, 32, 32)),
        }
        source = Image.open(folder / f"{item['key']}.jpg").crop((4, 0, 36, 32))
        assert np.array_equal(item["image"].permute(1, 2, 0), np.asarray(source))
        assert torch.equal(item["edge"], canny(item["image"][None], 0.25)[0].to(torch.uint8))
        assert (item["seg"] == 255).all()
        keys.add(item["key"])
    assert len(keys) == len(dataset)


def test_labels(tmp_path: Path, photograph):
    photograph(tmp_path / "in" / "a.jpg", size=(32, 32))
    labels = np.tile(np.array([0, 1, 2, 255], np.uint8), (32, 8))
    Image.fromarray(labels).save(tmp_path / "in" / "a_seg.png")
    manifest = prepare(tmp_path / "in", tmp_path / "set", Settings("folder", size=32, classes=3), progress=False)
    dataset = PackedDataset(tmp_path / "set", next(iter(manifest["splits"])))
    assert dataset.num_classes == 3
    assert np.array_equal(dataset[0]["seg"], labels)  # the JPEG beside it was stored as it was
    assert contact_sheet(dataset).size == (32, 96)


def test_a_copy_in_another_process_reads_the_same(packed: Path):
    dataset = PackedDataset(packed, "train")
    dataset[0]
    copy = pickle.loads(pickle.dumps(dataset))
    assert torch.equal(copy[1]["image"], dataset[1]["image"])


def test_batches_do_not_depend_on_the_workers(packed: Path):
    torch.manual_seed(0)
    plain = take(packed, 12)
    state = torch.get_rng_state()
    torch.manual_seed(0)
    assert torch.equal(state, torch.get_rng_state())  # training draws the same numbers, resumed or not
    for one, two in zip(plain, take(packed, 12, workers=2), strict=True):
        assert one["key"] == two["key"]
        assert all(torch.equal(one[name], two[name]) for name in ("image", "seg", "edge"))
    assert plain[0]["image"].shape == (4, 3, 32, 32)


def test_batches_resume(packed: Path):
    whole = [batch["key"] for batch in take(packed, 15)]
    assert [batch["key"] for batch in take(packed, 5, start=40)] == whole[10:]


@pytest.mark.parametrize("start", [0, 1, 9, 10, 11, 25])
def test_the_sampler_resumes_anywhere(start: int):
    whole = list(islice(InfiniteSampler(10, seed=1), 60))
    assert list(islice(InfiniteSampler(10, seed=1, start=start), 30)) == whole[start : start + 30]


def test_the_sampler_shuffles_each_epoch_anew():
    epochs = np.array(list(islice(InfiniteSampler(10, seed=1), 100))).reshape(10, 10)
    assert (np.sort(epochs, axis=1) == np.arange(10)).all()
    assert len(np.unique(epochs, axis=0)) == 10
    assert list(islice(InfiniteSampler(10, seed=2), 10)) != epochs[0].tolist()


@pytest.mark.parametrize(("length", "start"), [(0, 0), (5, -1)])
def test_impossible_samplers(length: int, start: int):
    with pytest.raises(ValueError, match="length >= 1 and start >= 0"):
        InfiniteSampler(length, 0, start)


def test_the_contact_sheet_shows_photographs_above_their_edges(packed: Path):
    dataset = PackedDataset(packed, "train")
    sheet = np.asarray(contact_sheet(dataset, columns=3, rows=2))
    assert sheet.shape == (2 * 3 * 32, 3 * 32, 3)
    item = dataset[4]
    assert np.array_equal(sheet[96:128, 32:64], item["image"].permute(1, 2, 0))
    assert np.array_equal(sheet[160:192, 32:64, 0], item["edge"][0] * 255)
    with pytest.raises(ValueError, match="--columns >= 1"):
        contact_sheet(dataset, columns=0)


@pytest.mark.parametrize("content", [None, "no json", "[]", "{}"])
def test_no_packed_set(tmp_path: Path, content: str | None):
    if content:
        (tmp_path / "manifest.json").write_text(content)
    with pytest.raises(ValueError, match="must be a folder that `mmif-data prepare` wrote"):
        PackedDataset(tmp_path, "train")


@pytest.mark.parametrize(
    ("key", "value", "word"), [("format", 2, "format 1, got 2"), ("complete", False, "not complete")]
)
def test_another_format_or_unfinished(packed: Path, key: str, value: object, word: str):
    path = packed / "manifest.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | {key: value}))
    with pytest.raises(ValueError, match=word):
        PackedDataset(packed, "train")


def test_a_split_that_is_not_there(packed: Path):
    with pytest.raises(ValueError, match=r"the split must be one of train, val, test .*got 'dev'"):
        PackedDataset(packed, "dev")


@pytest.mark.parametrize("share", [0.0, 0.3, 0.6, 0.9, 0.999])
def test_a_truncated_shard(packed: Path, share: float):
    path = packed / "train" / "000001.tar"
    data = path.read_bytes()
    end = len(data.rstrip(b"\0"))  # the zeros behind the last member are no photograph
    path.write_bytes(data[: int(share * end)])
    with pytest.raises(ValueError, match=r"000001.tar must .*prepare` again"):
        PackedDataset(packed, "train")


def test_a_shard_cut_between_two_photographs(packed: Path):
    path = packed / "train" / "000001.tar"
    with tarfile.open(path) as tar:
        last = tar.getmembers()[-2]  # of two members a photograph
    path.write_bytes(path.read_bytes()[: last.offset] + bytes(1024))
    with pytest.raises(ValueError, match="must hold 8 photographs, got 7"):
        PackedDataset(packed, "train")


def test_a_damaged_photograph_names_its_shard(packed: Path):
    shard = packed / "train" / "000000.tar"
    data = bytearray(shard.read_bytes())
    data[512:640] = bytes(128)  # the first photograph's first bytes
    shard.write_bytes(data)
    with pytest.raises(ValueError, match=r"000000\.tar must hold a whole photo\d+"):
        PackedDataset(packed, "train")[0]


def test_a_shard_holds_nothing_but_png_and_jpeg(packed: Path):
    shard = packed / "train" / "000000.tar"
    dataset = PackedDataset(packed, "train")
    offset, size = dataset._entries[0].members["png"]
    buffer = io.BytesIO()
    Image.new("L", (4, 4)).save(buffer, "GIF")  # whole, as an EPS might be, which Pillow lets Ghostscript run
    data = bytearray(shard.read_bytes())
    data[offset : offset + size] = buffer.getvalue().ljust(size)
    shard.write_bytes(data)
    with pytest.raises(ValueError, match="cannot identify image file"):
        dataset[0]


def test_a_label_that_the_manifest_does_not_have_is_named(tmp_path: Path, photograph):
    photograph(tmp_path / "in" / "a.jpg", size=(32, 32))
    Image.fromarray(np.full((32, 32), 2, np.uint8)).save(tmp_path / "in" / "a_seg.png")
    manifest = prepare(tmp_path / "in", tmp_path / "set", Settings("folder", size=32, classes=3), progress=False)
    (split,) = [name for name, entry in manifest["splits"].items() if entry["count"]]
    rewrite(tmp_path / "set", num_classes=2, labels=["a", "b"])
    with pytest.raises(
        ValueError, match=r"000000\.tar must hold a whole a, got .* a label 2, where the manifest has 2: "
    ):
        PackedDataset(tmp_path / "set", split)[0]


def test_pictures_of_another_size_than_the_manifests_are_named(packed: Path):
    rewrite(packed, size=64)
    with pytest.raises(
        ValueError, match=r"must hold a whole photo\d+, got .*: 32 x 32 pixels, where the manifest has 64 x"
    ):
        PackedDataset(packed, "train")[0]


def test_workers_end_for_their_owner_and_for_nobody_else(packed: Path):
    dataset = PackedDataset(packed, "train")
    data = batches(dataset, InfiniteSampler(len(dataset), 3), 4, workers=1)
    first = next(data)
    (worker,) = multiprocessing.active_children()
    for number in (signal.SIGINT, signal.SIGTERM):  # from a terminal, or a service manager
        subprocess.run(["kill", f"-{number}", str(worker.pid)], check=True)
    assert len(first["key"]) == len(next(data)["key"]) == 4
    assert worker.is_alive()
    worker.terminate()
    worker.join(10)
    assert worker.exitcode == 0
    with pytest.raises(RuntimeError, match="worker"):  # who goes on without it is told
        list(islice(data, 10))


def test_a_signal_of_the_time_in_which_workers_start_is_not_lost():
    with pytest.raises(KeyboardInterrupt):  # noqa: PT012 -- it must come at the end of the inner block
        with signals_held():
            signal.pthread_kill(threading.get_ident(), signal.SIGINT)  # not to a thread of a library
            assert signal.SIGINT in signal.sigpending()
        pytest.fail("the signal never came")


def test_a_missing_shard(packed: Path):
    (packed / "train" / "000001.tar").unlink()
    with pytest.raises(ValueError, match=r"000001.tar must be a shard of 8 photographs"):
        PackedDataset(packed, "train")
