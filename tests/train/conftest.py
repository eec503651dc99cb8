"""A prepared data set of a few made-up photographs, and trainings small enough for a test."""

import numpy as np
import pytest
from networks import untrained_mobilenet
from PIL import Image

import mmif.train.perceptual
from mmif.data.prepare import prepare
from mmif.data.settings import Settings


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A packed set of 40 made-up photographs of 32 pixels with four labels."""
    source, out = tmp_path_factory.mktemp("photographs"), tmp_path_factory.mktemp("set") / "packed"
    rng = np.random.default_rng(0)
    for i in range(40):
        labels = np.kron(rng.integers(0, 4, (4, 4)), np.ones((8, 8))).astype(np.uint8)
        colours = rng.integers(0, 255, (4, 3))
        Image.fromarray(colours[labels].astype(np.uint8)).save(source / f"p{i:02d}.png")
        Image.fromarray(labels).save(source / f"p{i:02d}_seg.png")
    prepare(source, out, Settings("folder", size=32, seg="given", classes=4), progress=False)
    return out


@pytest.fixture(autouse=True)
def random_perceptual_network(monkeypatch):
    """A MobileNetV2 with random weights in place of the published ones, which a test must not need."""

    monkeypatch.setattr(mmif.train.perceptual, "mobilenet_v2", untrained_mobilenet)


@pytest.fixture
def run(dataset, tmp_path):
    """Call ``mmif-train`` on the tiny preset: run(stage, folder name, option=value, ...)."""
    from mmif.commands.train import main

    def call(stage, folder="run", **options):
        values = {"data": dataset, "out": tmp_path / folder, "preset": "tiny-32", "batch": 4, "workers": 0} | options
        main([stage, *(f"--{k}={v}" for k, v in values.items())])
        return tmp_path / folder

    return call
