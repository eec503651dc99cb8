"""``mmif-eval`` on anybody's results: photographs, what was made of them, and the masks."""

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from mmif.commands import eval

Folders = dict[str, Path]


def picture(rng: np.random.Generator, side: int) -> np.ndarray:
    small = Image.fromarray(rng.integers(0, 256, (5, 5, 3), dtype=np.uint8))
    return np.array(small.resize((side, side), Image.Resampling.BICUBIC))


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    """Reference, candidate and masks; the candidate differs outside the hole, too."""
    rng = np.random.default_rng(0)
    paths = {name: tmp_path / name for name in ("reference", "candidate", "masks")}
    for path in paths.values():
        path.mkdir()
    for name, side in (("a", 32), ("b", 48)):
        rgb, hole = picture(rng, side), np.zeros((side, side), np.uint8)
        hole[5:20, 5:25] = 255
        Image.fromarray(rgb).save(paths["reference"] / f"{name}.png")
        Image.fromarray(255 - rgb).save(paths["candidate"] / f"{name}.bmp")
        Image.fromarray(hole).save(paths["masks"] / f"{name}.png")
    return paths


@pytest.fixture
def filled(folders: Folders) -> Folders:
    """The same, with known pixels as they were."""
    for path in folders["candidate"].iterdir():
        rgb, hole = pixels(folders["reference"] / f"{path.stem}.png"), pixels(folders["masks"] / f"{path.stem}.png")
        Image.fromarray(np.where(hole[..., None] > 0, 255 - rgb, rgb)).save(path)
    return folders


def pixels(path: Path) -> np.ndarray:
    return np.array(Image.open(path))


def invert(path: Path) -> None:
    Image.fromarray(255 - pixels(path)).save(path)


def options(folders: Folders) -> list[str]:
    return [str(x) for name, path in folders.items() for x in (f"--{name}", path)] + ["--distance", "none"]


def run(capsys: pytest.CaptureFixture[str], folders: Folders, *more: str) -> tuple[dict, str]:
    """Run the command; return the JSON and what it says on stderr."""
    path = folders["reference"].parent / "out.json"
    capsys.readouterr()
    eval.main([*options(folders), "--json", str(path), *more])
    return json.loads(path.read_text()), capsys.readouterr().err


def psnr(result: dict) -> list[float]:
    (row,) = result["results"]
    return row["per_photograph"]["psnr"]


def fails(capsys: pytest.CaptureFixture[str], *options: object) -> str:
    """Run a command that must fail with one line and exit code 2; return the line."""
    with pytest.raises(SystemExit) as stop:
        eval.main([str(option) for option in options])
    lines = [line for line in capsys.readouterr().err.splitlines() if line.startswith("mmif-eval: error: ")]
    assert stop.value.code == 2
    assert len(lines) == 1
    return lines[0]


def test_two_folders_are_compared_in_the_hole(folders: Folders, capsys):
    result, said = run(capsys, folders)
    assert "known pixels differ in 2 of 2 candidates" in said
    assert "--invert-mask" not in said
    assert result["candidates_with_changed_known_pixels"] == 2
    for i, name in enumerate("ab"):
        rgb = pixels(folders["reference"] / f"{name}.png")[5:20, 5:25].astype(float)
        assert psnr(result)[i] == pytest.approx(10 * np.log10(255**2 / np.square(255 - 2 * rgb).mean()), abs=1e-4)


def test_known_pixels_are_put_back_before_anything_is_measured(folders: Folders, request, capsys):
    changed, _ = run(capsys, folders)
    request.getfixturevalue("filled")  # mends the candidates
    mended, _ = run(capsys, folders)
    assert changed["results"] == mended["results"]  # the windows of SSIM reach beyond the hole


def test_a_hole_may_be_the_whole_photograph(folders: Folders, capsys):
    Image.new("L", (32, 32), 255).save(folders["masks"] / "a.png")
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        result, said = run(capsys, folders)
    assert result["candidates_with_changed_known_pixels"] == 1
    assert "note: a: the hole covers 100.00 % of the photograph" in said


def test_a_good_comparison_says_nothing_on_the_side(filled: Folders, capsys):
    result, said = run(capsys, filled)
    assert "note: " not in said
    assert result["candidates_with_changed_known_pixels"] == result["candidates_unchanged_inside_the_hole"] == 0


