"""Images, masks and guidance at the door: every kind of picture in, one line for what cannot be used."""

from __future__ import annotations

import re

import numpy as np
import pytest
import torch
from PIL import Image

from mmif.images.labels import label_image, to_labels
from mmif.images.masks import to_binary
from mmif.images.photo import to_photo
from mmif.images.tensors import binary_to_model, from_model, labels_to_model, to_model

RNG = np.random.default_rng(5)
GREY = RNG.integers(0, 256, (6, 9), np.uint8)
RGB = RNG.integers(0, 256, (6, 9, 3), np.uint8)
ALPHA = RNG.integers(0, 256, (6, 9), np.uint8)


def grey3(values: np.ndarray) -> np.ndarray:
    return np.repeat(values[:, :, None], 3, axis=2)


# Photographs


def test_a_tensor_without_values_is_refused():
    with pytest.raises(ValueError, match="must be a tensor with values; got one on the meta device"):
        to_photo(torch.empty(1, 3, 4, 4, device="meta"))


@pytest.mark.parametrize(
    ("source", "expected"),
    [
        (RGB, RGB),
        (GREY, grey3(GREY)),
        (GREY[:, :, None], grey3(GREY)),
        (RGB.astype(np.float32) / 255, RGB),
        (RGB.astype(np.uint16) * 257, RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1), RGB),
        (torch.from_numpy(RGB).permute(2, 0, 1)[None].double() / 255, RGB),
        (torch.from_numpy(GREY)[None], grey3(GREY)),
        (Image.fromarray(RGB), RGB),
    ],
    ids=["uint8", "grey", "one-channel", "float", "uint16", "tensor", "batch-of-one", "grey-tensor", "pil"],
)
def test_photographs_from_python(source, expected):
    assert np.array_equal(to_photo(source).rgb, expected)


def test_alpha_of_an_array():
    photo = to_photo(np.dstack([RGB, ALPHA]))
    assert np.array_equal(photo.rgb, RGB)
    assert np.array_equal(np.asarray(photo.alpha), ALPHA)


@pytest.mark.parametrize(
    "source",
    [
        np.zeros((2, 3, 5)),
        np.zeros((1, 2, 3, 3)),
        torch.zeros(6, 9, 3),
        np.zeros((0, 4, 3)),
    ],
    ids=["five-channels", "batch", "channels-last-tensor", "no-pixels"],
)
def test_wrong_shape_of_a_photograph(source):
    shape = re.escape(str(tuple(source.shape)))
    with pytest.raises(ValueError, match=rf"^an image must be \[H, W\] or .* \(tensor\); got shape {shape}$"):
        to_photo(source)


@pytest.mark.parametrize("value", [-1.0, 255.0, np.nan, np.inf])
def test_float_photographs_outside_the_unit_range(value):
    with pytest.raises(ValueError, match=r"must lie in \[0, 1\]"):
        to_photo(np.full((4, 4, 3), value, np.float32))


@pytest.mark.parametrize("value", [-1e-3, 1.001])
def test_a_rounding_beyond_the_unit_range_is_forgiven(value):
    wanted = 0 if value < 0 else 255
    assert (to_photo(np.full((4, 4, 3), value)).rgb == wanted).all()
    assert to_binary(np.array([[value, 0.5]]), (2, 1)).tolist() == [[value > 0, True]]


@pytest.mark.parametrize("value", [-1.1e-3, 1.0011])
def test_no_more_than_a_rounding_is(value):
    for what, take in (("image", to_photo), ("mask", lambda source: to_binary(source, (4, 4)))):
        with pytest.raises(ValueError, match=rf"^float values of the {what} must lie in \[0, 1\], got .*; scale it"):
            take(np.full((4, 4), value))


def test_floats_become_the_nearest_level():
    levels = np.array([0.0, 0.49 / 255, 0.51 / 255, 127.49 / 255, 127.51 / 255, 254.49 / 255, 254.51 / 255, 1.0])
    assert to_photo(levels[None]).rgb[0, :, 0].tolist() == [0, 0, 1, 127, 128, 254, 255, 255]


