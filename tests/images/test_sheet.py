"""One picture made of many."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from mmif.images.sheet import as_rgb, in_rows, sheet


def flat(width: int, height: int, level: int) -> np.ndarray:
    return np.full((height, width, 3), level, np.uint8)


def test_pictures_stand_in_rows_and_columns_as_wide_and_high_as_the_largest():
    rows = [[flat(3, 2, 10), flat(5, 4, 20)], [flat(4, 6, 30)]]
    pixels = np.asarray(sheet(rows, gap=2))
    wanted = np.full((4 + 2 + 6, 4 + 2 + 5, 3), 255, np.uint8)
    wanted[:2, :3], wanted[:4, 6:11], wanted[6:12, :4] = 10, 20, 30
    assert np.array_equal(pixels, wanted)


def test_four_pixels_lie_between_neighbours():
    assert sheet([[flat(3, 2, 10)] * 2] * 3).size == (3 + 4 + 3, 2 + 4 + 2 + 4 + 2)


def test_words_stand_above_and_left_of_the_pictures():
    plain = np.asarray(sheet([[flat(60, 30, 10)]]))
    pixels = np.asarray(sheet([[flat(60, 30, 10)]], titles=["title"], labels=["label"]))
    assert pixels.shape == (30 + 16, 60 + 52, 3)
    assert np.array_equal(pixels[16:, 52:], plain)
    assert pixels[:16, 52:].min() < 50
    assert pixels[16:, :52].min() < 50
    assert (pixels[:16, :52] == 255).all()
    assert (pixels[:2] == 255).all()


def test_more_words_than_pictures_are_cut():
    assert sheet([[flat(60, 30, 10)]], titles=["a", "b"]).size == (60, 46)


@pytest.mark.parametrize("rows", [[], [[]], [[], []]])
def test_a_sheet_needs_a_picture(rows):
    with pytest.raises(ValueError, match="a sheet needs at least one picture, got none"):
        sheet(rows)


def test_a_list_breaks_into_rows():
    pictures = [flat(1, 1, level) for level in range(5)]
    assert [[int(p[0, 0, 0]) for p in row] for row in in_rows(pictures, 2)] == [[0, 1], [2, 3], [4]]
    assert in_rows([], 2) == []


@pytest.mark.parametrize(
    ("picture", "wanted"),
    [
        (np.array([[0, 200]], np.uint8), [0, 200]),
        (np.array([[False, True]]), [0, 255]),
        (Image.fromarray(np.array([[0, 200 * 257]], np.uint16)), [0, 200]),
        (Image.fromarray(np.array([[0, 65535]], np.int32)), [0, 255]),
        (flat(2, 1, 9), [9, 9]),
    ],
    ids=["grey", "bool", "16-bit", "int32", "rgb"],
)
def test_any_picture_is_shown_in_rgb(picture, wanted):
    image = as_rgb(picture)
    assert image.mode == "RGB"
    assert np.asarray(image).tolist() == [[[level] * 3 for level in wanted]]
