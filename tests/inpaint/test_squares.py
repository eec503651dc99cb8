"""Squares round holes, the way to the model's size and back, and the seam."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from mmif.inpaint.plan import plan_crops
from mmif.inpaint.seam import match_seam
from mmif.inpaint.squares import (
    Box,
    paste,
    paste_map,
    scale_edges,
    scale_hole,
    scale_image,
    scale_labels,
)

RNG = np.random.default_rng(3)


def hole_of(height: int, width: int, *boxes: tuple[int, int, int, int]) -> np.ndarray:
    hole = np.zeros((height, width), bool)
    for x0, y0, x1, y1 in boxes:
        hole[y0:y1, x0:x1] = True
    return hole


def test_the_square_has_a_margin_and_is_no_smaller_than_the_model():
    (crop,) = plan_crops(hole_of(500, 800, (300, 200, 400, 260)), 128, margin=0.5)
    assert (crop.square, crop.target) == (Box(250, 130, 450, 330), Box(300, 200, 400, 260))
    (crop,) = plan_crops(hole_of(500, 800, (300, 200, 310, 210)), 128)
    assert (crop.square.width, crop.square.height) == (128, 128)


def test_at_the_border_the_square_moves_inside():
    (crop,) = plan_crops(hole_of(500, 800, (0, 480, 100, 500)), 128)
    assert crop.square == Box(0, 300, 200, 500)


def test_only_a_hole_longer_than_the_short_side_makes_the_square_reach_beyond():
    (crop,) = plan_crops(hole_of(100, 400, (30, 20, 90, 80)), 128)
    assert (crop.square.y0, crop.square.y1) == (0, 100)
    (crop,) = plan_crops(hole_of(100, 400, (50, 20, 350, 80)), 128)
    assert (crop.square.width, crop.square.y0, crop.square.y1) == (300, -100, 200)


def test_holes_far_apart_get_squares_of_their_own():
    near = hole_of(1000, 1000, (100, 100, 150, 150), (160, 100, 190, 150))
    far = hole_of(1000, 1000, (0, 0, 50, 50), (900, 900, 950, 950))
    assert [len(plan_crops(hole, 128)) for hole in (near, far)] == [1, 2]


def test_beyond_the_borders_the_picture_is_mirrored():
    rows = np.arange(6, dtype=np.uint8).reshape(2, 3)
    assert scale_labels(rows, Box(0, -1, 3, 2), 3).tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert scale_labels(rows.T, Box(-1, 0, 2, 3), 3).T.tolist() == [[0, 1, 2], [0, 1, 2], [3, 4, 5]]
    assert (scale_image(np.full((1, 1, 3), 7, np.uint8), Box(-4, -4, 5, 5), 9) == 7).all()


@pytest.mark.parametrize("shape", [(7, 90), (90, 7)])
@pytest.mark.parametrize("scale", [scale_image, scale_hole, scale_edges, scale_labels])
def test_a_strip_is_seen_as_if_it_were_mirrored_first(scale, shape):
    plane = RNG.integers(0, 256, shape, np.uint8)
    plane = plane > 200 if scale in (scale_hole, scale_edges) else plane
    (crop,) = plan_crops(np.ones(shape, bool), 32)
    reach = [(42, 41) if length == 7 else (0, 0) for length in shape]
    whole = np.pad(plane, reach, mode="symmetric")
    expected = scale(whole, Box(0, 0, 90, 90), 32)
    # The axes are averaged in another order where columns are missing, with a rounding in between.
    assert np.abs(scale(plane, crop.square, 32).astype(int) - expected).max() <= (shape == (90, 7))


def test_a_long_strip_takes_memory_in_proportion_to_its_length():
    plane = np.zeros((10, 20_000, 3), np.uint8)
    (crop,) = plan_crops(np.ones((10, 20_000), bool), 32)
    tracemalloc.start()
    scale_image(plane, crop.square, 32)
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert peak < 10e6  # its square is of 1.2 GB


@pytest.mark.parametrize(("source", "target"), [(1000, 8), (100, 32), (64, 32), (33, 32), (32, 32), (9, 32), (1, 32)])
def test_what_the_hole_holds_never_reaches_a_known_pixel(source, target):
    known, box = RNG.integers(0, 256, (source, source, 3), np.uint8), Box(0, 0, source, source)
    hole = RNG.random((source, source)) < min(0.02, 2 / source**2 if source > 500 else 1)
    scaled_hole = scale_hole(hole, box, target)
    black, white = (scale_image(np.where(hole[..., None], np.uint8(v), known), box, target) for v in (0, 255))
    assert np.array_equal(black[~scaled_hole], white[~scaled_hole])
    assert scaled_hole.any() == hole.any()


def test_a_thin_edge_survives_a_reduction_and_labels_stay_labels():
    edges = np.zeros((256, 256), bool)
    edges[:, 100] = True
    small = scale_edges(edges, Box(0, 0, 256, 256), 32)
    assert small.any(axis=1).all()
    assert small.mean() < 0.07
    assert np.array_equal(scale_edges(small, Box(0, 0, 32, 32), 32), small)
    labels = RNG.choice(np.array([0, 7, 255], np.uint8), (100, 100))
    assert set(np.unique(scale_labels(labels, Box(0, 0, 100, 100), 32))) <= {0, 7, 255}


@pytest.mark.parametrize("side", [16, 32, 64])
def test_a_fill_lands_where_it_belongs(side):
    """A picture that goes through the model unchanged comes back in place, whatever the scale."""
    y, x = np.mgrid[0:90, 0:120]
    truth = np.stack([x * 2, y * 2, x + y], axis=2).astype(np.uint8)
    hole = hole_of(90, 120, (60, 30, 92, 62))
    rgb = np.where(hole[..., None], np.uint8(0), truth)
    (crop,) = plan_crops(hole, side)
    paste(rgb, scale_image(truth, crop.square, side), hole, crop)
    assert np.abs(rgb.astype(int) - truth).max() <= 4


def test_maps_are_pasted_over_the_whole_square_that_lies_inside():
    hole = hole_of(20, 60, (10, 5, 50, 15))
    (crop,) = plan_crops(hole, 32)
    canvas = np.full((20, 60), 255, np.uint8)
    paste_map(canvas, np.full((32, 32), 3, np.uint8), crop)
    assert np.array_equal(canvas == 3, hole_of(20, 60, (10, 0, 50, 20)))


# The seam

SEEN = np.full((64, 64, 3), (200, 100, 50), np.uint8)
HOLE = hole_of(64, 64, (20, 20, 44, 44))


def test_a_colour_cast_vanishes_at_the_border_and_fades_towards_the_middle():
    fill = np.full((64, 64, 3), (160, 140, 50), np.uint8)
    out = match_seam(fill, SEEN, HOLE).astype(int)
    assert np.abs(out - SEEN)[20, 22:42].max() <= 6
    assert (np.abs(out - SEEN)[32, 32, :2] >= 10).all()
    assert np.array_equal(out[~HOLE], SEEN[~HOLE])


def test_a_fill_that_fits_is_left_alone():
    assert np.array_equal(match_seam(SEEN, SEEN, HOLE), SEEN)


def test_without_known_pixels_there_is_nothing_to_match():
    fill = RNG.integers(0, 256, (64, 64, 3), np.uint8)
    assert np.array_equal(match_seam(fill, SEEN, np.ones((64, 64), bool)), fill)
