"""``mmif-inpaint``: files in, files out, one line for every mistake, nothing half-written."""

from __future__ import annotations

import io
import os
import signal
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
from fake_model import FakeModel
from PIL import Image

from mmif.commands import inpaint
from mmif.images.holes import grow
from mmif.inpaint import Inpainter
from mmif.ops import dispatch

RNG = np.random.default_rng(2)
SIZE = (40, 30)


@pytest.fixture
def model(monkeypatch) -> FakeModel:
    """A network in place of the weights."""
    model = FakeModel()

    def from_pretrained(name, device=None, backend="auto", **options):
        return Inpainter(model, {"name": name, "sha256": "ab12" * 16}, device or "cpu", backend, **options)

    monkeypatch.setattr(Inpainter, "from_pretrained", from_pretrained)
    return model


def photo(path: str | Path, size: tuple[int, int] = SIZE, **options) -> np.ndarray:
    rgb = RNG.integers(0, 256, (size[1], size[0], 3), np.uint8)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(rgb).save(path, **options)
    return rgb


def mask(
    path: str | Path, size: tuple[int, int] = SIZE, box: tuple[int, int, int, int] = (10, 5, 30, 20)
) -> np.ndarray:
    image = Image.new("L", size)
    image.paste(255, box)
    Path(path).parent.mkdir(parents=True, exist_ok=True)
    image.save(path)
    return np.asarray(image) > 0


def run(*argv: str) -> None:
    inpaint.main(argv)


def fails(capsys, *argv: str) -> str:
    """Run, expect one line on stderr and exit code 2; return the line."""
    with pytest.raises(SystemExit) as stop:
        run(*argv)
    error = capsys.readouterr().err
    assert stop.value.code == 2
    assert error.startswith("mmif-inpaint: error: ")
    assert error.count("\n") == 1
    return error


def names(folder: str = "out") -> list[str]:
    return sorted(path.name for path in Path(folder).iterdir())


# One photograph


def test_one_photograph(model, capsys):
    rgb, hole = photo("a.png"), mask("m.png")
    run("a.png", "m.png", "-o", "new/out.png")
    out, err = capsys.readouterr()
    first, last = out.splitlines()
    assert first == f"device cpu | {dispatch.describe()} | runtime eager | weights scenes-128 (sha256 ab12ab12ab12)"
    assert last == "result new/out.png"
    assert err == ""
    result = np.asarray(Image.open("new/out.png"))
    assert np.array_equal(result[~hole], rgb[~hole])
    assert not np.array_equal(result[hole], rgb[hole])


def test_extra_outputs_samples_and_their_names(model, capsys):
    photo("a.png"), mask("m.png")
    flags = ("--save-segmentation", "--save-edges", "--save-strip", "--num-samples", "2")
    run("a.png", "m.png", "-o", "out/r.png", *flags)
    assert names() == ["r_edge.png", "r_s0.png", "r_s1.png", "r_seg.png", "r_strip.png"]
    assert Image.open("out/r_seg.png").mode == "P"
    assert Image.open("out/r_edge.png").mode == "L"
    assert Image.open("out/r_strip.png").size == (5 * (40 + 4) - 4, 30)
    run("a.png", "m.png", "-o", "out/again.png", "--segmentation", "out/r_seg.png", "--edge", "out/r_edge.png")
    assert model.calls[-1].seg is not None
    assert model.calls[-1].edge is not None


def test_notes_go_to_stderr(model, capsys):
    photo("a.jpg"), mask("m.png", box=(0, 0, 40, 29))
    run("a.jpg", "m.png", "-o", "out.jpg")
    err = capsys.readouterr().err
    assert "note: a.jpg: the hole covers 96.67 %" in err
    assert "JPEG is lossy: write to .png" in err


