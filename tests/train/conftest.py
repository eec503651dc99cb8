"""A prepared data set of a few made-up photographs, and trainings small enough for a test."""

import pytest
from kill import photographs
from networks import untrained_mobilenet

import mmif.train.perceptual
from mmif.data.prepare import prepare
from mmif.data.settings import Settings


@pytest.fixture(scope="session")
def dataset(tmp_path_factory):
    """A packed set of 40 made-up photographs of 32 pixels with four labels."""
    folder = tmp_path_factory.mktemp("set")
    source, out = photographs(folder / "photographs", 40), folder / "packed"
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
