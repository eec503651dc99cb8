import math

import numpy as np
import pytest
import torch
from skimage.metrics import structural_similarity

from mmif.evaluation import metrics


def batch(
    n: int = 3, height: int = 24, width: int = 37, seed: int = 0
) -> tuple[torch.Tensor, torch.Tensor, torch.Tensor]:
    """Random photographs, noisy copies of them, and holes of very different sizes."""
    rng = np.random.default_rng(seed)
    reference = rng.integers(0, 256, (n, 3, height, width), dtype=np.uint8)
    noise = rng.normal(0, np.array([2, 20, 80])[:n, None, None, None], reference.shape)
    candidate = np.clip(reference + noise, 0, 255).astype(np.uint8)
    hole = rng.random((n, 1, height, width)) < np.array([0.01, 0.4, 0.9])[:n, None, None, None]
    hole[:, :, 0, 0] = True
    return torch.from_numpy(reference), torch.from_numpy(candidate), torch.from_numpy(hole)


def test_psnr_and_l1_are_those_of_the_hole_pixels_alone():
    reference, candidate, hole = batch()
    for i in range(3):
        where = hole[i, 0].numpy()
        a, b = (x[i].numpy()[:, where].astype(float) for x in (reference, candidate))
        expected = 10 * math.log10(255**2 / ((a - b) ** 2).mean())
        assert metrics.psnr(reference, candidate, hole)[i].item() == pytest.approx(expected, abs=1e-9)
        assert metrics.l1(reference, candidate, hole)[i].item() == pytest.approx(np.abs(a - b).mean(), abs=1e-9)


@pytest.mark.parametrize(("height", "width"), [(24, 37), (11, 11), (64, 13)])
def test_ssim_is_the_mean_over_the_hole_of_the_map_of_scikit_image(height: int, width: int):
    reference, candidate, hole = batch(3, height, width)
    for i in range(3):
        a, b = (x[i].permute(1, 2, 0).numpy() for x in (reference, candidate))
        _, full = structural_similarity(
            a,
            b,
            data_range=255,
            channel_axis=2,
            gaussian_weights=True,
            sigma=1.5,
            use_sample_covariance=False,
            full=True,
        )
        expected = full[hole[i, 0].numpy()].mean()
        assert metrics.ssim(reference, candidate, hole)[i].item() == pytest.approx(expected, abs=1e-9)


def test_identical_photographs_are_perfect():
    reference, _, hole = batch()
    assert metrics.psnr(reference, reference, hole).tolist() == [metrics.MAX_PSNR] * 3
    assert metrics.ssim(reference, reference, hole).tolist() == pytest.approx([1.0] * 3)
    assert metrics.l1(reference, reference, hole).tolist() == [0.0] * 3


def test_known_pixels_do_not_count():
    reference, candidate, hole = batch()
    other = torch.where(hole, candidate, 255 - candidate)
    for metric in (metrics.psnr, metrics.l1):
        torch.testing.assert_close(metric(reference, candidate, hole), metric(reference, other, hole), rtol=0, atol=0)


def test_flat_bright_regions_keep_their_precision():
    reference = torch.full((1, 3, 16, 16), 250, dtype=torch.uint8)
    candidate = reference + torch.arange(16, dtype=torch.uint8).remainder(2)
    hole = torch.ones(1, 1, 16, 16, dtype=torch.bool)
    a, b = (x[0].permute(1, 2, 0).numpy() for x in (reference, candidate))
    expected = structural_similarity(
        a, b, data_range=255, channel_axis=2, gaussian_weights=True, sigma=1.5, use_sample_covariance=False, full=True
    )[1].mean()
    assert metrics.ssim(reference, candidate, hole).item() == pytest.approx(expected, abs=1e-9)


def test_an_estimate_has_the_standard_error_of_the_mean():
    result = metrics.estimate([1.0, 2.0, 3.0, 4.0])
    assert (result.n, result.mean) == (4, 2.5)
    assert result.stderr == pytest.approx(np.std([1, 2, 3, 4], ddof=1) / 2)
    assert math.isnan(metrics.estimate([7.0]).stderr)
    with pytest.raises(ValueError, match="at least one value"):
        metrics.estimate([])


def test_a_win_is_paired_and_a_tie_counts_half():
    ours, theirs = [1.0, 5.0, 3.0, 2.0], [2.0, 4.0, 3.0, 1.0]
    assert metrics.win_share(ours, theirs, higher_is_better=True) == 2.5 / 4
    assert metrics.win_share(ours, theirs, higher_is_better=False) == 1.5 / 4
    with pytest.raises(ValueError, match="4 and 3"):
        metrics.win_share(ours, theirs[:3], higher_is_better=True)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda a, b, h: (a.float(), b, h), "reference must be uint8"),
        (lambda a, b, h: (a, b[:, :1], h), "candidate must be uint8"),
        (lambda a, b, h: (a, b[..., 1:], h), "one shape"),
        (lambda a, b, h: (a, b, h.float()), "hole must be bool"),
        (lambda a, b, h: (a, b, h[:, 0]), "hole must be bool"),
        (lambda a, b, h: (a, b, h & (torch.arange(3) > 0)[:, None, None, None]), "empty hole"),
    ],
)
@pytest.mark.parametrize("metric", [metrics.psnr, metrics.ssim, metrics.l1])
def test_wrong_input_is_refused(metric, change, message: str):
    with pytest.raises(ValueError, match=message):
        metric(*change(*batch()))


def test_ssim_refuses_pictures_smaller_than_its_window():
    with pytest.raises(ValueError, match="at least 11 pixels"):
        metrics.ssim(*batch(3, 10, 40))


def test_features_that_are_equal_cannot_be_told_apart():
    features = torch.randn(50, 8)
    assert metrics.discriminative_scores(features, features) == (0.0, 0.5)  # P-IDS counts strict wins only


def test_features_that_are_far_apart_are_always_told_apart():
    features = torch.randn(50, 8)
    assert metrics.discriminative_scores(features + 10, features - 10) == (0.0, 0.0)


def test_features_that_overlap_score_in_between():
    torch.manual_seed(0)
    real, fake = torch.randn(400, 2), torch.randn(400, 2)
    real[:, 0] += 0.3  # of a difference with deviation 1.4: 42 % of the pairs are the other way round
    paired, unpaired = metrics.discriminative_scores(real, fake)
    assert 0.35 < paired < 0.48
    assert 0.35 < unpaired < 0.5


@pytest.mark.parametrize("shapes", [((4, 2), (5, 2)), ((4,), (4,)), ((1, 2), (1, 2))])
def test_features_of_other_shapes_are_refused(shapes):
    with pytest.raises(ValueError, match="N >= 2"):
        metrics.discriminative_scores(*(torch.zeros(s) for s in shapes))