def test_boxes_in_place_of_a_mask(model, capsys):
    rgb = photo("a.png")
    run("a.png", "--box", "10,5,20,15", "--box", "0,0,1,1", "-o", "out.png")
    changed = (np.asarray(Image.open("out.png")) != rgb).any(2)
    assert changed[5:20, 10:30].all()
    assert changed[0, 0]
    assert changed.sum() == 301
    assert capsys.readouterr().err == ""
    words = "a box must be x,y,width,height in pixels, such as 40,30,64,64; got 1,2,3"
    assert words in fails(capsys, "a.png", "--box", "1,2,3", "-o", "new.png")
    assert "a box must lie inside the photograph, 40 x 30" in fails(
        capsys, "a.png", "--box", "30,0,20,5", "-o", "b.png"
    )
    assert "no mask for a.png; name one, or pass --box" in fails(capsys, "a.png", "-o", "new.png")


def test_a_mask_beside_a_box_is_never_filled_as_a_photograph(model, capsys):
    photo("in/a.png"), photo("in/c.png"), mask("m.png")
    words = "--box takes the place of a mask, and goes with one photograph or one folder; got in/a.png, m.png; leave"
    assert words in fails(capsys, "in/a.png", "m.png", "--box", "1,1,3,3", "-o", "bx")
    assert not Path("bx").exists()
    run("in", "--box", "0,0,9,9", "-o", "boxed")
    assert names("boxed") == ["a.png", "c.png"]


def test_after_two_dashes_all_are_files(model, capsys):
    photo("-oevil.png"), photo("a.png"), mask("--mask.png")
    run("-o", "out/", "--box", "1,1,2,2", "--", "-oevil.png")
    run("-o", "out/", "a.png", "--", "--mask.png")
    assert names() == ["-oevil.png", "a.png"]
    assert not Path("evil.png").exists()
    assert "the following arguments are required: PHOTO" in fails(capsys, "-o", "out/", "--")


def test_a_loop_of_links_is_one_line(model, capsys):
    photo("in/a.png"), photo("in/b.png"), mask("m.png"), Path("out").mkdir()
    for link in ("loop.png", "loop", "out/b.png", "in/c.png"):
        Path(link).symlink_to(Path(link).name)
    assert "loop.png exists already" in fails(capsys, "in/a.png", "m.png", "-o", "loop.png")
    assert "no photograph or folder at loop.png" in fails(capsys, "loop.png", "m.png", "-o", "new.png")
    assert "the output loop/x.png must be writable" in fails(capsys, "in/a.png", "m.png", "-o", "loop/x.png")
    assert "out/b.png exists already" in fails(capsys, "in", "m.png", "-o", "out")
    run("in", "m.png", "-o", "out", "--skip-existing")  # there is no result behind a loop
    assert all(Path("out", name).is_file() for name in ("a.png", "b.png"))


def test_a_mask_is_grown(model):
    rgb, hole = photo("a.png"), mask("m.png")
    run("a.png", "m.png", "-o", "out.png", "--grow-mask", "2")
    assert np.array_equal((np.asarray(Image.open("out.png")) != rgb).any(2), grow(hole, 2))


def test_the_quality_of_a_jpeg_is_that_of_its_photograph_or_as_asked_for(model, capsys):
    photo("a.jpg", (200, 200), quality=50), mask("m.png", (200, 200))
    run("a.jpg", "m.png", "-o", "same.jpg")
    run("a.jpg", "m.png", "-o", "best.jpg", "--quality", "100")
    assert Image.open("same.jpg").quantization == Image.open("a.jpg").quantization
    assert Path("best.jpg").stat().st_size > 2 * Path("same.jpg").stat().st_size
    assert "--quality" not in capsys.readouterr().err
    run("a.jpg", "m.png", "-o", "other.png", "--quality", "100")
    assert "note: --quality is of JPEG results, and there are none" in capsys.readouterr().err


def test_an_output_folder_for_one_photograph(model, capsys):
    photo("in/a.jpg"), mask("m.png"), Path("there").mkdir()
    run("in/a.jpg", "m.png", "-o", "there")
    run("in/a.jpg", "-o", "new/", "m.png", "--save-edges")  # options may stand between files
    assert names("there") == ["a.jpg"]
    assert names("new") == ["a.jpg", "a_edge.png"]
    assert capsys.readouterr().out.splitlines()[-1] == "result new/a.jpg, new/a_edge.png"


