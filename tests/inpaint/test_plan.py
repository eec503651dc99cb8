"""Where the squares go: near the model's own scale along thin holes, as wide as it takes round compact ones."""

from __future__ import annotations

import time
import tracemalloc
from pathlib import Path

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from PIL import Image, ImageDraw

from mmif.images.labels import UNKNOWN
from mmif.inpaint.plan import plan_crops
from mmif.inpaint.request import Job
from mmif.inpaint.result import prepare
from mmif.inpaint.squares import Box, Crop, paste_map
from mmif.inpaint.thickness import Cells

EXAMPLES = Path(__file__).parents[2] / "examples"
RNG = np.random.default_rng(5)


def hole_of(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        hole[y0:y1, x0:x1] = True
    return hole


def drawn(width: int, height: int, *strokes: tuple[str, tuple, dict]) -> np.ndarray:
    """A hole made with calls of ImageDraw."""
    image = Image.new("L", (width, height))
    for shape, where, options in strokes:
        getattr(ImageDraw.Draw(image), shape)(*where, fill=255, **options)
    return np.asarray(image) > 0


def spots(width: int, height: int, places: list[tuple[int, int]], radius: int) -> np.ndarray:
    return drawn(
        width,
        height,
        *(("ellipse", ((x - radius, y - radius, x + radius, y + radius),), {}) for x, y in places),
    )


def holds(outer: Box, inner: Box) -> bool:
    return outer.x0 <= inner.x0 and outer.y0 <= inner.y0 and inner.x1 <= outer.x1 and inner.y1 <= outer.y1


def sides(crops: list[Crop]) -> set[int]:
    return {crop.square.width for crop in crops}


@st.composite
def holes(draw) -> np.ndarray:
    """Rectangles, lines, dust: thin and thick, apart and across each other."""
    height, width = draw(st.integers(1, 200)), draw(st.integers(1, 200))
    at = st.tuples(*[st.integers(0, 199)] * 4)
    hole = hole_of(height, width, *draw(st.lists(at, max_size=6)))
    lines = [("line", (line,), {"width": 2}) for line in draw(st.lists(at, max_size=4))]
    hole |= drawn(width, height, *lines)
    hole |= np.random.default_rng(draw(st.integers(0, 9))).random(hole.shape) < draw(st.sampled_from([0, 0.01, 0.3]))
    hole &= np.random.default_rng(draw(st.integers(0, 9))).random(hole.shape) >= draw(st.sampled_from([0, 0.01]))
    return hole


@settings(max_examples=150, deadline=None)
@given(holes(), st.sampled_from([4, 16, 32, 64]), st.sampled_from([0.0, 0.5, 10.0]))
def test_every_hole_pixel_is_the_business_of_one_square(hole, side, margin):
    crops = plan_crops(hole, side, margin)
    height, width = hole.shape
    served = np.zeros(hole.shape, int)
    for crop in crops:
        crop.target.of(served)[...] += 1
        square = crop.square
        assert crop.target.of(hole).any()
        assert square.width == square.height <= max(height, width)
        assert square.width >= min(side, height, width)
        assert holds(square.clip(width, height), crop.target)  # it sees all that it fills
    assert served.max(initial=0) <= 1
    assert (served[hole] == 1).all()
    assert len(crops) <= 32 * (height // side + 1) * (width // side + 1)
    assert bool(crops) == bool(hole.any())


@pytest.mark.parametrize(
    ("box", "square"),
    [
        ((300, 200, 400, 260), Box(250, 130, 450, 330)),
        ((300, 200, 900, 800), Box(100, 0, 1100, 1000)),
        ((300, 200, 310, 210), Box(241, 141, 369, 269)),
        ((0, 0, 300, 80), Box(0, 0, 600, 600)),
        ((1100, 100, 1200, 500), Box(400, 0, 1200, 800)),
        ((0, 0, 1200, 1000), Box(0, -100, 1200, 1100)),
    ],
)
def test_a_compact_hole_gets_one_square_with_the_margin_round_it(box, square):
    assert plan_crops(hole_of(1000, 1200, box), 128) == [Crop(square, Box(*box))]


def test_round_and_ragged_holes_are_compact_too():
    disc = drawn(1000, 1000, ("ellipse", ((300, 300, 700, 700),), {}))
    diamond = drawn(1000, 1000, ("polygon", ([(500, 200), (800, 500), (500, 800), (200, 500)],), {}))
    person = drawn(
        1000,
        1000,
        ("ellipse", ((460, 200, 560, 310),), {}),
        ("rectangle", ((430, 300, 590, 560),), {}),
        ("line", ((440, 320, 360, 520),), {"width": 40}),
        ("line", ((470, 550, 450, 800),), {"width": 70}),
        ("line", ((550, 550, 570, 800),), {"width": 70}),
    )
    ragged = disc & (RNG.random(disc.shape) > 0.01)  # stray known pixels inside show nothing
    for hole in (disc, diamond, person, ragged):
        assert len(plan_crops(hole, 128)) == 1


def test_the_bundled_examples_are_seen_whole():
    """Photographs of at most twice the model's side show their scene in one square, whatever the hole's shape."""
    mask = np.asarray(Image.open(EXAMPLES / "mask.png").convert("L")) > 127
    assert plan_crops(mask, 128) == [Crop(Box(2, -49, 243, 192), Box(2, 42, 243, 130))]
    mask = np.asarray(Image.open(EXAMPLES / "scenes" / "launch_mask.png").convert("L")) > 127
    assert plan_crops(mask, 128) == [Crop(Box(109, 0, 536, 427), Box(288, 112, 358, 408))]


# Thin and scattered holes


@pytest.mark.parametrize("count", [8, 16, 17, 40])
def test_each_spot_of_dust_is_seen_at_the_model_s_own_scale_however_many_there_are(count):
    places = [(200 + 400 * (k % 8), 200 + 400 * (k // 8)) for k in range(count)]
    crops = plan_crops(spots(3300, 2400, places, 4), 128)
    assert len(crops) == count
    assert sides(crops) == {128}
    assert {(crop.target.width, crop.target.height) for crop in crops} == {(9, 9)}


def test_a_spot_s_square_depends_on_no_other_spot_far_away():
    places = [(200 + 400 * (k % 8), 200 + 400 * (k // 8)) for k in range(40)]
    few, many = (plan_crops(spots(3300, 2400, places[:count], 20), 128) for count in (16, 40))
    assert set(few) < set(many)


def test_a_wire_is_followed_at_the_model_s_own_scale():
    wire = drawn(1600, 900, ("line", ([(0, 300), (500, 420), (1100, 430), (1599, 320)],), {"width": 3}))
    crops = plan_crops(wire, 128)
    assert sides(crops) == {128}
    assert len(crops) <= 1600 / 96 + 1  # 96 pixels each, with 16 on both sides
    width, height = wire.shape[::-1]
    for crop in crops:  # wherever the photograph goes on, the model sees on
        x0, y0, x1, y1 = crop.target.x0 - 15, crop.target.y0 - 15, crop.target.x1 + 15, crop.target.y1 + 15
        assert holds(crop.square, Box(x0, y0, x1, y1).clip(width, height))


@pytest.mark.parametrize("size", [40, 120, 170, 240])
def test_a_text_is_seen_near_the_model_s_own_scale(size):
    text = drawn(1600, 900, ("text", ((60, 380), "SAMPLE  SAMPLE"), {"font_size": size}))
    assert max(sides(plan_crops(text, 128))) <= 1.75 * 128


def test_a_scratch_across_a_large_hole_has_squares_of_its_own():
    blob = ("ellipse", ((700, 300, 900, 500),), {})
    scratch = ("line", ((0, 350, 1599, 450),), {"width": 3})
    crops = plan_crops(drawn(1600, 900, blob, scratch), 128)
    (large,) = [crop for crop in crops if crop.square.width > 128]
    assert holds(large.target, Box(705, 305, 895, 495))  # the blob is filled at one go,
    assert large.square.width <= 1.25 * 400  # with the margin that it would have without the scratch


def test_a_ring_does_not_make_what_it_surrounds_small():
    ring = ("ellipse", ((200, 200, 800, 800),), {"outline": 255, "width": 4})
    image = Image.new("L", (1000, 1000))
    ImageDraw.Draw(image).ellipse(ring[1][0], outline=255, width=4)
    ImageDraw.Draw(image).ellipse((490, 490, 510, 510), fill=255)
    crops = plan_crops(np.asarray(image) > 0, 128)
    assert sides(crops) == {128}
    assert Box(490, 490, 511, 511) in [crop.target for crop in crops]


def test_a_long_thick_stroke_is_cut_into_pieces_that_are_longer_than_they_are_thick():
    crops = plan_crops(hole_of(1000, 3000, (100, 400, 2900, 500)), 128)
    assert all(200 <= crop.target.width <= 500 and crop.target.height == 100 for crop in crops)
    assert max(sides(crops)) <= 1000


def test_noise_over_a_large_photograph_is_planned_in_seconds_and_little_memory():
    hole = RNG.random((1200, 2000), np.float32) < 0.01  # 24 000 holes
    tracemalloc.start()
    started = time.perf_counter()
    crops = plan_crops(hole, 128)
    seconds, (_, peak) = time.perf_counter() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert sides(crops) == {128}
    assert len(crops) <= 300  # 96 pixels each would be 273
    assert seconds < 20
    assert peak < 2 * hole.size


def test_a_photograph_of_many_squares_is_not_cut_before_its_turn():
    hole = RNG.random((400, 400)) < 0.02
    job = Job(np.zeros((400, 400, 3), np.uint8), hole)
    tracemalloc.start()
    _, units = prepare(job, 32, 8, 0.5, 1)
    kept = tracemalloc.get_traced_memory()[0]
    tracemalloc.stop()
    assert len(units) > 200
    assert kept < 6 * hole.size < 7000 * len(units)  # the planes of a unit alone take 7 kB


def test_where_squares_overlap_the_map_shows_what_each_filled():
    hole = hole_of(40, 600, (0, 18, 600, 20))
    crops = plan_crops(hole, 32)
    assert len(crops) > 10
    canvas = np.full(hole.shape, UNKNOWN, np.uint8)
    for number, crop in enumerate(crops):
        paste_map(canvas, np.full((32, 32), number, np.uint8), crop)
    for number, crop in enumerate(crops):
        paste_map(canvas, np.full((32, 32), number, np.uint8), crop, crop.target)
    for number, crop in enumerate(crops):
        assert (crop.target.of(canvas) == number).all()
    assert (canvas[10:30] != UNKNOWN).all()


# Local thickness


def true_thickness(hole: np.ndarray) -> np.ndarray:
    """Largest odd side of a square round a hole pixel that holds hole alone, over the pixels that it covers."""
    height, width = hole.shape
    thickness = np.ones(hole.shape)
    for y, x in np.argwhere(hole):
        radius = 0
        while radius < max(hole.shape):
            around = Box(x - radius, y - radius, x + radius + 1, y + radius + 1).clip(width, height)
            if not around.of(hole).all():
                break
            part = around.of(thickness)
            np.maximum(part, 2 * radius + 1, out=part)
            radius += 1
    return thickness


@settings(max_examples=40, deadline=None)
@given(st.lists(st.tuples(*[st.integers(0, 39)] * 4), min_size=1, max_size=5))
@example([(0, 0, 18, 18)])
@example([(0, 0, 16, 17)])
def test_the_thickness_is_that_of_the_largest_square_that_fits(boxes):
    hole = hole_of(40, 40, *boxes)
    measured, expected = Cells.of(hole, 1).thickness, true_thickness(hole)
    exact = hole & (measured < 18)
    assert np.array_equal(measured[exact], expected[exact] + 1)
    if not hole.all():
        assert (measured[hole] >= np.minimum(expected + 1, 18)[hole]).all()
        assert (measured <= 1.2 * expected + 2).all()  # what is thicker is looked for in cells of twice the size


def test_a_hole_at_the_border_is_as_thick_as_if_it_went_on_beyond():
    inside, border = hole_of(400, 400, (100, 100, 300, 200)), hole_of(400, 400, (100, 0, 300, 50))
    thickest = [Cells.of(hole, 1).thickness.max() for hole in (inside, border)]
    assert thickest[0] == pytest.approx(100, rel=0.2)
    assert thickest[1] == pytest.approx(100, rel=0.2)
    assert np.isinf(Cells.of(np.ones((30, 40), bool), 8).thickness).all()


def test_cells_count_what_a_cut_between_them_would_cut():
    hole = RNG.random((50, 70)) < 0.5
    cells = Cells.of(hole, 8)
    for y in range(1, 7):
        assert cells.down[y].sum() == (hole[8 * y] & hole[8 * y - 1]).sum()
    for x in range(1, 9):
        assert cells.right[:, x].sum() == (hole[:, 8 * x] & hole[:, 8 * x - 1]).sum()
    assert cells.some.shape == cells.down.shape == cells.right.shape == (7, 9)
