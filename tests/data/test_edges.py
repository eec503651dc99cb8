from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from mmif.data.edges import canny


def blobs(count: int, size: int = 48) -> torch.Tensor:
    coarse = np.random.default_rng(0).integers(0, 256, (count, 9, 9, 3), np.uint8)
    images = [np.asarray(Image.fromarray(c).resize((size, size), Image.Resampling.BILINEAR)) for c in coarse]
    return torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2)


@pytest.mark.parametrize("sigma", [0.5, 1.0, 2.0])
def test_equals_scikit_image(sigma: float):
    feature = pytest.importorskip("skimage.feature", reason="scikit-image is the oracle")
    color = pytest.importorskip("skimage.color", reason="scikit-image is the oracle")
    images = blobs(8)
    edges = canny(images, sigma)
    assert edges.shape == (8, 1, 48, 48)
    assert edges.dtype == torch.bool
    for image, edge in zip(images, edges, strict=True):
        expected = feature.canny(color.rgb2gray(image.permute(1, 2, 0).numpy()), sigma=sigma)
        assert expected.any()
        # rounding decides where neighbours are equal to the last bit
        assert np.count_nonzero(edge[0].numpy() != expected) <= 0.002 * expected.size


def test_weak_edges_count_only_where_they_touch_a_strong_one():
    step = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    step[..., 8:] = 11  # a step of 0.043: its Sobel response lies between the thresholds
    assert not canny(step, 1.0).any()
    step[..., 8:] += 3 * (torch.arange(32) - 8).clamp_min(0).to(torch.uint8)[:, None]  # ever stronger further down
    assert canny(step, 1.0)[0, 0, 1:31, 7:9].any(1).all()


def test_a_photograph_does_not_depend_on_its_batch():
    images = blobs(3)
    assert torch.equal(canny(images, 1.0)[1:2], canny(images[1:2], 1.0))


def test_no_contrast_no_edge():
    assert not canny(torch.full((1, 3, 20, 20), 130, dtype=torch.uint8), 1.0).any()


def test_sigma_must_be_positive():
    with pytest.raises(ValueError, match="> 0, got 0"):
        canny(blobs(1), 0)
