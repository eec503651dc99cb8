"""Holes that are grown or drawn."""

from __future__ import annotations

import numpy as np
import pytest

from mmif.images.holes import MAX_GROWTH, boxes, grow


def grown_by_hand(hole: np.ndarray, pixels: int) -> np.ndarray:
    ys, xs = np.nonzero(hole)
    y, x = np.indices(hole.shape)
    square = (y[..., None] - ys) ** 2 + (x[..., None] - xs) ** 2
    return (square <= pixels**2).any(-1)


@pytest.mark.parametrize("pixels", [0, 1, 2, 3, 5, 8, 40])
def test_a_hole_grows_to_all_that_is_so_near(pixels):
    hole = np.random.default_rng(pixels).random((23, 31)) > 0.985
    assert hole.any()
    before = hole.copy()
    assert np.array_equal(grow(hole, pixels), grown_by_hand(hole, pixels))
    assert np.array_equal(hole, before)


@pytest.mark.parametrize("at", [(0, 0), (9, 0), (0, 12), (9, 12), (4, 6)])
@pytest.mark.parametrize("pixels", [1, 4, MAX_GROWTH])
def test_a_hole_at_the_border_grows_inwards(at, pixels):
    hole = np.zeros((10, 13), bool)
    hole[at] = True
    assert np.array_equal(grow(hole, pixels), grown_by_hand(hole, pixels))


def test_an_empty_hole_stays_empty_and_a_full_one_full():
    assert not grow(np.zeros((4, 5), bool), 3).any()
    assert grow(np.ones((4, 5), bool), 3).all()


@pytest.mark.parametrize("pixels", [-1, MAX_GROWTH + 1])
def test_a_growth_out_of_range_is_refused(pixels):
    with pytest.raises(ValueError, match=rf"grown by 0\.\.1000 pixels, got {pixels}"):
        grow(np.ones((4, 5), bool), pixels)


def test_boxes_are_drawn_where_they_are_said_to_be():
    hole = boxes((9, 6), [(1, 2, 3, 1), (2, 2, 7, 4), (0, 0, 1, 1)])
    wanted = np.zeros((6, 9), bool)
    wanted[2, 1:4] = True
    wanted[2:6, 2:9] = True
    wanted[0, 0] = True
    assert np.array_equal(hole, wanted)
    assert boxes((9, 6), [(0, 0, 9, 6)]).all()
    assert not boxes((9, 6), []).any()


@pytest.mark.parametrize(
    ("box", "line"),
    [
        ((1, 2, 9, 1), r"inside the photograph, 9 x 6; 1,2,9,1 \(x,y,width,height\) reaches from 1,2 to 10,3"),
        ((1, 2, 1, 5), "to 2,7"),
        ((-1, 2, 1, 1), "from -1,2"),
        ((1, -2, 1, 4), "from 1,-2"),
        ((1, 2, 0, 1), "at least one pixel wide and high; got 1,2,0,1"),
        ((1, 2, 1, 0), "at least one pixel"),
        ((1, 2, -3, 1), "at least one pixel"),
        ((1, 2, 3), "must be x,y,width,height; got 1,2,3"),
    ],
)
def test_a_box_that_cannot_be_drawn_is_refused(box, line):
    with pytest.raises(ValueError, match=line):
        boxes((9, 6), [(0, 0, 1, 1), box])