def test_standard_input_and_output(model, monkeypatch, capsysbinary):
    rgb, hole = photo("a.png"), mask("m.png")
    run("a.png", "m.png", "-o", "out.png")
    capsysbinary.readouterr()
    for argv, source in ((("-", "m.png"), "a.png"), (("a.png", "-"), "m.png")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(Path(source).read_bytes())))
        run(*argv, "-o", "-")
        out, err = capsysbinary.readouterr()
        result = Image.open(io.BytesIO(out))
        assert result.format == "PNG"
        assert np.array_equal(np.asarray(result)[~hole], rgb[~hole])
        assert err.startswith(b"device cpu")
    assert out == Path("out.png").read_bytes()


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"junk", "standard input: not an image that can be read"),
        (b"", "standard input is empty; send it a picture, or name a file"),
    ],
)
def test_standard_input_is_called_so(model, monkeypatch, capsys, data, words):
    photo("a.png"), mask("m.png")
    for argv in (("-", "m.png"), ("a.png", "-")):
        monkeypatch.setattr(sys, "stdin", SimpleNamespace(buffer=io.BytesIO(data)))
        assert words in fails(capsys, *argv, "-o", "-")


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("-", "-", "-o", "x.png"), "standard input is one file"),
        (("-", "m.png", "-o", "folder/"), "a photograph from standard input has no name"),
        (("a.png", "m.png", "-o", "-", "--num-samples", "2"), "standard output takes one picture"),
        (("a.png", "m.png", "-o", "-", "--save-strip"), "standard output takes one picture"),
        (("in", "m.png", "-o", "-"), "standard output takes one picture"),
        (("in/b.png", "a.png", "m.png", "-o", "-"), "standard output takes one picture"),
        (
            ("in/b.png", "a.png", "m.png", "-o", "x.png"),
            "several results need a folder, and x.png is named like a picture; end it with /",
        ),
        (("a.png", "m.png", "-o", "x.png", "--recursive"), "--recursive needs a folder"),
        (("a.png", "m.png", "-o", ""), "--output must name a file or a folder; got an empty name"),
        (("a.png", "m.png", "-o", "x.png", "--grow-mask", "-3"), "--grow-mask must be >= 0, got -3"),
        (("a.png", "m.png", "-o", "x.jpg", "--quality", "0"), "--quality must be >= 1, got 0"),
    ],
)
def test_what_cannot_be_read_or_written_so_is_one_line(model, capsys, argv, words):
    photo("a.png"), photo("in/b.png"), mask("m.png")
    assert words in fails(capsys, *argv)
    assert not model.calls


def test_what_is_wrong_is_said_before_the_network_is_loaded(model, monkeypatch, capsys):
    def too_early(*_, **__):
        raise AssertionError("the network was loaded")

    photo("a.png"), mask("small.png", (20, 30)), Path("text.png").write_text("no image")
    monkeypatch.setattr(Inpainter, "from_pretrained", too_early)
    assert "the mask must have the size" in fails(capsys, "a.png", "small.png", "-o", "out.png")
    assert "text.png: not an image" in fails(capsys, "a.png", "text.png", "-o", "out.png")
    assert "a box must lie inside" in fails(capsys, "a.png", "--box", "0,0,99,9", "-o", "out.png")
    assert "--batch must be >= 1" in fails(capsys, "a.png", "small.png", "-o", "out.png", "--batch", "0")


def test_the_name_of_a_file_cannot_command_the_terminal(model, capsys):
    photo("a\x1b[2J\n.jpg"), mask("m.png")
    run("a\x1b[2J\n.jpg", "m.png", "-o", "b\x1b]0;x\x07.jpg")
    out, err = capsys.readouterr()
    assert "\x1b" not in out + err
    assert r"result b\x1b]0;x\x07.jpg" in out
    assert r"note: a\x1b[2J\n.jpg: JPEG is lossy" in err


def test_invert_mask_and_seam_reach_the_pipeline(model):
    photo("a.png"), mask("m.png")
    run("a.png", "m.png", "-o", "out.png", "--invert-mask", "--seam", "none", "--seed", "5")
    result = np.asarray(Image.open("out.png"))
    assert len(np.unique(result[np.asarray(Image.open("m.png")) == 0])) == 1


