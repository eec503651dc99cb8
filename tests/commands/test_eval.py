import json
import shutil
import warnings
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from mmif import checkpoint
from mmif.commands import eval
from mmif.config import from_preset
from mmif.data.prepare import prepare
from mmif.data.shard import Settings
from mmif.evaluation import metrics, protocol, tables
from mmif.evaluation.protocol import Batch, Bucket
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
    folder = tmp_path_factory.mktemp("weights")
    checkpoint.save(MMInvertFill(config), folder, config=config, extra={"labels": ["a", "b", "c", "d"]})
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


def test_more_photographs_than_there_are_means_all_and_says_so(run, packed: Path, tmp_path: Path, capsys):
    eval.main([
        "--data", str(packed), "--distance", "none", "--n", "99", "--baselines", "telea", "--ratios", "40-60",
        "--json", str(tmp_path / "out.json"),
    ])  # fmt: skip
    assert "--n is 99, the split test holds 6 photographs: using all" in capsys.readouterr().err
    assert json.loads((tmp_path / "out.json").read_text())["data"]["n"] == PHOTOGRAPHS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--ratios", "30-10"], "--ratios must be different ranges"),
        (["--ratios", "10-30,10-30"], "--ratios must be different ranges"),
        (["--ratios", "a lot"], "--ratios must be different ranges"),
        (["--ratios", "50-100"], "hi < 100"),
        (["--n", 0], "--n must be >= 1, got 0"),
        (["--batch", 0], "--batch must be >= 1"),
        (["--strip-rows", 0], "--strip-rows must be >= 1"),
        (["--baselines", "lama"], "--baselines must be none or different names out of telea, ns, patchmatch"),
        (["--baselines", "none"], "--baselines must name one"),
        (["--guidance", "oracle"], "--guidance must be none"),
        (["--distance", "lpips"], "--distance must be none or different names"),
        (["--distance-weights", "absent.whl", "--distance", "stlpips-alex"], "there is no file absent.whl"),
        (["--split", "dev"], "the split must be one of"),
        (["--device", "abacus"], "the device must be auto, cpu, cuda or cuda:N, got 'abacus'"),
        (["--device", "meta"], "the device must be auto, cpu, cuda or cuda:N, got 'meta'"),
        (["--seed", -1], "--seed must be >= 0, got -1"),
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


def test_a_model_of_another_size_is_refused(packed: Path, weights: Path, tmp_path: Path, capsys):
    manifest = json.loads((packed / "manifest.json").read_text()) | {"size": 64}
    shutil.copytree(packed, tmp_path / "larger")
    (tmp_path / "larger" / "manifest.json").write_text(json.dumps(manifest))
    error = fails(capsys, "--data", tmp_path / "larger", "--distance", "none", "--model", weights)
    assert "fills squares of 32 pixels" in error
    assert "--size 32" in error


def batch(side: int = SIDE, labels: int = 4) -> Batch:
    rng = np.random.default_rng(3)
    hole = np.zeros((2, side, side), bool)
    hole[:, 8:24, 8:24] = True
    seg = rng.integers(0, labels, (2, side, side), dtype=np.uint8)
    seg[:, 0] = 255
    rgb = np.stack([photograph(rng, side) for _ in range(2)])
    return Batch(["a", "b"], [0, 1], rgb, hole, seg, rng.random((2, side, side)) < 0.1)


def test_the_model_changes_the_hole_alone_and_its_noise_is_keyed_by_the_photograph(weights: Path):
    model, _ = checkpoint.load(weights)
    method = protocol.model_method(model, torch.device("cpu"), seed=5, with_oracle=False, seam="none")
    both = batch()
    filled = method(both)
    assert filled.dtype == np.uint8
    assert np.array_equal(filled[~both.hole], both.rgb[~both.hole])
    assert not np.array_equal(filled[both.hole], both.rgb[both.hole])
    second = Batch(*(part[1:] for part in both))
    assert np.abs(method(second)[0].astype(int) - filled[1]).max() <= 1


def test_a_model_that_returns_nan_is_an_error(weights: Path):
    model, _ = checkpoint.load(weights)
    torch.nn.init.constant_(list(model.generator.parameters())[-1], float("nan"))
    method = protocol.model_method(model, torch.device("cpu"), seed=0, with_oracle=False, seam="match")
    with pytest.raises(ValueError, match="must be finite, got NaN or infinity in the batch of a"):
        method(batch())


def test_the_oracle_gives_true_hints_and_leaves_unknown_labels_out():
    given = batch()
    hints = protocol.oracle(given, 4)
    assert {name: tuple(hint.shape) for name, hint in hints.items()} == {
        "seg": (2, 4, SIDE, SIDE),
        "seg_hole": (2, 1, SIDE, SIDE),
        "edge": (2, 1, SIDE, SIDE),
        "edge_hole": (2, 1, SIDE, SIDE),
    }
    assert np.array_equal(hints["seg_hole"].numpy()[:, 0], given.seg == 255)
    assert np.array_equal(hints["seg"].sum(1).numpy(), given.seg != 255)
    assert np.array_equal(hints["seg"].argmax(1).numpy()[:, 1:], given.seg[:, 1:])
    assert hints["edge_hole"].sum() == 0
    assert np.array_equal(hints["edge"].numpy()[:, 0], given.edge)
    with pytest.raises(ValueError, match=r"knows the labels 0\.\.2, the data holds 3; use --guidance none"):
        protocol.oracle(given, 3)


