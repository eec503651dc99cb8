"""``mmif-inpaint``: files in, files out, one line for every mistake, nothing half-written."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import numpy as np
import pytest
from fake_model import FakeModel
from PIL import Image

from mmif.commands import inpaint
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


def test_invert_mask_and_seam_reach_the_pipeline(model):
    photo("a.png"), mask("m.png")
    run("a.png", "m.png", "-o", "out.png", "--invert-mask", "--seam", "none", "--seed", "5")
    result = np.asarray(Image.open("out.png"))
    assert len(np.unique(result[np.asarray(Image.open("m.png")) == 0])) == 1


def test_existing_output(model, capsys):
    photo("a.png"), mask("m.png"), photo("out.png")
    old = Path("out.png").read_bytes()
    assert "outputs must not exist yet; out.png do" in fails(capsys, "a.png", "m.png", "-o", "out.png")
    run("a.png", "m.png", "-o", "out.png", "--skip-existing")
    assert Path("out.png").read_bytes() == old
    assert not model.calls
    run("a.png", "m.png", "-o", "out.png", "--overwrite")
    assert Path("out.png").read_bytes() != old


def test_an_input_is_never_replaced(model, capsys):
    photo("a.png"), mask("m.png")
    assert "must not replace an input" in fails(capsys, "a.png", "m.png", "-o", "a.png", "--overwrite")
    assert "must not replace an input" in fails(capsys, "a.png", "m.png", "-o", "./m.png", "--overwrite")


@pytest.mark.parametrize("output", ["file/out.png", "out.xyz", "folder.png", "/proc/none/out.png"])
def test_unwritable_output_is_found_before_the_network_runs(model, capsys, output):
    photo("a.png"), mask("m.png"), Path("file").write_bytes(b""), Path("folder.png").mkdir()
    fails(capsys, "a.png", "m.png", "-o", output)
    assert not model.calls


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        (("no.png", "m.png"), "none is there"),
        (("a.png", "no.png"), "none is there"),
        (("broken.png", "m.png"), "broken.png: must be a whole image file"),
        (("text.png", "m.png"), "text.png: must be an image"),
        (("a.png", "text.png"), "text.png: must be an image"),
        (("a.png", "small.png"), "a.png: the mask must have the size of the photograph, 40 x 30; it has 20 x 30"),
        (("a.png", "m.png", "--edge", "small.png"), "the edge map must have the size"),
        (("a.png", "m.png", "--segmentation", "small.png"), "the segmentation must have the size"),
        (("a.png", "m.png", "--segmentation", "nine.png"), "labels of a segmentation must be 0..3, or 255"),
        (("a.png", "m.png", "--edge-mask", "m.png"), "--edge-mask needs --edge; pass both"),
        (
            ("a.png", "m.png", "--edge", "m.png"),
            "the mask and the edge of a.png must be two files; m.png would be both",
        ),
        (("a.png", "m.png", "--edge", "no.png"), "--edge must be a file, or a folder"),
        (("a.png", "m.png", "--margin", "-1"), "margin must lie"),
        (("a.png", "m.png", "--num-samples", "0"), "must be >= 1"),
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
    assert "must exist at nofolder; none is there" in fails(capsys, "nofolder", "m.png", "-o", "out")


def test_unknown_weights_are_one_line(capsys):
    photo("a.png"), mask("m.png")
    assert "no weights called 'nowhere'" in fails(capsys, "a.png", "m.png", "-o", "out.png", "--model", "nowhere")


def test_debug_shows_the_traceback(model):
    with pytest.raises(ValueError, match="none is there"):
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
    assert capsys.readouterr().out.splitlines()[-1] == "4 of 4 written to out, 0 were there already"


def test_a_photograph_gets_the_same_result_alone_and_in_any_folder(model):
    photo("in/a.png"), photo("in/b.png"), mask("m.png")
    run("in", "m.png", "-o", "both")
    run("in/b.png", "m.png", "-o", "alone.png")
    assert Path("both/b.png").read_bytes() == Path("alone.png").read_bytes()


def test_several_masks_for_one_photograph(model):
    photo("in/a.png"), mask("in/a_mask000.png"), mask("in/a_mask001.png", box=(0, 0, 5, 5))
    run("in", "in", "-o", "out")
    assert names() == ["a_mask000.png", "a_mask001.png"]


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
    words = "the segmentation and the edge of in/a.jpg must be two files; gg/a.png would be both"
    assert words in fails(capsys, "in", "m.png", "-o", "out", "--edge", "gg", "--segmentation", "gg")
    assert "the mask and the edge of" in fails(capsys, "in", "gg", "-o", "out", "--edge", "gg")
    mask("gg/a_edge_mask.png")
    run("in", "m.png", "-o", "out", "--edge", "gg", "--edge-mask", "gg")
    mask("edges/a.webp")
    run("in/a.jpg", "gg/a.png", "-o", "b.png", "--edge", "edges", "--edge-mask", "gg/a.png")
    assert all(call.edge is not None for call in model.calls)


def test_a_misnamed_file_of_guidance_stops_a_folder_but_not_one_photograph_of_it(model, capsys):
    photo("in/a.png"), photo("in/b.png"), mask("m.png")
    mask("gg/a_edge.png"), mask("gg/B_edge.png")
    words = "every file of guidance in gg must have a photograph in in; 1 have none: B_edge.png"
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
    assert "out/b.png do; pass --overwrite or --skip-existing" in fails(capsys, "in", "m.png", "-o", "out")
    run("in", "m.png", "-o", "out", "--skip-existing")
    assert capsys.readouterr().out.splitlines()[-1] == "2 of 3 written to out, 1 were there already"
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


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_leaves_whole_files_and_says_how_to_go_on(
    model, capsys, monkeypatch, harmless_sigterm, number
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
    assert stop.value.code == 130
    assert "go on with --skip-existing" in capsys.readouterr().err
    assert names() == ["a.png"]
    Image.open("out/a.png").load()
    monkeypatch.setattr(Image.Image, "save", real)
    run("in", "m.png", "-o", "out", "--skip-existing")
    assert names() == ["a.png", "b.png", "c.png"]


def test_a_bad_photograph_in_a_folder_is_named(model, capsys):
    photo("in/a.png"), photo("in/b.png", (10, 10)), mask("m.png")
    assert "1 are not: in/b.png: the mask must have the size" in fails(capsys, "in", "m.png", "-o", "out")


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
    assert out.splitlines()[-1] == "3 of 9 written to out, 0 were there already"
    assert names() == ["a.png", "c.png", "i.png"]
    (line,) = (line for line in err.splitlines() if line.startswith("mmif-inpaint: error"))
    assert "6 are not: in/b.png: must be an image" in line
    assert "; in/g.png: must be an image" in line
    assert "in/h.png" not in line
    assert "; and 1 more; mend or remove them" in line
    for stem in "bdefgh":
        photo(f"in/{stem}.png")
    run("in", "m.png", "-o", "out", "--skip-existing")
    assert capsys.readouterr().out.splitlines()[-1] == "6 of 9 written to out, 3 were there already"


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
    assert "more than one photograph makes a_strip.png" in error


def test_a_file_name_of_any_bytes(model):
    photo(os.fsdecode(b"in/\xff\xe9.png"))
    mask("mask.png")
    run("in", "mask.png", "-o", "out")
    assert names() == [os.fsdecode(b"\xff\xe9.png")]


def test_output_of_a_folder_must_be_a_folder(model, capsys):
    photo("in/a.png"), mask("m.png"), Path("out").write_bytes(b"")
    assert "must be a folder; out is a file" in fails(capsys, "in", "m.png", "-o", "out")


def test_help_states_the_polarity(capsys):
    with pytest.raises(SystemExit):
        inpaint.main(["--help"])
    assert "white = hole" in capsys.readouterr().out
