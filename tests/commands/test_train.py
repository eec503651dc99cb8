"""``mmif-train``: how its options are spelled and read."""

from __future__ import annotations

import dataclasses
import json
import os
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmif.commands import train
from mmif.data.prepare import prepare
from mmif.data.settings import Settings
from mmif.files import claim
from mmif.train.config import EncoderTrainConfig, GanConfig


@pytest.fixture
def read(monkeypatch: pytest.MonkeyPatch):
    """Parse a command line: read(words, ...) gives the options that would be trained with, and the architecture."""
    seen = []
    monkeypatch.setattr("mmif.train.gan.train_gan", lambda *args: seen.append(args))
    monkeypatch.setattr("mmif.train.encoder.train_encoder", lambda *args: seen.append(args))

    def call(*words: str):
        train.main([words[0], "--data=d", "--out=o", *words[1:]])
        return seen[-1]

    return call


@pytest.mark.parametrize(("stage", "cls"), [("gan", GanConfig), ("encoder", EncoderTrainConfig)])
def test_defaults_are_those_of_the_dataclass(read, stage: str, cls: type):
    options, model = read(stage)
    assert options == cls(data="d", out="o")
    assert model.resolution == 128


def test_each_field_is_an_option_with_hyphens_and_the_text_below_it(capsys: pytest.CaptureFixture[str]):
    for stage, (options, _) in train.STAGES.items():
        with pytest.raises(SystemExit):
            train.main([stage, "--help"])
        printed = capsys.readouterr().out
        assert "--print-config[=flags]" in printed
        assert "x08" not in printed
        text = " ".join(printed.split())
        for field in dataclasses.fields(options):
            assert f"--{field.name.replace('_', '-')} " in text
    assert "Run folder of `mmif-train encoder`." in text


@pytest.mark.parametrize("word", ["--log-every=7", "--log_every=7"])
def test_underscores_of_old_command_lines_are_understood(read, word: str):
    assert read("gan", word)[0].log_every == 7


@pytest.mark.parametrize(
    ("words", "value"),
    [
        ([], False),
        (["--change-options"], True),
        (["--change_options", "true"], True),
        (["--change-options=false"], False),
        (["--change-options", "--seed=1"], True),
    ],
)
def test_a_switch_needs_no_value(read, words: list[str], value: bool):
    assert read("gan", *words)[0].change_options is value


def test_lists_and_choices(read):
    options, model = read("encoder", "--betas=[0.5,0.9]", "--override", "encoder.levels=2", "latent.tau=0.1")
    assert options.betas == (0.5, 0.9)
    assert options.override == ("encoder.levels=2", "latent.tau=0.1")
    assert (model.encoder.levels, model.latent.tau) == (2, 0.1)
    assert read("encoder", "--gan-loss=nsgan")[0].gan_loss == "nsgan"


def test_a_yaml_file_gives_any_of_them_and_the_command_line_wins(read, tmp_path: Path):
    file = tmp_path / "options.yaml"
    file.write_text("lr: 0.01\nlog_every: 3\nchange_options: true\noverride: ['encoder.levels=2']\nbetas: [0.1, 0.2]\n")
    options, _ = read("encoder", f"--config={file}", "--lr=0.5")
    assert (options.lr, options.log_every, options.change_options) == (0.5, 3, True)
    assert (options.override, options.betas) == (("encoder.levels=2",), (0.1, 0.2))


@pytest.mark.parametrize(
    ("words", "line"),
    [
        (["gan", "--log-every=0"], "--log-every must be a whole number in 1..1000000000, got 0"),
        (["gan", "--max-hours=-1"], "--max-hours must be a number >= 0, got -1.0"),
        (["gan", "--ema-images=0"], "--ema-images must be a number > 0, got 0.0"),
        (["encoder", "--p-no-guidance=1.5"], "--p-no-guidance must be a number in 0..1, got 1.5"),
        (["encoder", "--betas=[0.5,2]"], "--betas must be a list of 2 values, each a number in 0..1, got (0.5, 2.0)"),
        (["encoder", "--override=encoder.levels"], "an override must read section.key=value with a known key, got"),
    ],
)
def test_values_out_of_bounds_are_one_line(read, capsys, words: list[str], line: str):
    with pytest.raises(SystemExit) as stop:
        read(*words)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith(f"mmif-train: error: {line}")
    assert error.count("\n") == 1


@pytest.mark.parametrize("words", [["gan", "--nonsense=1"], ["gan", "--steps=x"], ["other"], []])
def test_what_cannot_be_parsed_is_one_line(read, capsys, words: list[str]):
    with pytest.raises(SystemExit) as stop:
        train.main([*words[:1], "--data=d", "--out=o", *words[1:]] if words else [])
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("mmif-train: error: ")
    assert error.count("\n") == 1


@pytest.fixture
def packed(tmp_path: Path) -> Path:
    (tmp_path / "in").mkdir()
    rng = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(rng.integers(0, 256, (32, 32, 3), np.uint8)).save(tmp_path / "in" / f"{i}.png")
    prepare(tmp_path / "in", tmp_path / "set", Settings("folder", size=32, seg="none"), progress=False)
    return tmp_path / "set"


@pytest.fixture
def started(packed: Path, tmp_path: Path):
    """A training with workers, in a process group of its own, that has made its first step."""
    words = ["gan", f"--data={packed}", "--out=run", "--preset=tiny-32", "--batch=4", "--workers=2", "--log-every=1"]
    code = f"from mmif.commands.train import main\nif __name__ == '__main__': main({words!r})"
    (tmp_path / "run.py").write_text(code)
    log = tmp_path / "run" / "trainer" / "log.jsonl"
    with subprocess.Popen([sys.executable, "run.py"], stderr=subprocess.DEVNULL, start_new_session=True) as process:
        try:
            end = time.monotonic() + 60
            while not (log.exists() and log.stat().st_size) and process.poll() is None and time.monotonic() < end:
                time.sleep(0.05)
            assert json.loads(log.read_text().splitlines()[0])["step"] == 1
            yield process
        finally:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)


def test_the_folder_of_a_killed_run_with_workers_is_free_at_once(started: subprocess.Popen, tmp_path: Path):
    """Workers end by themselves, but perhaps later; they must not hold the folder until then."""
    started.kill()
    started.wait()
    with open(tmp_path / "run" / "trainer" / "log.jsonl", "ab") as file:
        claim(tmp_path / "run", file)


def test_a_signal_to_a_run_and_its_workers_lets_it_save(started: subprocess.Popen, tmp_path: Path):
    """As a service manager or a batch system sends it, to all processes at once."""
    os.killpg(started.pid, signal.SIGTERM)
    assert started.wait(60) == 143
    assert torch.load(tmp_path / "run" / "trainer" / "state.pt", weights_only=True)["step"] >= 1
