from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from safetensors.torch import load_file, save

from mmif.backbones.mobilenet import MobileNetV2
from mmif.data import kmeans


@pytest.fixture(scope="module")
def net() -> MobileNetV2:
    torch.manual_seed(0)
    return MobileNetV2().fold().requires_grad_(False)


def photographs(count: int) -> torch.Tensor:
    coarse = torch.from_numpy(np.random.default_rng(0).integers(0, 256, (count, 3, 4, 4)).astype(np.float32))
    return F.interpolate(coarse, (32, 32), mode="nearest").to(torch.uint8)


def test_finds_separate_clusters_most_frequent_first():
    truth = torch.tensor([[0.0, 0], [10, 0], [0, 10], [-10, -10]])
    sizes = [400, 300, 200, 100]
    x = torch.cat([c + torch.randn(n, 2) for c, n in zip(truth, sizes, strict=True)])
    x = x[torch.randperm(len(x))]
    torch.testing.assert_close(kmeans._lloyd(x, 4), truth, atol=0.4, rtol=0)


def test_labels_are_the_nearest_centres(net: MobileNetV2, tmp_path: Path):
    images = photographs(6)
    path = tmp_path / "labels.safetensors"
    kmeans.fit(net, images.split(2), 4, path)
    labeller = kmeans.load(net, path)
    labels = labeller(images[:1])
    assert labels.shape == (1, 32, 32)
    assert labels.dtype == torch.uint8

    # the plain way: concatenate the upsampled features, project, compare distances
    x = F.interpolate(images[:1].float() / 255, (256, 256), mode="bilinear")
    maps = [F.interpolate(F.normalize(f), (32, 32), mode="bilinear") for f in net.features(x, (6, 13, 17))]
    stored = load_file(path)
    rows = torch.cat(maps, 1).permute(0, 2, 3, 1).reshape(-1, 448) - stored["mean"]
    distances = torch.cdist(rows @ stored["components"].T, stored["centres"])
    expected = distances.argmin(1).view(32, 32)
    gap = distances.topk(2, largest=False).values.diff().view(32, 32)
    assert len(expected.unique()) > 1
    assert torch.equal(labels[0][gap > 1e-4], expected[gap > 1e-4].to(torch.uint8))
    assert (gap > 1e-4).float().mean() > 0.9


def test_the_same_photographs_give_the_same_file(net: MobileNetV2, tmp_path: Path):
    for name in ("a", "b"):
        kmeans.fit(net, photographs(3).split(2), 3, tmp_path / name)
    assert (tmp_path / "a").read_bytes() == (tmp_path / "b").read_bytes()
    assert sorted(p.name for p in tmp_path.iterdir()) == ["a", "b"]


def test_too_few_photographs(net: MobileNetV2, tmp_path: Path):
    with pytest.raises(ValueError, match="at least 12 training photographs, got 2"):
        kmeans.fit(net, photographs(2).split(2), 12, tmp_path / "labels")


@pytest.mark.parametrize("damage", ["text", "other"])
def test_damaged_centres(net: MobileNetV2, tmp_path: Path, damage: str):
    path = tmp_path / "labels.safetensors"
    if damage == "text":
        path.write_text("not a safetensors file")
    else:
        path.write_bytes(save({"mean": torch.zeros(3)}))
    with pytest.raises(ValueError, match=r"labels.safetensors must hold the label centres"):
        kmeans.load(net, path)
