"""Weights on disk: round trip, half precision, and every way in which they can be wrong."""

import json

import pytest
import torch

from mmif import checkpoint
from mmif.config import from_preset
from mmif.model import MMInvertFill

CONFIG = from_preset("tiny-32")


@pytest.fixture
def folder(tmp_path):
    torch.manual_seed(0)
    checkpoint.save(MMInvertFill(CONFIG), tmp_path / "w", config=CONFIG, extra={"stage": "encoder"})
    return tmp_path / "w"


def test_round_trip(folder):
    model, info = checkpoint.load(folder)
    torch.manual_seed(0)
    expected = MMInvertFill(CONFIG).state_dict()
    assert all(torch.equal(v, expected[k]) for k, v in model.state_dict().items())
    assert info["stage"] == "encoder"
    assert info["sha256"] == checkpoint.sha256(folder / "model.safetensors")
    assert not model.training


def test_half_precision_on_disk_comes_back_as_float32(tmp_path):
    model = MMInvertFill(CONFIG)
    checkpoint.save(model, tmp_path, config=CONFIG, extra={}, dtype=torch.float16)
    loaded, _ = checkpoint.load(tmp_path)
    assert {v.dtype for v in loaded.state_dict().values() if v.is_floating_point()} == {torch.float32}
    weight = model.generator.synthesis.const
    assert torch.equal(loaded.generator.synthesis.const, weight.half().float())


def test_no_temporary_files_stay(folder):
    assert sorted(f.name for f in folder.iterdir()) == ["config.json", "model.safetensors"]


def test_unknown_name_lists_what_is_bundled():
    with pytest.raises(ValueError, match="no weights called 'nonsense'"):
        checkpoint.load("nonsense")


def test_missing_file(folder):
    (folder / "config.json").unlink()
    with pytest.raises(ValueError, match=r"must hold config\.json"):
        checkpoint.load(folder)


def test_truncated_weights(folder):
    file = folder / "model.safetensors"
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ValueError, match="must be a safetensors file"):
        checkpoint.load(folder)


def test_pickles_are_not_read(folder):
    torch.save({"x": torch.zeros(1)}, folder / "model.safetensors")
    with pytest.raises(ValueError, match="must be a safetensors file"):
        checkpoint.load(folder)


def edit(folder, change):
    file = folder / "config.json"
    data = json.loads(file.read_text())
    change(data)
    file.write_text(json.dumps(data))


def test_mismatched_weights_say_how_many_tensors(folder):
    edit(folder, lambda d: d["model"]["encoder"].update(levels=1))
    with pytest.raises(ValueError, match=r"0 tensors are missing, \d+ unknown and 0 of another shape"):
        checkpoint.load(folder)


def test_another_format_is_refused(folder):
    edit(folder, lambda d: d.update(format=2))
    with pytest.raises(ValueError, match="format 1"):
        checkpoint.load(folder)


def test_unknown_configuration_keys_are_refused(folder):
    edit(folder, lambda d: d["model"]["encoder"].update(magic=1))
    with pytest.raises(ValueError, match="magic"):
        checkpoint.load(folder)


@pytest.mark.parametrize(
    ("section", "change"), [("latent", {"layer_split": [3, 70]}), ("generator", {"channel_base": 16})]
)
def test_a_configuration_that_cannot_be_built_is_refused(folder, section, change):
    edit(folder, lambda d: d["model"][section].update(change))
    with pytest.raises(ValueError, match=next(iter(change))):
        checkpoint.read(folder)


@pytest.mark.parametrize("text", ["{", "null", '"x"', "[]", '{"format": 1}', '{"format": 1, "model": null}'])
def test_broken_json_is_one_line(folder, text):
    (folder / "config.json").write_text(text)
    with pytest.raises(ValueError, match="cannot be read"):
        checkpoint.load(folder)


def test_a_generator_alone_is_no_whole_model(tmp_path):
    model = MMInvertFill(CONFIG)
    checkpoint.save(model.generator, tmp_path, config=CONFIG, extra={"stage": "gan"}, prefix="generator")
    with pytest.raises(ValueError, match="are missing"):
        checkpoint.load(tmp_path)


def test_hub_ids_need_the_hub_package_or_say_why(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "huggingface_hub", None)
    with pytest.raises(ValueError, match="pip install huggingface-hub"):
        checkpoint.load("owner/name")
