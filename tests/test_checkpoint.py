"""Weights on disk: round trip, half precision, one rename for weights and configuration, and every way to be wrong."""

from __future__ import annotations

import json
import logging
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import load_file, save_file
from torch import nn

from mmif import checkpoint
from mmif.config import from_preset
from mmif.files import sha256
from mmif.model import MMInvertFill

CONFIG = from_preset("tiny-32")


@pytest.fixture(scope="module")
def model() -> MMInvertFill:
    torch.manual_seed(0)
    return MMInvertFill(CONFIG)


@pytest.fixture
def folder(model, tmp_path: Path) -> Path:
    checkpoint.save(model, tmp_path / "w", config=CONFIG, extra={"stage": "encoder", "step": 3})
    return tmp_path / "w"


@pytest.fixture
def old(folder: Path) -> Path:
    """A checkpoint of before: the configuration is in config.json alone."""
    metadata = {"format": "1", "stage": "encoder", "project": "mminvertfill"}
    save_file(load_file(folder / "model.safetensors"), folder / "model.safetensors", metadata)
    return folder


def header(folder: Path) -> dict:
    with safe_open(folder / "model.safetensors", "pt") as file:
        return file.metadata()


def test_round_trip(model, folder: Path):
    loaded, info = checkpoint.load(folder)
    expected = model.state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in loaded.state_dict().items())
    assert info == {
        "stage": "encoder",
        "step": 3,
        "name": "w",
        "folder": str(folder),
        "sha256": sha256(folder / "model.safetensors"),
    }
    assert loaded.config == CONFIG
    assert not loaded.training


def test_half_precision_on_disk_comes_back_as_float32(model, tmp_path: Path):
    file = checkpoint.save(model, tmp_path, config=CONFIG, extra={}, dtype=torch.float16)
    assert file == tmp_path / "model.safetensors"
    stored = load_file(file)
    assert {v.dtype for v in stored.values()} == {torch.float16, torch.int64}
    loaded, _ = checkpoint.load(tmp_path)
    assert {v.dtype for v in loaded.state_dict().values() if v.is_floating_point()} == {torch.float32}
    weight = model.generator.synthesis.const
    assert torch.equal(loaded.generator.synthesis.const, weight.half().float())


