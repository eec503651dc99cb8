from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmif.commands.data import main


def test_prepare_then_show(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (folder / "photo3.jpg").write_text("no image")
    (folder / "notes.txt").write_text("no photograph")
    command = ["prepare", "--layout", "folder", "--from", str(folder), "--out", str(tmp_path / "set")]
    main([*command, "--size", "32", "--seg", "none", "--workers", "1"])
    terms, last = capsys.readouterr().out.splitlines()[-2:]
    assert terms.startswith("terms of use: Photographs of your own")
    assert "packed train" in last
    assert "0 duplicates dropped, 1 corrupt and 1 other files skipped (listed in manifest.json)" in last

    main(
        ["show", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "strip.png"), "--columns", "4", "--rows", "1"]
    )
    assert Image.open(tmp_path / "strip.png").size == (128, 96)


def test_masks_depend_on_the_seed_and_their_number_alone(tmp_path: Path):
    for name, count in (("a", "3"), ("b", "2")):
        main(
            [
                "masks",
                "--ratio",
                "40-60",
                "--count",
                count,
                "--size",
                "64",
                "--seed",
                "7",
                "--out",
                str(tmp_path / name),
            ]
        )
    assert sorted(p.name for p in (tmp_path / "a").iterdir()) == ["00000.png", "00001.png", "00002.png"]
    for path in (tmp_path / "b").iterdir():
        assert path.read_bytes() == (tmp_path / "a" / path.name).read_bytes()
        hole = np.asarray(Image.open(path).convert("L"))
        assert set(np.unique(hole)) == {0, 255}
        assert 0.4 <= (hole == 255).mean() <= 0.6


@pytest.mark.parametrize(
    ("command", "word"),
    [
        ("prepare --layout folder --from missing --out set", "--from must be a folder, got missing"),
        ("show --data missing --out strip.png", "missing must be a folder that `mmif-data prepare` wrote"),
        ("masks --ratio 40 --out masks", "--ratio must be two percentages such as 40-60, got '40'"),
        ("masks --ratio x-60 --out masks", "--ratio must be two percentages"),
        ("masks --ratio 60-40 --out masks", "--ratio must be LO-HI in per cent with LO <= HI <= 100, got 60-40"),
        ("masks --ratio 0.4-0.6 --out masks", "got '0.4-0.6': write 40-60, or 0.4%-0.6% if you mean that"),
        ("masks --ratio 0-1 --out masks", "got '0-1': write 0-100, or 0%-1% if you mean that"),
        ("masks --ratio 40-60 --size 0 --out masks", "a hole needs a size >= 1"),
        ("masks --ratio 40-60 --size 64x --out masks", "--size must be a side or WIDTHxHEIGHT in pixels, such as"),
        ("masks --ratio 40-60 --size 64x32x3 --out masks", "--size must be a side or WIDTHxHEIGHT"),
        ("masks --ratio 40-60 --size 99999x99999 --out masks", "--size: an image may have at most 178 million"),
        ("masks --ratio 40-60 --count 0 --out masks", "--count must be a whole number in 1..1000000, got 0"),
        ("masks --ratio 40-60 --count 1000000000 --out masks", "--count must be a whole number in 1..1000000, got"),
        ("masks --ratio 40-60 --seed -1 --out masks", "--seed must be a whole number >= 0, got -1"),
    ],
)
def test_mistakes_are_one_line(command: str, word: str, capsys: pytest.CaptureFixture[str]):
    with pytest.raises(SystemExit) as stop:
        main(command.split())
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("mmif-data: error: ")
    assert word in error
    assert error.count("\n") == 1


def test_masks_of_any_shape(tmp_path: Path):
    for size, shape in (("64x40", (40, 64)), ("20X30", (30, 20)), ("32", (32, 32))):
        main(["masks", "--ratio=0.5%-1%", f"--size={size}", f"--out={tmp_path / size}"])
        hole = np.asarray(Image.open(tmp_path / size / "00000.png"))
        assert hole.shape == shape
        assert 0.005 <= hole.mean() <= 0.01