def test_masks_of_the_other_polarity_are_no_perfect_score(filled: Folders, capsys):
    right, _ = run(capsys, filled)
    for path in filled["masks"].iterdir():
        invert(path)
    message = fails(capsys, *options(filled))
    assert "a candidate must differ from its reference inside the hole; none of 2 does" in message
    assert "pass --invert-mask" in message
    inverted, said = run(capsys, filled, "--invert-mask")
    assert psnr(inverted) == psnr(right)
    assert inverted["holes"] == right["holes"]
    assert inverted["arguments"]["invert_mask"] is True
    assert "note: " not in said


def test_the_originals_are_no_perfect_candidates(filled: Folders, capsys):
    shutil.rmtree(filled["candidate"])
    shutil.copytree(filled["reference"], filled["candidate"])
    assert "if --candidate holds the originals, give the filled photographs" in fails(capsys, *options(filled))
    message = fails(capsys, *options(filled | {"candidate": filled["reference"]}))
    assert "--reference and --candidate must be two folders" in message


def test_one_candidate_that_equals_its_reference_in_the_hole_is_named(filled: Folders, capsys):
    invert(filled["masks"] / "b.png")
    result, said = run(capsys, filled)
    assert "note: candidates b equal the reference inside the hole and score 100 dB" in said
    assert "--invert-mask" in said
    assert "far more outside" not in said
    assert result["candidates_unchanged_inside_the_hole"] == 1
    assert psnr(result)[1] == 100


def test_masks_of_the_other_polarity_are_noticed_where_known_pixels_changed_a_little(filled: Folders, capsys):
    for path in filled["candidate"].iterdir():
        rgb = pixels(path)
        Image.fromarray(np.where(rgb < 255, rgb + 1, rgb).astype(np.uint8)).save(path)
    result, said = run(capsys, filled)
    assert "--invert-mask" not in said
    assert result["candidates_with_changed_known_pixels"] == 2
    for path in filled["masks"].iterdir():
        invert(path)
    _, said = run(capsys, filled)
    assert "candidates a, b differ from the reference far more outside the hole than inside" in said
    assert "did you mean --invert-mask?" in said


def test_a_hole_over_nearly_everything_brings_the_hint(folders: Folders, capsys):
    mask = np.full((48, 48), 255, np.uint8)
    mask[:4] = 0
    Image.fromarray(mask).save(folders["masks"] / "b.png")
    assert "note: b: the hole covers 91.67 % of the photograph" in run(capsys, folders)[1]


def test_masks_and_candidates_are_turned_as_photographs_are(filled: Folders, capsys):
    right, _ = run(capsys, filled)
    exif = Image.Exif()
    exif[0x0112] = 3  # upside down: turned by half a circle when shown
    for name in ("masks", "candidate"):
        for path in list(filled[name].iterdir()):
            turned = np.ascontiguousarray(pixels(path)[::-1, ::-1])
            path.unlink()
            Image.fromarray(turned).save(path.with_suffix(".png"), exif=exif)
    turned, _ = run(capsys, filled)
    assert psnr(turned) == psnr(right)
    assert turned["holes"] == right["holes"]


def test_a_mask_is_read_as_mmif_inpaint_reads_it(filled: Folders, capsys):
    for path in filled["masks"].iterdir():
        painted = Image.new("RGBA", Image.open(path).size, "red")
        painted.putalpha(Image.open(path))
        painted.save(path)
    result, said = run(capsys, filled)
    assert "note: a: the mask has one colour only: its alpha was read, opaque = white" in said
    assert "; 1 more are like it" in said
    assert max(psnr(result)) < 100
    shutil.copy(filled["reference"] / "a.png", filled["masks"] / "a.png")
    assert "masks/a.png: " in fails(capsys, *options(filled))


@pytest.mark.parametrize("candidate", ["a_mask000", "a"])
def test_masks_may_be_named_after_their_photographs(filled: Folders, capsys, candidate: str):
    right, _ = run(capsys, filled)
    (filled["masks"] / "a.png").rename(filled["masks"] / "a_mask000.png")
    (filled["masks"] / "b.png").rename(filled["masks"] / "b_mask.png")
    (filled["candidate"] / "a.bmp").rename(filled["candidate"] / f"{candidate}.bmp")
    assert psnr(run(capsys, filled)[0]) == psnr(right)