def test_the_header_holds_the_configuration_and_config_json_repeats_it(folder: Path):
    told = json.loads((folder / "config.json").read_text())
    assert told == {"format": 1, "stage": "encoder", "step": 3, "model": json.loads(CONFIG.to_json())}
    assert json.loads(header(folder)["mmif"]) == told
    assert sorted(f.name for f in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_the_weights_alone_are_a_checkpoint(folder: Path, caplog: pytest.LogCaptureFixture):
    (folder / "config.json").unlink()
    assert checkpoint.load(folder)[0].config == CONFIG
    assert not caplog.records


@pytest.mark.parametrize("content", ['{"format": 1}', "{", "[1]"])
def test_a_config_json_that_disagrees_is_said_and_the_weights_decide(folder: Path, caplog, content: str):
    (folder / "config.json").write_text(content)
    with caplog.at_level(logging.WARNING):
        assert checkpoint.load(folder)[0].config == CONFIG
    words = f"{folder / 'config.json'} says otherwise than model.safetensors, which holds its own configuration"
    assert [record.getMessage().startswith(words) for record in caplog.records] == [True]


def test_a_checkpoint_of_before_loads(model, old: Path, caplog):
    loaded, info = checkpoint.load(old)
    assert all(torch.equal(v, model.state_dict()[k]) for k, v in loaded.state_dict().items())
    assert (info["stage"], info["step"], loaded.config) == ("encoder", 3, CONFIG)
    assert not caplog.records


def test_the_bundled_weights_load():
    loaded, info = checkpoint.load("scenes-128")
    assert (info["name"], info["stage"], info["step"]) == ("scenes-128", "encoder", 20500)
    assert loaded.config == from_preset("scenes-128")


def test_bytes_are_the_same_in_every_process(tmp_path: Path):
    code = """if True:
        import torch
        from mmif import checkpoint
        from mmif.config import from_preset
        layer = torch.nn.Linear(3, 2)
        torch.nn.init.ones_(layer.weight), torch.nn.init.zeros_(layer.bias)
        extra = {name: name for name in ("stage", "step", "hours", "labels", "data")}
        checkpoint.save(layer, "FOLDER", config=from_preset("tiny-32"), extra=extra)
    """
    exec(code.replace("FOLDER", "here"))
    subprocess.run([sys.executable, "-c", code.replace("FOLDER", "there")], check=True)
    here, there = (Path(name, "model.safetensors").read_bytes() for name in ("here", "there"))
    assert here == there
    assert len(header(Path("here"))) == 1  # of several entries the order would be another each time


def test_a_part_is_stored_below_its_name(tmp_path: Path):
    layer = nn.Linear(2, 1)
    checkpoint.save(layer, tmp_path, config=CONFIG, extra={"stage": "x"}, prefix="generator")
    config, info, state = checkpoint.read(tmp_path)
    assert (config, info) == (CONFIG, {"stage": "x"})
    assert sorted(state) == ["generator.bias", "generator.weight"]
    assert sorted(checkpoint.part(state, "generator")) == ["bias", "weight"]
    assert checkpoint.part({"generator_2.x": torch.zeros(1)}, "generator") == {}
    other = nn.Linear(2, 1)
    checkpoint.load_into(other, checkpoint.part(state, "generator"), tmp_path)
    assert torch.equal(other.weight, layer.weight)


def test_a_write_that_fails_leaves_the_checkpoint_as_it_was(model, folder: Path, monkeypatch: pytest.MonkeyPatch):
    before = {file.name: file.read_bytes() for file in folder.iterdir()}

    def no_space(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", no_space)
    with pytest.raises(OSError, match=r"model\.safetensors could not be written: No space left on device; make room"):
        checkpoint.save(model, folder, config=CONFIG, extra={"stage": "other"})
    assert {file.name: file.read_bytes() for file in folder.iterdir()} == before


def test_a_kill_between_the_two_files_leaves_a_checkpoint_that_loads(model, folder: Path, monkeypatch):
    def killed(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "write_json", killed)
    with pytest.raises(KeyboardInterrupt):
        checkpoint.save(model, folder, config=CONFIG, extra={"stage": "other"})
    assert checkpoint.load(folder)[1]["stage"] == "other"


def test_unknown_name_lists_what_is_bundled():
    with pytest.raises(ValueError) as refused:  # noqa: PT011 -- the whole line is compared
        checkpoint.load("nonsense")
    assert str(refused.value) == (
        "no weights called 'nonsense': give a checkpoint folder, a hub id owner/name, or a bundled name (scenes-128)"
    )


def test_a_bundled_name_is_not_shadowed_by_a_folder_in_the_working_folder(folder: Path, tmp_path: Path):
    shutil.copytree(folder, tmp_path / "scenes-128")
    assert checkpoint.resolve("scenes-128") == checkpoint.bundled()["scenes-128"]
    for name in ("./scenes-128", Path("scenes-128"), str(tmp_path / "scenes-128")):
        assert checkpoint.resolve(name).resolve() == tmp_path / "scenes-128"


def test_names_that_are_no_hub_ids(tmp_path: Path):
    for name in ("./a/b", "/a/b", "~/b", "a/b/c", "a"):
        with pytest.raises(ValueError, match=f"no weights called '{name}'"):
            checkpoint.resolve(name)


def test_a_folder_without_weights(folder: Path):
    (folder / "model.safetensors").unlink()
    with pytest.raises(ValueError, match=f"^a checkpoint folder must hold model.safetensors; {folder} does not$"):
        checkpoint.load(folder)


def test_truncated_weights(folder: Path):
    file = folder / "model.safetensors"
    data = file.read_bytes()
    for size in (0, 4, 100, len(data) - 100):
        file.write_bytes(data[:size])
        with pytest.raises(ValueError, match="must be a safetensors file, and cannot be read"):
            checkpoint.load(folder)


def test_pickles_are_not_read(folder: Path):
    torch.save({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="must be a safetensors file"):
        checkpoint.load(folder)


def edit(folder: Path, change) -> None:
    """Change the configuration of the weights' header, or of config.json in a checkpoint of before."""
    file = folder / "config.json"
    metadata = header(folder)
    data = json.loads(metadata["mmif"]) if "mmif" in metadata else json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))
    if "mmif" in metadata:
        weights = folder / "model.safetensors"
        save_file(load_file(weights), weights, {"mmif": json.dumps(data)})


@pytest.fixture(params=["folder", "old"])
def either(request) -> Path:
    """A checkpoint of today, and one of before."""
    return request.getfixturevalue(request.param)


def test_mismatched_weights_say_how_many_tensors(either: Path):
    edit(either, lambda d: d["model"]["encoder"].update(levels=1))
    with pytest.raises(
        ValueError, match=r": 0 tensors are missing, 13 unknown, 0 of another shape and 0 of another ty"
    ):
        checkpoint.load(either)
    edit(either, lambda d: d["model"]["encoder"].update(levels=3))
    with pytest.raises(ValueError, match=r": 13 tensors are missing, 0 unknown, .*\(first: encoder\."):
        checkpoint.load(either)


def test_another_format_is_refused(either: Path):
    edit(either, lambda d: d.update(format=2))
    with pytest.raises(ValueError, match="format 1"):
        checkpoint.load(either)


def test_unknown_configuration_keys_are_refused(either: Path):
    edit(either, lambda d: d["model"]["encoder"].update(magic=1))
    with pytest.raises(ValueError, match="magic"):
        checkpoint.load(either)


@pytest.mark.parametrize(
    ("section", "change"),
    [
        ("latent", {"layer_split": [3, 70]}),
        ("generator", {"channel_base": 16}),
        ("encoder", {"levels": 10**9}),
        ("latent", {"z_dim": 10**19}),
        ("encoder", {"dilations": [1] * 10**5}),
        ("generator", {"conv_clamp": "256"}),
    ],
)
def test_a_configuration_that_cannot_be_built_is_refused(either: Path, section: str, change: dict):
    edit(either, lambda d: d["model"][section].update(change))
    with pytest.raises(
        ValueError, match=f"must hold a model configuration, and cannot be read: .*{next(iter(change))}"
    ):
        checkpoint.read(either)


def test_a_model_larger_than_its_weights_is_refused_before_it_is_built(folder: Path):
    edit(folder, lambda d: d["model"]["latent"].update(mapping_layers=64, w_dim=8192, z_dim=8192))  # 17 GB
    with pytest.raises(ValueError, match=r"must fit its configuration, which asks for more than its \d+ numbers"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    "text",
    ["{", "null", '"x"', "[]", '{"format": 1}', '{"format": 1, "model": null}', '{"a":' * 100_000, "[" * 100_000],
)
def test_broken_json_is_one_line(old: Path, text: str):
    words = "must hold a model configuration, and cannot be read"
    (old / "config.json").write_text(text)
    with pytest.raises(ValueError, match=rf"config\.json {words}"):
        checkpoint.load(old)
    weights = old / "model.safetensors"
    save_file(load_file(weights), weights, {"mmif": text})
    with pytest.raises(ValueError, match=rf"model\.safetensors {words}"):
        checkpoint.load(old)


def test_a_checkpoint_of_before_needs_its_config_json(old: Path):
    (old / "config.json").unlink()
    with pytest.raises(ValueError, match=r"config\.json must hold a model configuration, .*: No such file"):
        checkpoint.load(old)


@pytest.mark.parametrize(("dtype", "name"), [(torch.int32, "I32"), (torch.int8, "I8"), (torch.bool, "BOOL")])
def test_tensors_of_another_type_are_refused_by_name(folder: Path, dtype: torch.dtype, name: str):
    weights = folder / "model.safetensors"
    state = load_file(weights)
    const = "generator.synthesis.const"
    save_file(state | {const: torch.zeros(state[const].shape, dtype=dtype)}, weights, header(folder))
    with pytest.raises(ValueError, match=rf"1 of another type \(first: {const}\)"):
        checkpoint.load(folder)
    with pytest.raises(
        ValueError, match=f"must hold tensors of the types F64, F32, F16, BF16, I64; {const} is {name}$"
    ):
        checkpoint.read(folder)


@pytest.mark.parametrize(("own", "stored"), [(torch.float32, torch.int64), (torch.int64, torch.float32)])
def test_whole_numbers_do_not_take_the_place_of_fractions(own: torch.dtype, stored: torch.dtype):
    module = nn.Module()
    module.register_buffer("x", torch.zeros(2, dtype=own))
    with pytest.raises(
        ValueError, match=r"^here must fit its .* 0 of another shape and 1 of another type \(first: x\)"
    ):
        checkpoint.load_into(module, {"x": torch.ones(2, dtype=stored)}, Path("here"))
    assert not module.x.any()


@pytest.mark.parametrize("stored", [torch.float64, torch.float16, torch.bfloat16])
def test_fractions_may_be_stored_in_another_precision(stored: torch.dtype):
    module = nn.Linear(1, 1, bias=False)
    checkpoint.load_into(module, {"weight": torch.full((1, 1), 0.5, dtype=stored)}, Path("here"))
    assert module.weight.item() == 0.5


def test_a_tensor_of_another_shape_is_named():
    module = nn.Linear(2, 1)
    with pytest.raises(ValueError, match=r"0 unknown, 1 of another shape and 0 of another type \(first: weight\)"):
        checkpoint.load_into(module, {"weight": torch.zeros(2, 1), "bias": torch.zeros(1)}, Path("here"))


def test_a_generator_alone_says_what_it_is(model, tmp_path: Path):
    checkpoint.save(model.generator, tmp_path, config=CONFIG, extra={"stage": "gan"}, prefix="generator")
    with pytest.raises(
        ValueError, match=f"^{tmp_path} must hold a whole model, and holds a generator of `mmif-train gan`"
    ):
        checkpoint.load(tmp_path)


def test_hub_ids_need_the_hub_package_or_say_why(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(
        ValueError, match=r'^\'owner/name\' is not a folder here; .*: pip install "mminvertfill\[hub\]"$'
    ):
        checkpoint.load("owner/name")


def test_hub_ids_are_fetched_without_what_is_not_needed(folder: Path, monkeypatch: pytest.MonkeyPatch):
    asked = []

    class Hub:
        @staticmethod
        def snapshot_download(name: str, allow_patterns: list[str]) -> str:
            asked.append((name, allow_patterns))
            if name == "owner/missing":
                raise RuntimeError("404")
            return str(folder)

    monkeypatch.setitem(sys.modules, "huggingface_hub", Hub)
    assert checkpoint.load("owner/name")[1]["step"] == 3
    assert asked == [("owner/name", ["model.safetensors", "config.json", "README.md"])]
    with pytest.raises(
        ValueError, match="'owner/missing' is not a folder here and could not be fetched from the hub: 404"
    ):
        checkpoint.load("owner/missing")