def test_the_hash_of_the_holes_knows_every_pixel_but_no_order():
    holes, keys = batch().hole, ["a", "b"]

    def digest(keys: list[str], holes: np.ndarray, bucket: str = "10-30") -> str:
        manifest = protocol.HoleManifest()
        for key, hole in zip(keys, holes, strict=True):
            manifest.add(bucket, [key], hole[None])
        return manifest.summary()["sha256"]

    holes[1, 0, 0] = True
    first = digest(keys, holes)
    assert digest(keys[::-1], holes[::-1]) == first
    changed = holes.copy()
    changed[0, 0, 0] = True
    assert len({first, digest(keys, changed), digest(keys[::-1], holes), digest(keys, holes, "40-60")}) == 4


def test_photographs_are_drawn_evenly_and_a_larger_n_only_adds():
    assert protocol.choose(100, 20, 0) == protocol.choose(100, 50, 0)[:20]
    assert sorted(protocol.choose(100, 200, 0)) == list(range(100))
    assert protocol.choose(100, 20, 0) != protocol.choose(100, 20, 1)


def test_holes_differ_between_photographs_and_buckets():
    holes = [protocol.make_hole(64, Bucket(40, 60), key, 0) for key in ("a", "b")]
    assert not np.array_equal(*holes)
    assert np.array_equal(holes[0], protocol.make_hole(64, Bucket(40, 60), "a", 0))
    assert all(0.4 <= hole.mean() <= 0.6 for hole in holes)


@pytest.fixture
def folders(tmp_path: Path) -> dict[str, Path]:
    """Reference, candidate and masks; the candidate differs outside the hole, too."""
    rng = np.random.default_rng(0)
    paths = {name: tmp_path / name for name in ("reference", "candidate", "masks")}
    for path in paths.values():
        path.mkdir()
    for name, side in (("a", 32), ("b", 48)):
        rgb, hole = photograph(rng, side), np.zeros((side, side), np.uint8)
        hole[5:20, 5:25] = 255
        Image.fromarray(rgb).save(paths["reference"] / f"{name}.png")
        Image.fromarray(255 - rgb).save(paths["candidate"] / f"{name}.bmp")
        Image.fromarray(hole).save(paths["masks"] / f"{name}.png")
    return paths


def options(folders: dict[str, Path]) -> list[str]:
    return [str(x) for name, path in folders.items() for x in (f"--{name}", path)] + ["--distance", "none"]


def test_two_folders_are_compared_in_the_hole(folders: dict[str, Path], tmp_path: Path, capsys):
    eval.main([*options(folders), "--json", str(tmp_path / "out.json")])
    captured = capsys.readouterr()
    assert "known pixels differ in 2 of 2 candidates" in captured.err
    assert "| all | candidate | 2 |" in captured.out
    result = json.loads((tmp_path / "out.json").read_text())
    for i, name in enumerate("ab"):
        rgb = np.array(Image.open(folders["reference"] / f"{name}.png"))[5:20, 5:25].astype(float)
        expected = 10 * np.log10(255**2 / np.square(255 - 2 * rgb).mean())
        assert scores(result, "candidate", "all")[i] == pytest.approx(expected, abs=1e-4)


def test_masks_of_one_bit_and_folders_named_like_pictures(folders: dict[str, Path], capsys):
    for path in folders["masks"].iterdir():
        Image.open(path).convert("1").save(path)
    (folders["candidate"] / "sub.png").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        eval.main(options(folders))
    assert "| all | candidate | 2 |" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f["masks"] / "b.png").rename(f["masks"] / "c.png"), "2 are not in all three: b, c"),
        (lambda f: Image.new("RGB", (9, 9)).save(f["candidate"] / "a.bmp"), "32 x 32; it has 9 x 9"),
        (lambda f: Image.new("L", (9, 9)).save(f["masks"] / "a.png"), "masks/a.png: the mask must have the size"),
        (lambda f: [Image.new("L", (10, 10), 255).save(f[n] / "c.png") for n in f], "reference/c.png: "),
        (lambda f: Image.new("L", (32, 32)).save(f["masks"] / "a.png"), "a.png must have a hole to measure in"),
        (lambda f: Image.new("RGB", (9, 9)).save(f["candidate"] / "a.png"), "different stems, got a more than once"),
        (lambda f: (f["candidate"] / "a.bmp").write_bytes(b"BM"), "a.bmp"),
        (lambda f: [path.unlink() for path in f["reference"].iterdir()], "different stems, got none"),
        (lambda f: f["masks"].rename(f["masks"].with_name("moved")), "there is none of that name"),
    ],
)
def test_folders_that_do_not_fit_are_one_line(folders: dict[str, Path], capsys, spoil, message: str):
    spoil(folders)
    assert message in fails(capsys, *options(folders))


def test_a_report_is_strict_json_and_written_whole(tmp_path: Path):
    path = tmp_path / "out.json"
    tables.write_json(path, {"values": [0.25, 1.0, -3.5e-05], "text": "kept  as\tit is"})
    assert json.loads(path.read_text()) == {"values": [0.25, 1.0, -3.5e-05], "text": "kept  as\tit is"}
    with pytest.raises(ValueError, match="JSON"):
        tables.write_json(path, {"x": float("nan")})
    assert json.loads(path.read_text())["values"][0] == 0.25
    assert [p.name for p in tmp_path.iterdir()] == ["out.json"]