def test_show_replaces_nothing_unless_asked(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["prepare", "--layout", "folder", "--from", str(folder), "--out", str(tmp_path / "set")]
    main([*command, "--size", "32", "--seg", "none", "--workers", "1"])
    (tmp_path / "sheet.png").write_text("mine")
    show = ["show", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.png")]
    with pytest.raises(SystemExit):
        main(show)
    words = f"{tmp_path / 'sheet.png'} must not exist yet; choose another --out, or give --overwrite"
    assert words in capsys.readouterr().err
    assert (tmp_path / "sheet.png").read_text() == "mine"
    main([*show, "--overwrite"])
    assert Image.open(tmp_path / "sheet.png").size[1] == 3 * 3 * 32
    with pytest.raises(SystemExit):
        main(["show", "--data", str(tmp_path / "set"), "--out", str(tmp_path / "sheet.xyz")])
    assert "an output must end in one of .png" in capsys.readouterr().err


def test_masks_that_are_there_stay(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "00001.png").write_text("mine")
    with pytest.raises(SystemExit):
        main(["masks", "--ratio", "40-60", "--count", "3", "--out", str(tmp_path)])
    assert "masks must not exist yet" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["00001.png"]
    assert (tmp_path / "00001.png").read_text() == "mine"


@pytest.mark.parametrize("sigma", ["nan", "inf", "0", "1e9"])
def test_impossible_canny_sigmas(sigma: str, folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["prepare", "--layout", "folder", "--from", str(folder), "--out", str(tmp_path / "set"), "--seg", "none"]
    with pytest.raises(SystemExit):
        main([*command, "--canny-sigma", sigma])
    assert "mmif-data: error: --canny-sigma must be " in capsys.readouterr().err
    assert not (tmp_path / "set").exists()


def test_nothing_that_can_be_read(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "photos").mkdir()
    (tmp_path / "photos" / "a.png").write_text("no image")
    command = ["prepare", "--layout", "folder", "--from", str(tmp_path / "photos"), "--out", str(tmp_path / "set")]
    with pytest.raises(SystemExit) as stop:
        main([*command, "--seg", "none", "--workers", "1"])
    assert stop.value.code == 2
    assert "mmif-data: error: --from must hold photographs that can be read; a.png: " in capsys.readouterr().err


def test_sigterm_ends_with_its_own_code(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr("mmif.data.prepare.prepare", lambda *args, **options: os.kill(os.getpid(), signal.SIGTERM))
    before = signal.getsignal(signal.SIGTERM)
    try:
        with pytest.raises(SystemExit) as stop:
            main(["prepare", "--layout", "folder", "--from", str(tmp_path), "--out", str(tmp_path / "set")])
    finally:
        signal.signal(signal.SIGTERM, before)
    assert stop.value.code == 143
    assert capsys.readouterr().err == "mmif-data: interrupted\n"


def test_missing_weights_are_one_line(folder: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    command = ["prepare", "--layout", "folder", "--from", str(folder), "--out", str(tmp_path / "set")]
    with pytest.raises(SystemExit):
        main([*command, "--weights", str(tmp_path / "absent.whl")])
    error = capsys.readouterr().err
    assert error.startswith("mmif-data: error: ")
    assert error.count("\n") == 1


def test_an_output_that_cannot_be_written(tmp_path: Path, capsys: pytest.CaptureFixture[str]):
    (tmp_path / "file").write_text("")
    with pytest.raises(SystemExit) as stop:
        main(["masks", "--ratio", "40-60", "--out", str(tmp_path / "file")])
    assert stop.value.code == 2
    assert "file" in capsys.readouterr().err


@pytest.mark.parametrize("command", ["data", "eval"])
def test_help_needs_neither_numpy_nor_pillow(command: str):
    code = (
        f"import sys, mmif.commands.{command}; sys.exit(any(name in sys.modules for name in ('numpy', 'PIL', 'torch')))"
    )
    subprocess.run([sys.executable, "-c", code], check=True)
