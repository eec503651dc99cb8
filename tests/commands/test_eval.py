import itertools
import json
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from mmif import checkpoint
from mmif.commands import eval
from mmif.config import from_preset
from mmif.data.prepare import prepare
from mmif.data.shard import Settings
from mmif.evaluation import metrics, prepared, protocol
from mmif.evaluation.peers import BASELINES
from mmif.evaluation.prepared import PreparedEvaluation
from mmif.evaluation.protocol import Batch
from mmif.evaluation.request import DISTANCES, PreparedOptions
from mmif.model import MMInvertFill

SIDE, PHOTOGRAPHS = 32, 6


def photograph(rng: np.random.Generator, side: int = SIDE) -> np.ndarray:
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return np.array(small.resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture(scope="module")
def packed(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A prepared set whose test split holds six photographs with label maps."""
    root, rng = tmp_path_factory.mktemp("set"), np.random.default_rng(0)
    for folder, count in (("train", 1), ("test", PHOTOGRAPHS)):
        for name in (folder, f"{folder}annot"):
            (root / "source" / name).mkdir(parents=True)
        for i in range(count):
            Image.fromarray(photograph(rng)).save(root / "source" / folder / f"{i}.png")
            labels = rng.integers(0, 4, (SIDE, SIDE), dtype=np.uint8)
            labels[0] = 11  # void
            Image.fromarray(labels).save(root / "source" / f"{folder}annot" / f"{i}.png")
    prepare(root / "source", root / "packed", Settings("camvid", SIDE), workers=1)
    return root / "packed"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint folder of the smallest preset, untrained."""
    torch.manual_seed(0)
    config = from_preset("tiny-32")
    folder, model = tmp_path_factory.mktemp("weights"), MMInvertFill(config)
    for name, parameter in model.named_parameters():
        if "noise" in name:  # the strengths, zero before training
            torch.nn.init.constant_(parameter, 0.3)
    checkpoint.save(model, folder, config=config, extra={"labels": ["a", "b", "c", "d"]})
    return folder


@pytest.fixture
def run(packed: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Callable[..., tuple[dict, str]]:
    """Run the command on the packed set and return what it wrote: the JSON and the standard output."""

    def command(*options: object) -> tuple[dict, str]:
        base = ["--data", packed, "--distance", "none", "--json", tmp_path / "out.json", "--device", "cpu"]
        eval.main([str(option) for option in (*base, *options)])
        return json.loads((tmp_path / "out.json").read_text()), capsys.readouterr().out

    return command


def scores(result: dict, method: str, ratio: str = "40-60", metric: str = "psnr") -> list[float]:
    (row,) = [row for row in result["results"] if (row["method"], row["ratio"]) == (method, ratio)]
    return row["per_photograph"][metric]


def fails(capsys: pytest.CaptureFixture[str], *options: object) -> str:
    """Run a command that must fail with one line and exit code 2; return the line."""
    with pytest.raises(SystemExit) as stop:
        eval.main([str(option) for option in options])
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("mmif-eval: error: ")
    assert error.count("\n") == 1
    return error


def test_it_compares_a_model_with_every_baseline(run, weights: Path, packed: Path, tmp_path: Path):
    result, out = run("--model", weights, "--n", 4, "--strip", tmp_path / "strip.png", "--strip-rows", 2)
    assert len(result["results"]) == 3 * 4
    assert all(row["metrics"]["psnr"]["n"] == 4 for row in result["results"])
    assert {row["against"] for row in result["wins"]} == {"telea", "ns", "patchmatch"}
    assert result["model"]["sha256"] == checkpoint.sha256(weights / "model.safetensors")
    assert result["data"]["manifest_sha256"] == checkpoint.sha256(packed / "manifest.json")
    assert result["data"]["positions"] == protocol.choose(PHOTOGRAPHS, 4, 0)
    assert result["versions"]["torch"] == torch.__version__
    assert result["cpu"] is not None
    assert result["guidance"] == "none (the test condition)"
    assert "guidance none (the test condition)" in out
    assert out.count("| model | 4 |") == 3
    assert "Share of photographs on which the model is better" in out
    for bucket, ratio in result["holes"]["mean_ratio"].items():
        low, high = map(int, bucket.split("-"))
        assert low / 100 <= ratio <= high / 100
    columns, rows = 6, 3 * 2
    with Image.open(tmp_path / "strip.png") as sheet:
        assert sheet.size == (52 + columns * (SIDE + 4) - 4, 16 + rows * (SIDE + 4) - 4)


def test_the_table_is_the_mean_and_standard_error_of_the_photographs(run):
    result, out = run("--n", 5, "--baselines", "telea", "--ratios", "40-60")
    expected = metrics.estimate(scores(result, "telea"))
    measured = result["results"][0]["metrics"]["psnr"]
    assert measured["mean"] == pytest.approx(expected.mean, abs=1e-4)
    assert measured["stderr"] == pytest.approx(expected.stderr, abs=1e-4)
    assert f"| 40-60 | telea | 5 | {expected.mean:.2f} +- {expected.stderr:.2f} |" in out
    assert result["wins"] == []


def test_results_do_not_depend_on_n_buckets_or_batch(run, weights: Path):
    options = ("--model", weights, "--baselines", "telea")
    one, _ = run(*options, "--n", 6, "--batch", 6, "--ratios", "10-30,40-60")
    two, _ = run(*options, "--n", 4, "--batch", 3, "--ratios", "40-60")
    assert scores(two, "telea") == scores(one, "telea")[:4]
    assert scores(two, "model") == pytest.approx(scores(one, "model")[:4], abs=0.05)  # one level of rounding at most
    assert two["holes"]["sha256"] != one["holes"]["sha256"]


def test_the_seed_draws_other_holes_and_the_same_seed_the_same(run):
    options = ("--baselines", "telea", "--ratios", "40-60", "--n", 6)
    first, again, other = (run(*options, "--seed", seed)[0]["holes"]["sha256"] for seed in (1, 1, 2))
    assert first == again != other


def test_guidance_by_the_oracle_is_named_and_changes_the_model_alone(run, weights: Path):
    options = ("--model", weights, "--baselines", "telea", "--ratios", "40-60", "--n", 3)
    plain, _ = run(*options)
    guided, out = run(*options, "--guidance", "oracle")
    assert "guidance ORACLE" in out
    assert guided["guidance"].startswith("ORACLE")
    assert scores(guided, "telea") == scores(plain, "telea")
    assert "| 40-60 | model (oracle) | 3 |" in out
    assert scores(guided, "model (oracle)") != scores(plain, "model")
    assert guided["holes"] == plain["holes"]


def test_the_seam_and_the_noise_are_those_that_were_asked_for(packed: Path, weights: Path):
    def fill(**options: Any) -> np.ndarray:
        asked = PreparedOptions(str(packed), str(weights), n=1, **options)
        return PreparedEvaluation(asked, torch.device("cpu")).methods["model"](batch)

    hole = np.zeros((1, SIDE, SIDE), bool)
    hole[:, 8:24, 8:24] = True
    rgb = photograph(np.random.default_rng(1))[None]
    batch = Batch(["a"], [0], rgb, hole, np.full_like(rgb[..., 0], 255), np.zeros_like(hole))
    assert np.array_equal(fill(), fill(seam="match", seed=0))
    assert not np.array_equal(fill(), fill(seam="none"))
    assert not np.array_equal(fill(), fill(seed=1))


def test_time_is_that_of_one_photograph(run, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(prepared, "time", SimpleNamespace(perf_counter=itertools.count(0, 6).__next__))
    result, _ = run("--baselines", "telea,ns", "--ratios", "40-60", "--n", 6, "--batch", 3)
    assert [row["seconds_per_image"] for row in result["results"]] == [2, 2]


def test_more_photographs_than_there_are_means_all_and_says_so(run):
    result, out = run("--n", 99, "--baselines", "telea", "--ratios", "40-60")
    assert "6 photographs of" in out
    assert "(--n asks for 99, there are no more)" in out
    assert result["data"]["n"] == PHOTOGRAPHS


def test_help_names_the_choices_and_loads_no_torch():
    code = (
        "import sys; from mmif.commands import eval\n"
        "try: eval.main(['--help'])\n"
        "finally: assert 'torch' not in sys.modules"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    for choice in (*BASELINES, *DISTANCES, "oracle", "--invert-mask"):
        assert choice in done.stdout


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratios", "30-10"], "--ratios must be different ranges"),
        (["--ratios", "10-30,10-30"], "--ratios must be different ranges"),
        (["--ratios", "a lot"], "--ratios must be different ranges"),
        (["--ratios", "50-100"], "hi < 100"),
        (["--n", 0], "--n must be a whole number in 1..1000000000, got 0"),
        (["--batch", 0], "--batch must be a whole number in 1..65536, got 0"),
        (["--strip-rows", 0], "--strip-rows must be a whole number in 1.."),
        (["--baselines", "lama"], "--baselines must be none or different names out of telea, ns, patchmatch"),
        (["--baselines", "none"], "--baselines must name one"),
        (["--guidance", "oracle"], "--guidance must be none"),
        (["--distance", "lpips"], "--distance must be none or different names"),
        (["--distance-weights", "absent.whl", "--distance", "stlpips-alex"], "there is no file absent.whl"),
        (["--split", "dev"], "the split must be one of"),
        (["--device", "abacus"], "the device must be auto, cpu, cuda or cuda:N, got 'abacus'"),
        (["--device", "meta"], "the device must be auto, cpu, cuda or cuda:N, got 'meta'"),
        (["--seed", -1], "--seed must be a whole number in 0.."),
        (["--strip", "strip.xyz"], "--strip must be named as a picture"),
        (["--json", "absent/out.json"], "must be a file in a folder that exists"),
        (["--strip", "."], "must be a file in a folder that exists"),
        (["--model", "nobody"], "no weights called 'nobody'"),
        (["--masks", "holes"], "give --reference, --candidate and --masks together"),
    ],
)
def test_a_wrong_option_is_one_line(packed: Path, capsys, options: list[object], message: str):
    assert message in fails(capsys, "--data", packed, "--distance", "none", *options)


def test_missing_data_is_one_line(tmp_path: Path, capsys):
    assert "must be a folder that `mmif-data prepare` wrote" in fails(
        capsys, "--data", tmp_path / "absent", "--distance", "none"
    )
    assert "say what to evaluate" in fails(capsys, "--distance", "none")


def test_an_empty_split_is_one_line(packed: Path, tmp_path: Path, capsys):
    shutil.copytree(packed, tmp_path / "small")
    manifest = json.loads((packed / "manifest.json").read_text())
    manifest["splits"]["val"] = {"count": 0, "shards": []}
    (tmp_path / "small" / "manifest.json").write_text(json.dumps(manifest))
    error = fails(capsys, "--data", tmp_path / "small", "--split", "val", "--distance", "none")
    assert "holds no photographs; choose another --split" in error


def test_a_model_of_another_size_is_refused(packed: Path, weights: Path, tmp_path: Path, capsys):
    manifest = json.loads((packed / "manifest.json").read_text()) | {"size": 64}
    shutil.copytree(packed, tmp_path / "larger")
    (tmp_path / "larger" / "manifest.json").write_text(json.dumps(manifest))
    error = fails(capsys, "--data", tmp_path / "larger", "--distance", "none", "--model", weights)
    assert "fills squares of 32 pixels" in error
    assert "--size 32" in error
