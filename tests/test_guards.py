"""Guards whose loss no other test would notice, found with ``make mutants``."""

from __future__ import annotations

import hashlib
from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from PIL import ExifTags

from mmif.config import PRESETS, ModelConfig, from_preset
from mmif.data.masks import hole_at_ratio
from mmif.images import metadata
from mmif.images.decode import name_of
from mmif.images.labels import label_image


@pytest.mark.parametrize(
    ("kind", "size", "expected"),
    [
        ("strokes", (96, 64), "d143c2cafddbbceb"),
        ("boxes", (96, 64), "cb1de57f82cca9eb"),
        ("strokes", (40, 3), "c889f3a7cf01bf3e"),
        ("boxes", (40, 3), "45857acbb4b0c2b1"),
    ],
)
def test_the_geometry_of_large_holes_and_of_thin_pictures_is_pinned(kind: str, size: tuple[int, int], expected: str):
    """Many shapes a hole, so that the end of a stroke counts, too; boxes of less than a pixel."""
    digest = hashlib.sha256()
    for seed in range(20):
        digest.update(np.packbits(hole_at_ratio(size, 0.7, 0.9, np.random.default_rng(seed), kind)).tobytes())
    assert digest.hexdigest()[:16] == expected


def test_presets_are_pinned():
    """Published numbers, and runs that go on, name a preset: whoever changes one must know it."""
    digests = {name: hashlib.sha256(config.to_json().encode()).hexdigest()[:8] for name, config in PRESETS.items()}
    assert digests == {
        "celebahq-256": "5f07f31a",
        "celebahq-512": "f24614b6",
        "places2-256": "31111557",
        "places2-512": "7d7ec5ce",
        "ost-256": "b3aed9c6",
        "cityscapes-256": "e652d568",
        "scenes-128": "da4cf74b",
        "tiny-32": "f3ac2841",
    }


def test_patches_must_divide_the_coarsest_feature_map_and_not_a_finer_one():
    config = from_preset("tiny-32")
    assert config.encoder.resolution == 32
    with pytest.raises(ValueError, match=r"encoder.patch_sizes must divide the coarsest feature map \(4\), got \(8,\)"):
        ModelConfig(replace(config.encoder, patch_sizes=(8,)), config.latent, config.generator)


@pytest.mark.parametrize("name", [123, "", None, b""])
def test_a_picture_without_a_usable_name_is_called_what_it_is(name: object):
    assert name_of(SimpleNamespace(filename=name), "the mask") == "the mask"
    assert name_of(SimpleNamespace(filename="a.png"), "the mask") == "a.png"


def test_the_colours_of_labels_are_pinned_and_neighbours_differ():
    palette = label_image(np.zeros((1, 1), np.uint8)).getpalette()
    assert palette is not None
    colours = np.array(palette).reshape(256, 3)
    assert (np.abs(np.diff(colours[:255], axis=0)).max(axis=1) > 60).all()
    assert hashlib.sha256(bytes(palette)).hexdigest()[:16] == "d843588a0c023ef9"


def test_what_a_tiff_keeps_has_a_name():
    """The five titles of Windows are in a row; the tag behind them is not theirs."""
    titles = {tag.value for tag in ExifTags.Base if tag.name.startswith("XP")}
    kept = {tag for tag in metadata._TIFF_KEPT if tag not in {known.value for known in ExifTags.Base}}
    assert titles <= metadata._TIFF_KEPT
    assert kept == set()
