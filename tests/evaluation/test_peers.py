import sys

import numpy as np
import pytest

from mmif.evaluation.peers import BASELINES, Baseline, patchmatch, telea

every = pytest.mark.parametrize("fill", BASELINES.values(), ids=BASELINES.keys())


def photograph(size: int = 48) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (size, size, 3), dtype=np.uint8)


def box(size: int = 48) -> np.ndarray:
    hole = np.zeros((size, size), bool)
    hole[10:30, 15:40] = True
    return hole


@every
def test_known_pixels_are_byte_identical_and_the_input_stays(fill: Baseline):
    rgb, hole = photograph(), box()
    before = rgb.copy()
    filled = fill(rgb, hole)
    assert filled.dtype == np.uint8
    assert np.array_equal(filled[~hole], rgb[~hole])
    assert not np.array_equal(filled[hole], rgb[hole])
    assert np.array_equal(rgb, before)


@every
def test_pixels_under_the_hole_are_never_read(fill: Baseline):
    rgb, hole = photograph(), box()
    assert np.array_equal(fill(rgb, hole), fill(np.where(hole[..., None], 255 - rgb, rgb), hole))


@every
def test_a_flat_photograph_is_filled_with_its_own_colours(fill: Baseline):
    rgb = np.broadcast_to(np.array([200, 100, 10], np.uint8), (48, 48, 3)).copy()
    assert np.abs(fill(rgb, box()).astype(int) - rgb).max() <= 5  # OpenCV loses a few levels


@every
@pytest.mark.parametrize("known", [1, 20])
def test_a_nearly_full_hole_is_filled(fill: Baseline, known: int):
    rgb, hole = photograph(), np.ones((48, 48), bool)
    hole.flat[:: 48 * 48 // known] = False
    assert np.array_equal(fill(rgb, hole)[~hole], rgb[~hole])


@every
def test_nothing_to_fill_gives_a_copy(fill: Baseline):
    rgb = photograph()
    filled = fill(rgb, np.zeros((48, 48), bool))
    assert np.array_equal(filled, rgb)
    assert not np.shares_memory(filled, rgb)


@every
def test_nothing_known_is_an_error(fill: Baseline):
    with pytest.raises(ValueError, match="at least one known pixel"):
        fill(photograph(), np.ones((48, 48), bool))


@every
@pytest.mark.parametrize(
    ("rgb", "hole", "message"),
    [
        (np.zeros((48, 48), np.uint8), box(), "image must be uint8"),
        (np.zeros((48, 48, 3), np.float32), box(), "image must be uint8"),
        (photograph(), box(40), "hole must be bool"),
        (photograph(), box().astype(np.uint8), "hole must be bool"),
    ],
)
def test_wrong_arrays_are_refused(fill: Baseline, rgb: np.ndarray, hole: np.ndarray, message: str):
    with pytest.raises(ValueError, match=message):
        fill(rgb, hole)


def test_patchmatch_repeats_and_continues_texture_that_diffusion_smears():
    stripes = np.where(np.arange(48)[None, :, None] // 4 % 2 == 0, 230, 20).astype(np.uint8)
    rgb, hole = np.broadcast_to(stripes, (48, 48, 3)).copy(), box()
    first = patchmatch(rgb, hole)
    assert np.array_equal(first, patchmatch(rgb, hole))
    error = {fill: np.abs(fill(rgb, hole).astype(int) - rgb)[hole].mean() for fill in (patchmatch, telea)}
    assert error[patchmatch] < 0.7 * error[telea]


@pytest.mark.parametrize(
    ("module", "name", "distribution"),
    [("cv2", "telea", "opencv-python-headless"), ("patchmatch", "patchmatch", "pypatchmatch")],
)
def test_a_missing_library_is_named(monkeypatch: pytest.MonkeyPatch, module: str, name: str, distribution: str):
    for loaded in [n for n in sys.modules if n.split(".")[0] == module]:
        monkeypatch.delitem(sys.modules, loaded)
    monkeypatch.setitem(sys.modules, module, None)
    with pytest.raises(ValueError, match=rf"pip install {distribution}`.*mminvertfill\[eval\]"):
        BASELINES[name](photograph(), box())
