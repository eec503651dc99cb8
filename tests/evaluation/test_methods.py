import numpy as np
import pytest
import torch
from fake_model import FakeModel
from PIL import Image

from mmif import Inpainter
from mmif.config import from_preset
from mmif.evaluation.methods import model_method
from mmif.evaluation.protocol import Batch
from mmif.images.tensors import binary_to_model, from_model, labels_to_model, to_model
from mmif.inpaint.seam import match_seam
from mmif.model import MMInvertFill

SIDE, LABELS = 32, 4


def draw_batch() -> Batch:
    """Two photographs with a hole of two parts, labels that are partly unknown, and edges."""
    rng = np.random.default_rng(3)
    small = rng.integers(0, 256, (2, 5, 5, 3), dtype=np.uint8)
    rgb = np.stack([np.array(Image.fromarray(x).resize((SIDE, SIDE), Image.Resampling.BICUBIC)) for x in small])
    hole = np.zeros((2, SIDE, SIDE), bool)
    hole[:, 8:20, 8:24] = True
    hole[1, 28:, 1:4] = True
    seg = rng.integers(0, LABELS, (2, SIDE, SIDE), dtype=np.uint8)
    seg[:, 0] = 255
    return Batch(["a", "b"], [3, 7], rgb, hole, seg, rng.random((2, SIDE, SIDE)) < 0.1)


@pytest.fixture(scope="module")
def model() -> MMInvertFill:
    torch.manual_seed(0)
    model = MMInvertFill(from_preset("tiny-32")).eval()
    for name, parameter in model.named_parameters():
        if "noise" in name:  # the strengths, zero before training
            torch.nn.init.constant_(parameter, 0.3)
    return model


@torch.inference_mode()
def fill_by_hand(model: MMInvertFill, batch: Batch, seed: int, oracle: bool, seam: str) -> np.ndarray:
    """The protocol written out: one call of the network, the seam, the composite."""
    hints = {}
    if oracle:
        hints = {
            "seg": labels_to_model(batch.seg, model.config.encoder.num_classes),
            "seg_hole": binary_to_model(batch.seg == 255),
            "edge": binary_to_model(batch.edge),
            "edge_hole": torch.zeros(len(batch.keys), 1, SIDE, SIDE),
        }
    noise = model.make_noise([(seed, index) for index in batch.indices])
    output = model(image=to_model(batch.rgb), hole=binary_to_model(batch.hole), **hints, noise=noise)
    filled = from_model(output.image)
    if seam == "match":
        filled = np.stack([match_seam(*x) for x in zip(filled, batch.rgb, batch.hole, strict=True)])
    return np.where(batch.hole[..., None], filled, batch.rgb)


@pytest.mark.parametrize("seam", ["match", "none"])
@pytest.mark.parametrize("oracle", [False, True])
def test_what_users_run_is_what_the_protocol_says_byte_for_byte(model: MMInvertFill, oracle: bool, seam: str):
    batch = draw_batch()
    method = model_method(Inpainter(model, seam=seam), seed=5, oracle=oracle)
    assert np.array_equal(method(batch), fill_by_hand(model, batch, 5, oracle, seam))


def test_the_model_changes_the_hole_alone_and_its_noise_is_keyed_by_the_photograph(model: MMInvertFill):
    method, both = model_method(Inpainter(model), seed=5), draw_batch()
    filled = method(both)
    assert filled.dtype == np.uint8
    assert np.array_equal(filled[~both.hole], both.rgb[~both.hole])
    assert not np.array_equal(filled[both.hole], both.rgb[both.hole])
    second = Batch(*(part[1:] for part in both))
    assert np.abs(method(second)[0].astype(int) - filled[1]).max() <= 1
    assert not np.array_equal(method(second._replace(indices=[8]))[0], filled[1])


def test_the_oracle_gives_true_hints_and_leaves_unknown_labels_out():
    fake, given = FakeModel(), draw_batch()
    model_method(Inpainter(fake), seed=0, oracle=True)(given)
    (call,) = fake.calls
    assert np.array_equal(call.seg_hole[:, 0].bool(), given.seg == 255)
    assert np.array_equal(call.seg.sum(1), given.seg != 255)
    assert np.array_equal(call.seg.argmax(1)[:, 1:], given.seg[:, 1:])
    assert np.array_equal(call.edge[:, 0].bool(), given.edge)
    assert not call.edge_hole.any()


def test_without_the_oracle_no_hint_reaches_the_model():
    fake = FakeModel()
    model_method(Inpainter(fake), seed=0)(draw_batch())
    (call,) = fake.calls
    assert call.seg is call.seg_hole is call.edge is call.edge_hole is None


def test_what_cannot_be_filled_names_the_photograph():
    batch = draw_batch()
    with pytest.raises(ValueError, match=r"the batch of photograph a cannot be filled: .* NaN or infinity"):
        model_method(Inpainter(FakeModel(bad=float("nan"))), seed=0)(batch)
    batch.seg[1, 5, 5] = 200
    with pytest.raises(ValueError, match=r"photograph a cannot be filled: labels .* must be 0\.\.\d+, .* got 200"):
        model_method(Inpainter(FakeModel()), seed=0, oracle=True)(batch)