def test_several_masks_of_a_photograph_each_have_a_result(filled: Folders, capsys):
    for kind in ("masks", "candidate"):
        (path,) = filled[kind].glob("a.*")
        shutil.copy(path, path.with_stem("a_mask000"))
        path.rename(path.with_stem("a_mask001"))
    result, _ = run(capsys, filled)
    assert psnr(result)[0] == psnr(result)[1] != psnr(result)[2]
    (filled["candidate"] / "a_mask001.bmp").rename(filled["candidate"] / "a.bmp")
    assert "has no result in" in fails(capsys, *options(filled))


def test_masks_may_lie_beside_the_photographs(filled: Folders, capsys):
    right, _ = run(capsys, filled)
    for path in filled["masks"].iterdir():
        path.rename(filled["reference"] / f"{path.stem}_mask.png")
    assert psnr(run(capsys, filled | {"masks": filled["reference"]})[0]) == psnr(right)


def test_one_mask_may_serve_all(filled: Folders, capsys):
    for kind in ("reference", "candidate"):
        (path,) = filled[kind].glob("b.*")
        path.unlink()
        (path,) = filled[kind].glob("a.*")
        shutil.copy(path, path.with_stem("c"))
    result, _ = run(capsys, filled | {"masks": filled["masks"] / "a.png"})
    assert psnr(result)[0] == psnr(result)[1] < 100


def test_what_mmif_inpaint_writes_beside_its_results_is_no_candidate(filled: Folders, capsys):
    for kind in ("seg", "edge", "strip"):
        Image.new("L", (9, 9)).save(filled["candidate"] / f"a_{kind}.png")
    assert len(psnr(run(capsys, filled)[0])) == 2


def test_masks_of_one_bit_and_folders_named_like_pictures(folders: Folders, capsys):
    for path in folders["masks"].iterdir():
        Image.open(path).convert("1").save(path)
    (folders["candidate"] / "sub.png").mkdir()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert len(psnr(run(capsys, folders)[0])) == 2


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda f: (f["masks"] / "b.png").rename(f["masks"] / "c.png"), "b.png"),
        (lambda f: (f["candidate"] / "b.bmp").unlink(), "has no result in"),
        (lambda f: shutil.copy(f["candidate"] / "b.bmp", f["candidate"] / "c.bmp"), "has no photograph with a mask in"),
        (lambda f: Image.new("RGB", (9, 9)).save(f["candidate"] / "a.bmp"), "32 x 32; it has 9 x 9"),
        (lambda f: Image.new("L", (9, 9)).save(f["masks"] / "a.png"), "masks/a.png: the mask must have the size"),
        (lambda f: [Image.new("L", (10, 10), 255).save(f[n] / "c.png") for n in f], "reference/c.png: "),
        (lambda f: Image.new("L", (32, 32)).save(f["masks"] / "a.png"), "masks/a.png must have a hole to measure in"),
        (lambda f: Image.new("RGB", (9, 9)).save(f["candidate"] / "a.png"), "are results of one photograph"),
        (lambda f: (f["candidate"] / "a.bmp").write_bytes(b"BM"), "a.bmp"),
        (lambda f: [path.unlink() for path in f["reference"].iterdir()], "no photographs in"),
        (lambda f: f["masks"].rename(f["masks"].with_name("moved")), "masks; check the path"),
        (lambda f: f["candidate"].rename(f["masks"].with_name("moved")), "candidate is not there"),
        (lambda f: (shutil.rmtree(f["reference"]), f["reference"].touch()), "reference is a file"),
    ],
)
def test_folders_that_do_not_fit_are_one_line(folders: Folders, capsys, spoil, message: str):
    spoil(folders)
    assert message in fails(capsys, *options(folders))


def test_the_options_of_folders_come_together_and_alone(folders: Folders, capsys):
    for more in (["--data", "set"], ["--model", "scenes-128"], ["--strip", "strip.png"]):
        assert "give --reference, --candidate and --masks together" in fails(capsys, *options(folders), *more)
    assert "together, perhaps with --invert-mask" in fails(capsys, "--data", "set", "--invert-mask")