def test_16_bits_become_the_nearest_level():
    values = np.array([[0, 128, 129, 65535 - 129, 65535 - 128, 65535]], np.uint16)
    assert to_photo(values).rgb[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]
    assert to_photo(np.repeat(values[:, :, None], 3, 2)).rgb[0, :, 0].tolist() == [0, 0, 1, 254, 255, 255]


@pytest.mark.parametrize("source", [RGB.astype(np.int64), RGB > 3, [[1, 2]], None])
def test_wrong_type_of_a_photograph(source):
    line = r"^the image must be uint8, uint16, or float in \[0, 1\]; got (int64|bool); convert it first$"
    if not isinstance(source, np.ndarray):
        line = "^image must be a file, a PIL image, an array or a tensor; got (list|NoneType)$"
    with pytest.raises(TypeError, match=line):
        to_photo(source)


WHITE = GREY > 127

# Guidance

LABELS = (GREY % 5).astype(np.uint8)
LABELS[0, 0] = 255


@pytest.mark.parametrize(
    "source",
    [LABELS, LABELS.astype(np.int64), torch.from_numpy(LABELS)[None], label_image(LABELS), Image.fromarray(LABELS)],
    ids=["uint8", "int64", "tensor", "palette", "grey"],
)
def test_labels(source, tmp_path):
    assert np.array_equal(to_labels(source, (9, 6), 5), LABELS)
    if isinstance(source, Image.Image):
        source.save(tmp_path / "seg.png")
        assert np.array_equal(to_labels(tmp_path / "seg.png", (9, 6), 5), LABELS)


def test_a_label_image_shows_neighbouring_labels_in_different_colours_and_unknown_in_black():
    labels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    image = label_image(labels)
    assert image.mode == "P"
    assert np.array_equal(np.asarray(image), labels)
    colours = np.asarray(image.convert("RGB")).reshape(256, 3).astype(int)
    assert colours[255].tolist() == [0, 0, 0]
    assert np.abs(np.diff(colours, axis=0)).max(1).min() > 60
    assert len(np.unique(colours, axis=0)) == 256


def test_unusable_labels():
    with pytest.raises(ValueError, match=r"0\.\.3, or 255 for unknown; got 4"):
        to_labels(LABELS, (9, 6), 4)
    with pytest.raises(ValueError, match="got -1"):
        to_labels(np.full((6, 9), -1), (9, 6), 4)
    with pytest.raises(ValueError, match="9 x 6; it has 6 x 9"):
        to_labels(LABELS.T, (9, 6), 5)
    with pytest.raises(ValueError, match="mode RGB"):
        to_labels(Image.fromarray(RGB), (9, 6), 5)
    with pytest.raises(ValueError, match=r"^the segmentation: a segmentation must be a palette or grey image"):
        to_labels(RGB, (9, 6), 5)
    with pytest.raises(TypeError, match="float64"):
        to_labels(np.zeros((6, 9)), (9, 6), 5)


def test_an_edge_map_of_another_size():
    with pytest.raises(ValueError, match="the edge map must have the size"):
        to_binary(np.zeros((6, 8), bool), (9, 6), "edge map")


# Into the model and out of it


def test_all_levels_survive_the_way_in_and_out():
    levels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    rgb = np.stack([levels, levels[:, ::-1], 255 - levels], axis=3)
    inside = to_model(rgb)
    assert inside.shape == (1, 3, 16, 16)
    assert (inside.min(), inside.max()) == (-1.0, 1.0)
    assert np.array_equal(from_model(inside), rgb)


def test_from_model_clamps_and_rounds():
    out = from_model(torch.tensor([-1.5, 0.001, 1.5]).view(1, 3, 1, 1))
    assert out.tolist() == [[[[0, 128, 255]]]]


def test_planes_for_the_model():
    assert torch.equal(binary_to_model(WHITE[None]), torch.from_numpy(WHITE).float()[None, None])
    one_hot = labels_to_model(LABELS[None], 5)
    assert one_hot.shape == (1, 5, 6, 9)
    assert torch.equal(one_hot.sum(1)[0], torch.from_numpy(LABELS != 255).float())  # unknown: all zero
    assert np.array_equal(one_hot.argmax(1)[0][LABELS != 255], LABELS[LABELS != 255])
