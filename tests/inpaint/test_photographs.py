"""What a mask, transparency, greyness and orientation do to a fill: the whole way from the file to the result."""

from __future__ import annotations

import re

import numpy as np
import pytest
from fake_model import FakeModel
from PIL import Image

from mmif.inpaint import Inpainter, Job
from mmif.inpaint.strip import comparison_strip

RNG = np.random.default_rng(2)
RGB = RNG.integers(0, 256, (40, 50, 3), np.uint8)
HOLE = np.zeros((40, 50), bool)
HOLE[10:20, 12:24] = True
HIDDEN = np.zeros((40, 50), bool)
HIDDEN[5:30, 24:40] = True  # it touches the hole


class EchoModel(FakeModel):
    """Fills with the mean of all that it is told is known, in colour: evidence that leaks changes the fill."""

    def __call__(self, image, hole, *args, **kwargs):
        output = super().__call__(image, hole, *args, **kwargs)
        known = 1 - hole
        colour = (image * known).sum((2, 3)) / known.sum((2, 3)).clamp(min=1)
        output.image = colour[:, :, None, None].expand_as(image) * hole + image * known
        return output


@pytest.fixture
def pipe() -> Inpainter:
    return Inpainter(EchoModel())


def with_hidden(colours) -> np.ndarray:
    rgba = np.dstack([RGB, np.full((40, 50), 255, np.uint8)])
    rgba[HIDDEN, :3] = colours
    rgba[HIDDEN, 3] = 0
    return rgba


def test_what_alpha_hides_is_no_evidence(pipe):
    photos = [with_hidden(0), with_hidden(255), with_hidden(RNG.integers(0, 256, (HIDDEN.sum(), 3)))]
    results = [np.asarray(pipe(photo, HOLE).image) for photo in photos]
    for photo, result in zip(photos, results, strict=True):
        assert np.array_equal(result[HOLE], results[0][HOLE])
        assert np.array_equal(result[~HOLE], photo[~HOLE])  # rubbish and all
        assert (result[HOLE, 3] == 255).all()
    assert not np.array_equal(results[0][HOLE, :3], RGB[HOLE])


def test_a_transparent_hole_becomes_opaque_with_a_word(pipe):
    photo = np.dstack([RGB, np.where(HOLE, 0, 255).astype(np.uint8)])
    result = pipe(photo, HOLE)
    assert (np.asarray(result.image)[..., 3] == 255).all()
    assert result.notes == ["the hole is transparent (alpha 0) in places: the fill is opaque there"]
    assert np.array_equal(result.photo.alpha, photo[..., 3])


@pytest.mark.parametrize("mode", ["RGB", "P", "L", "LA", "RGBA"])
def test_a_grey_photograph_gets_a_grey_fill_whatever_it_is_stored_as(mode, tmp_path):
    pipe = Inpainter(ColourModel())
    grey = Image.fromarray(RGB[..., 0])
    grey.convert(mode).save(tmp_path / "a.png")
    result = np.asarray(pipe(tmp_path / "a.png", HOLE).image.convert("RGB"))
    assert np.ptp(result, axis=2).max() == 0
    assert np.array_equal(result[~HOLE], np.repeat(RGB[..., :1], 3, 2)[~HOLE])


class ColourModel(FakeModel):
    """Fills with red."""

    def __call__(self, image, *args, **kwargs):
        output = super().__call__(image, *args, **kwargs)
        output.image = -output.image.abs() / output.image.abs()
        output.image[:, 0] = 1
        return output


def test_a_coloured_photograph_keeps_a_coloured_fill():
    result = np.asarray(Inpainter(ColourModel(), seam="none")(RGB, HOLE).image)
    assert (result[HOLE] == (255, 0, 0)).all()


def test_16_bits_go_through(pipe, tmp_path):
    deep = RNG.integers(0, 65536, (40, 50), np.uint16)
    Image.fromarray(deep).save(tmp_path / "a.png")
    filled = pipe(tmp_path / "a.png", HOLE)
    filled.save(tmp_path / "out.png")
    strip = np.asarray(comparison_strip(filled))
    assert np.array_equal(strip[:, -50:][~HOLE], filled.photo.rgb[~HOLE])
    with Image.open(tmp_path / "out.png") as image:
        result = np.asarray(image)
    assert result.dtype == np.uint16
    assert np.array_equal(result[~HOLE], deep[~HOLE])
    assert (result[HOLE] % 257 == 0).all()


@pytest.mark.parametrize("companion", ["mask", "segmentation", "edge", "segmentation_mask", "edge_mask"])
def test_every_companion_is_turned_as_its_photograph(tmp_path, companion):
    model = FakeModel()
    planes = {
        "mask": HOLE, "segmentation": HOLE.astype(np.uint8), "edge": HIDDEN, "segmentation_mask": HIDDEN,
        "edge_mask": HOLE,
    }  # fmt: skip
    exif = Image.Exif()
    exif[0x0112] = 6
    for name, plane in planes.items():
        values = plane.astype(np.uint8) * (1 if name == "segmentation" else 255)
        Image.fromarray(values).save(tmp_path / f"{name}.png")
        Image.fromarray(np.rot90(values)).save(tmp_path / f"{name}-turned.png", exif=exif)
    calls = []
    for turned in ("", "-turned"):
        files = {name: tmp_path / f"{name}{turned if name == companion else ''}.png" for name in planes}
        (result,) = Inpainter(model).batch([Job(RGB, **files)])
        calls.append((model.calls.pop(), result))
    (plain, first), (turned, second) = calls
    for name in ("image", "hole", "seg", "seg_hole", "edge", "edge_hole"):
        assert np.array_equal(getattr(plain, name), getattr(turned, name)), name
    assert first.notes == []
    what = {"edge": "edge map"}.get(companion, companion.replace("_", " "))
    assert second.notes == [f"the {what} was turned upright as its EXIF says"]


def test_the_photograph_as_its_own_mask_names_the_file(pipe, tmp_path):
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(
        ValueError, match=r"a\.png: the mask must show the hole, white on black; this is the photograph"
    ):
        pipe(tmp_path / "a.png", tmp_path / "a.png")


def test_notes_of_the_mask_come_with_the_result(pipe):
    layer = np.full((40, 50, 4), 255, np.uint8)
    layer[..., 3] = HOLE * 255
    result = pipe(RGB, layer)
    assert np.array_equal(result.hole, HOLE)
    assert result.notes == [
        "the mask has one colour only: its alpha was read, opaque = white (--invert-mask: transparent = hole)"
    ]


def test_a_bad_photograph_costs_no_good_one(pipe, tmp_path):
    """Whatever is wrong with it: the others are filled."""
    Image.fromarray(RGB).save(tmp_path / "good.png")
    whole = (tmp_path / "good.png").read_bytes()
    bad = {"cut.png": whole[:200], "text.png": b"text", "empty.png": b"", "header.png": whole[:16] + bytes(99)}
    for name, content in bad.items():
        (tmp_path / name).write_bytes(content)
    names = ["good.png", *bad, "good.png"]
    results = list(pipe.attempts(Job(tmp_path / name, HOLE) for name in names))
    for name, result in zip(names, results, strict=True):
        if name in bad:
            assert isinstance(result, ValueError)
            assert re.match(f"{tmp_path / name}: (not an image that can be|must be a whole image)", str(result))
        else:
            assert not isinstance(result, Exception)
