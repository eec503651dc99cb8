"""The perceptual loss: zero for equal images, feature sizes of the paper's network, clear errors."""

import pytest
import torch

import mmif.train.perceptual
from mmif.backbones.mobilenet import MobileNetV2
from mmif.backbones.resnet50 import ResNet50Dilated, load_resnet50_ade20k
from mmif.backbones.weights import find_weights
from mmif.train.perceptual import HRFLoss


@pytest.fixture
def resnet_file(tmp_path):
    torch.save(ResNet50Dilated().state_dict(), tmp_path / "encoder.pth")
    return tmp_path / "encoder.pth"


def test_resnet_features_have_the_papers_sizes():
    features = ResNet50Dilated().eval()(torch.rand(1, 3, 64, 64))
    assert [tuple(f.shape[1:]) for f in features] == [(256, 16, 16), (512, 8, 8), (1024, 8, 8), (2048, 8, 8)]


def test_equal_images_have_no_distance(resnet_file):
    loss = HRFLoss("resnet50_ade20k", resnet_file)
    x = torch.rand(1, 3, 32, 32) * 2 - 1
    assert loss(x, x).item() == 0.0
    assert loss(x, -x).item() > 0.0


def test_gradient_reaches_the_first_image_only(monkeypatch):
    monkeypatch.setattr(mmif.train.perceptual, "mobilenet_v2", lambda weights: MobileNetV2().fold())
    loss = HRFLoss("mobilenet_v2")
    x, y = (torch.rand(1, 3, 64, 64, requires_grad=True) for _ in range(2))
    loss.train()(x, y).backward()
    assert not loss.training
    assert x.grad.abs().max() > 0
    assert y.grad is None
    assert all(p.grad is None for p in loss.parameters())


def test_missing_weights_say_what_to_give():
    with pytest.raises(ValueError, match="--perceptual-weights"):
        load_resnet50_ade20k(None)
    with pytest.raises(ValueError, match="cannot be read"):
        load_resnet50_ade20k("/nowhere.pth")


def test_wrong_weights_are_named(tmp_path):
    torch.save({"conv1.weight": torch.zeros(1)}, tmp_path / "other.pth")
    with pytest.raises(ValueError, match="ADE20K ResNet-50"):
        load_resnet50_ade20k(tmp_path / "other.pth")
    (tmp_path / "text.pth").write_text("hello")
    with pytest.raises(ValueError, match="ADE20K ResNet-50"):
        load_resnet50_ade20k(tmp_path / "text.pth")


def test_unknown_network():
    with pytest.raises(ValueError, match="mobilenet_v2 or resnet50_ade20k"):
        HRFLoss("vgg")


def test_published_weights_rank_distortions():
    """With the real weights a blur is farther than faint noise, and another photograph farther than both."""
    try:
        find_weights("mobilenet_v2")
    except ValueError as error:
        pytest.skip(str(error))
    from skimage import data

    loss = HRFLoss("mobilenet_v2")
    crops = (image[:256, :256].copy() for image in (data.astronaut(), data.coffee()))
    photo, other = (torch.from_numpy(crop).permute(2, 0, 1)[None] / 127.5 - 1 for crop in crops)
    blur = torch.nn.functional.interpolate(torch.nn.functional.avg_pool2d(photo, 8), scale_factor=8, mode="bilinear")
    noise = photo + 0.02 * torch.randn_like(photo)
    assert loss(noise, photo) < loss(blur, photo) < loss(other, photo)