def test_existing_output(model, capsys):
    photo("a.png"), mask("m.png"), photo("out.png")
    old = Path("out.png").read_bytes()
    assert "out.png exists already; pass --overwrite or" in fails(capsys, "a.png", "m.png", "-o", "out.png")
    run("a.png", "m.png", "-o", "out.png", "--skip-existing")
    assert Path("out.png").read_bytes() == old
    assert not model.calls
    run("a.png", "m.png", "-o", "out.png", "--overwrite")
    assert Path("out.png").read_bytes() != old


def test_an_input_is_never_replaced(model, capsys):
    photo("a.png"), mask("m.png")
    assert "is an input and would be replaced" in fails(capsys, "a.png", "m.png", "-o", "a.png", "--overwrite")
    assert "is an input and would be replaced" in fails(capsys, "a.png", "m.png", "-o", "./m.png", "--overwrite")


@pytest.mark.parametrize("output", ["file/out.png", "out.xyz", "out", "/proc/none/out.png"])
def test_unwritable_output_is_found_before_the_network_runs(model, capsys, output):
    photo("a.png"), mask("m.png"), Path("file").write_bytes(b"")
    fails(capsys, "a.png", "m.png", "-o", output)
    assert not model.calls


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("no.png", "m.png"), "check the path"),
        (("a.png", "no.png"), "check the path"),
        (("broken.png", "m.png"), "broken.png: must be a whole image file"),
        (("text.png", "m.png"), "text.png: not an image"),
        (("a.png", "text.png"), "text.png: not an image"),
        (
            ("a.png", "small.png"),
            "a.png: small.png: the mask must have the size of the photograph, 40 x 30; it has 20 x 30; scale it to",
        ),
        (("a.png", "m.png", "--edge", "small.png"), "a.png: small.png: the edge map must have the size"),
        (("a.png", "m.png", "--segmentation", "small.png"), "a.png: small.png: the segmentation must have the size"),
        (
            ("a.png", "m.png", "--segmentation", "nine.png"),
            "a.png: nine.png: labels of a segmentation must be 0..3, or 255",
        ),
        (("a.png", "m.png", "--edge-mask", "m.png"), "--edge-mask needs --edge; pass both"),
        (
            ("a.png", "m.png", "--edge", "m.png"),
            "m.png would be both the mask and the edge of a.png",
        ),
        (("a.png", "m.png", "--edge", "no.png"), "--edge must be a file, or a folder"),
        (("a.png", "m.png", "--margin", "-1"), "margin must lie"),
        (("a.png", "m.png", "--num-samples", "0"), "must be >= 1"),
        (("a.png", "m.png", "--num-samples", "1001"), "--num-samples must be <= 1000"),
        (("a.png", "m.png", "--batch", "0"), "must be >= 1"),
    ],
)
def test_bad_input_is_one_line(model, capsys, argv, words):
    photo("a.png"), photo("broken.png"), mask("m.png"), mask("small.png", (20, 30))
    Image.new("L", SIZE, 9).save("nine.png")
    data = Path("broken.png").read_bytes()
    Path("broken.png").write_bytes(data[: len(data) // 2])
    Path("text.png").write_text("no image")
    assert words in fails(capsys, *argv, "-o", "out.png")
    assert not Path("out.png").exists()


def test_a_mistyped_folder_is_said_to_be_missing(model, capsys):
    mask("m.png")
    assert "no photograph or folder at nofolder; check the path" in fails(capsys, "nofolder", "m.png", "-o", "out")


def test_unknown_weights_are_one_line(capsys):
    photo("a.png"), mask("m.png")
    assert "no weights called 'nowhere'" in fails(capsys, "a.png", "m.png", "-o", "out.png", "--model", "nowhere")


def test_debug_shows_the_traceback(model):
    with pytest.raises(ValueError, match="check the path"):
        run("no.png", "m.png", "-o", "out.png", "--debug")


def test_nan_from_the_network_writes_nothing(model, capsys):
    photo("a.png"), mask("m.png")
    model.bad = float("nan")
    with pytest.raises(SystemExit) as stop:
        run("a.png", "m.png", "-o", "out.png")
    assert stop.value.code == 2
    assert "a.png, which was not written" in capsys.readouterr().err
    assert not list(Path().glob("*out*"))


# Folders


def test_a_folder_of_photographs(model, capsys):
    kept = {name: photo(f"in/{name}") for name in ("a.png", "b.jpg", "c.webp", "d.gif")}
    hole = mask("masks/a.png")
    for stem in "bcd":
        mask(f"masks/{stem}.png")
    run("in", "masks", "-o", "out", "--batch", "3")
    assert names() == ["a.png", "b.jpg", "c.webp", "d.png"]
    assert np.array_equal(np.asarray(Image.open("out/a.png"))[~hole], kept["a.png"][~hole])
    assert capsys.readouterr().out.splitlines()[-1] == "4 of 4 written to out"


def test_a_photograph_gets_the_same_result_alone_and_in_any_folder(model):
    photo("in/a.png"), photo("in/b.png"), mask("m.png")
    run("in", "m.png", "-o", "both")
    run("in/b.png", "m.png", "-o", "alone.png")
    assert Path("both/b.png").read_bytes() == Path("alone.png").read_bytes()


def test_several_masks_for_one_photograph(model):
    photo("in/a.png"), mask("in/a_mask000.png"), mask("in/a_mask001.png", box=(0, 0, 5, 5))
    run("in", "in", "-o", "out")
    assert names() == ["a_mask000.png", "a_mask001.png"]


def test_a_list_of_photographs(model, capsys):
    photo("in/a.png"), photo("b.jpg"), photo("in/c.png")
    for stem in "abc":
        mask(f"masks/{stem}.png")
    run("in/a.png", "b.jpg", "masks", "-o", "out")
    assert names() == ["a.png", "b.jpg"]
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 2 written to out"


def test_one_photograph_finds_its_masks_in_a_folder(model):
    photo("in/a.png"), photo("in/b.png"), mask("in/a_mask000.png"), mask("in/a_mask001.png"), mask("in/b_mask.png")
    run("in/a.png", "in", "-o", "out")
    assert names() == ["a_mask000.png", "a_mask001.png"]


def test_folders_of_folders(model, capsys):
    photo("in/a.png"), photo("in/trip/a.jpg"), mask("masks/a.png"), mask("masks/trip/a.png"), mask("m.png")
    run("in", "masks", "-o", "in/out", "--recursive")
    assert names("in/out") == ["a.png", "trip"]
    assert names("in/out/trip") == ["a.jpg"]
    run("in", "m.png", "-o", "in/out", "--recursive", "--skip-existing")  # results are no photographs
    assert capsys.readouterr().out.splitlines()[-1] == "0 of 2 written to in/out, 2 were there already"


def test_what_is_skipped_is_said(model, capsys):
    photo("in/a.png"), mask("m.png"), Path("in/notes.txt").write_text("x"), Path("in/.hidden.png").touch()
    run("in", "m.png", "-o", "out")
    assert "note: skipped: notes.txt (not a picture that is read)" in capsys.readouterr().err


def test_guidance_beside_the_photographs(model, capsys):
    for stem in "ab":
        photo(f"in/{stem}.png"), mask(f"in/{stem}_mask.png")
    Image.new("L", SIZE, 2).save("in/a_seg.png")
    mask("in/b_edge.png")
    run("in", "in", "-o", "out", "--segmentation", "in", "--edge", "in", "--batch", "1")
    assert [(call.seg is not None, call.edge is not None) for call in model.calls] == [(True, False), (False, True)]
    words = fails(capsys, "in", "in", "-o", "new", "--edge", "in", "--edge-mask", "in")
    assert "--edge-mask must be a file, or a folder that holds NAME_edge_mask.png; in is not" in words


def test_one_file_is_never_a_map_and_something_else(model, capsys):
    photo("in/a.jpg"), mask("m.png")
    mask("gg/a.png")
    words = "must be a file, or a folder that holds NAME_edge_mask.png; gg is not"
    assert words in fails(capsys, "in", "m.png", "-o", "out", "--edge", "gg", "--edge-mask", "gg")
    words = "gg/a.png would be both the segmentation and the edge of in/a.jpg"
    assert words in fails(capsys, "in", "m.png", "-o", "out", "--edge", "gg", "--segmentation", "gg")
    assert "would be both the mask and the edge of" in fails(capsys, "in", "gg", "-o", "out", "--edge", "gg")
    mask("gg/a_edge_mask.png")
    run("in", "m.png", "-o", "out", "--edge", "gg", "--edge-mask", "gg")
    mask("edges/a.webp")
    run("in/a.jpg", "gg/a.png", "-o", "b.png", "--edge", "edges", "--edge-mask", "gg/a.png")
    assert all(call.edge is not None for call in model.calls)


def test_a_misnamed_file_of_guidance_stops_a_folder_but_not_one_photograph_of_it(model, capsys):
    photo("in/a.png"), photo("in/b.png"), mask("m.png")
    mask("gg/a_edge.png"), mask("gg/B_edge.png")
    words = "1 guidance file in gg has no photograph in in: B_edge.png"
    assert words in fails(capsys, "in", "m.png", "-o", "out", "--edge", "gg")
    assert not model.calls
    run("in/a.png", "m.png", "-o", "out.png", "--edge", "gg")


def test_the_same_note_is_printed_once(model, capsys):
    for i in range(4):
        photo(f"in/{i}.jpg")
    mask("m.png")
    run("in", "m.png", "-o", "out")
    err = capsys.readouterr().err
    assert err.count("JPEG is lossy") == 2
    assert "note: 3 more: JPEG is lossy" in err


def test_skip_existing_goes_on_where_a_run_stopped(model, capsys):
    for stem in "abc":
        photo(f"in/{stem}.png")
    mask("m.png")
    photo("out/b.png")
    assert "out/b.png exists already; pass --overwrite or --skip-existing" in fails(capsys, "in", "m.png", "-o", "out")
    run("in", "m.png", "-o", "out", "--skip-existing")
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 3 written to out, 1 was there already"
    assert names() == ["a.png", "b.png", "c.png"]


def test_skip_existing_leaves_what_is_there_of_an_unfinished_photograph(model):
    photo("a.png")
    mask("m.png")
    Path("a_out_s0.png").write_text("mine")
    run("a.png", "m.png", "-o", "a_out.png", "--num-samples", "2", "--skip-existing")
    assert Path("a_out_s0.png").read_text() == "mine"
    assert Image.open("a_out_s1.png").size == SIZE


@pytest.fixture
def harmless_sigterm():
    """Where nothing handles the signal it must not end the tests."""
    before = signal.signal(signal.SIGTERM, signal.SIG_IGN)
    yield
    signal.signal(signal.SIGTERM, before)


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupted_run_leaves_whole_files_and_says_how_to_go_on(
    model, capsys, monkeypatch, harmless_sigterm, number, code
):
    for stem in "abc":
        photo(f"in/{stem}.png")
    mask("m.png")
    real = Image.Image.save

    saved = []

    def save(self, target, *args, **options):
        saved.append(target)
        if len(saved) == 2:
            target.write(b"half of")
            signal.raise_signal(number)
        real(self, target, *args, **options)

    monkeypatch.setattr(Image.Image, "save", save)
    with pytest.raises(SystemExit) as stop:
        run("in", "m.png", "-o", "out", "--batch", "1")
    assert stop.value.code == code
    assert "go on with --skip-existing" in capsys.readouterr().err
    assert names() == ["a.png"]
    Image.open("out/a.png").load()
    monkeypatch.setattr(Image.Image, "save", real)
    run("in", "m.png", "-o", "out", "--skip-existing")
    assert names() == ["a.png", "b.png", "c.png"]


def test_a_bad_photograph_in_a_folder_is_named(model, capsys):
    photo("in/a.png"), photo("in/b.png", (10, 10)), mask("m.png")
    assert "1 photograph could not be filled: in/b.png: m.png: the mask must have the size" in fails(
        capsys, "in", "m.png", "-o", "out"
    )


def test_what_is_good_in_a_folder_is_written_and_the_rest_is_named(model, capsys):
    for stem in "abcdefghi":
        photo(f"in/{stem}.png")
    mask("m.png")
    for stem in "bdefgh":
        Path(f"in/{stem}.png").write_text("no image")
    with pytest.raises(SystemExit) as stop:
        run("in", "m.png", "-o", "out", "--batch", "8")
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert out.splitlines()[-1] == "3 of 9 written to out"
    assert names() == ["a.png", "c.png", "i.png"]
    (line,) = (line for line in err.splitlines() if line.startswith("mmif-inpaint: error"))
    assert "6 photographs could not be filled: in/b.png: not an image" in line
    assert "; in/g.png: not an image" in line
    assert "in/h.png" not in line
    assert " and 1 more; fix or remove them, then run again with --skip-existing" in line
    for stem in "bdefgh":
        photo(f"in/{stem}.png")
    run("in", "m.png", "-o", "out", "--skip-existing")
    assert capsys.readouterr().out.splitlines()[-1] == "6 of 9 written to out, 3 were there already"


def test_a_photograph_that_cannot_be_written_costs_no_other(model, capsys):
    photo("in/a.jpg"), photo("in/c.jpg"), photo("b.png", (66_000, 1))
    Path("b.png").rename("in/b.jpg")  # what it holds is read, whatever its name says; no JPEG file is as wide
    mask("masks/a.png"), mask("masks/b.png", (66_000, 1), (5, 0, 9, 1)), mask("masks/c.png")
    with pytest.raises(SystemExit) as stop:
        run("in", "masks", "-o", "out", "--batch", "1")
    out, err = capsys.readouterr()
    assert stop.value.code == 2
    assert names() == ["a.jpg", "c.jpg"]
    assert "2 of 3 written" in out
    assert "1 photograph could not be filled: in/b.jpg: out/b.jpg could not be written as JPEG" in err


def test_a_network_that_fails_for_one_photograph_costs_no_other(model, capsys):
    for stem in "abc":
        photo(f"in/{stem}.png")
    mask("m.png")
    model.bad = float("nan")  # in the last photograph of a batch
    with pytest.raises(SystemExit) as stop:
        run("in", "m.png", "-o", "out", "--batch", "3")
    assert stop.value.code == 2
    assert names() == ["a.png", "b.png"]
    assert "NaN or infinity for in/c.png" in capsys.readouterr().err


def test_a_full_disk_ends_a_folder_at_once(model, capsys, monkeypatch):
    for stem in "abc":
        photo(f"in/{stem}.png")
    mask("m.png")

    def save(self, target, *args, **options):
        raise OSError(28, "No space left on device", str(target))

    monkeypatch.setattr(Image.Image, "save", save)
    assert "No space left on device" in fails(capsys, "in", "m.png", "-o", "out", "--batch", "1")
    assert len(model.calls) == 1


def test_two_photographs_cannot_make_one_file(model, capsys):
    for stem in ("a", "a_strip"):
        photo(f"in/{stem}.png")
        mask(f"masks/{stem}.png")
    error = fails(capsys, "in", "masks", "-o", "out", "--save-strip")
    assert "more than one photograph would make out/a_strip.png" in error


def test_a_file_name_of_any_bytes(model):
    photo(os.fsdecode(b"in/\xff\xe9.png"))
    mask("mask.png")
    run("in", "mask.png", "-o", "out")
    assert names() == [os.fsdecode(b"\xff\xe9.png")]


def test_output_of_a_folder_must_be_a_folder(model, capsys):
    photo("in/a.png"), mask("m.png"), Path("out").write_bytes(b"")
    assert "several results need a folder, and out is a file" in fails(capsys, "in", "m.png", "-o", "out")


def test_help_states_the_polarity(capsys):
    with pytest.raises(SystemExit):
        inpaint.main(["--help"])
    assert "white = hole" in capsys.readouterr().out
