import numpy as np
import pytest
import torch
from PIL import Image, ImageFilter
from skimage import data

from mmif.backbones.weights import find_weights
from mmif.evaluation import distances
from mmif.evaluation.distances import STLPIPS


def why_no_weights() -> str:
    try:
        find_weights("stlpips_alex")
    except ValueError as error:
        return str(error)
    return ""


needs_weights = pytest.mark.skipif(bool(why_no_weights()), reason=why_no_weights())


@pytest.fixture(scope="module", params=distances.NETS)
def distance(request: pytest.FixtureRequest) -> STLPIPS:
    return STLPIPS(request.param)


def waves() -> tuple[torch.Tensor, torch.Tensor]:
    i = torch.arange(3 * 64 * 64, dtype=torch.float64)
    return torch.sin(i * 0.37).reshape(1, 3, 64, 64).float(), torch.cos(i * 0.0073).reshape(1, 3, 64, 64).float()


@needs_weights
def test_it_equals_the_package_that_published_the_weights(distance: STLPIPS):
    # What stlpips_pytorch.stlpips.LPIPS(net=net, variant="shift_tolerant") of version 0.0.2 returned for this pair.
    published = {"alex": 0.8102363, "vgg": 0.5565293}
    assert distance(*waves()).item() == pytest.approx(published[distance.net], abs=1e-5)


@needs_weights
def test_it_is_zero_for_equal_images_symmetric_and_independent_of_the_batch(distance: STLPIPS):
    a, b = (image[..., :32, :32] for image in waves())
    assert distance(a, a).item() == 0
    both = distance(torch.cat((a, b)), torch.cat((b, b)))
    assert both[0].item() == pytest.approx(distance(b, a).item(), abs=1e-6)
    assert both[1].item() == 0


@needs_weights
@pytest.mark.parametrize(
    ("net", "anchors"),
    [
        (
            "alex",
            {"shift": 0.0049, "blur 1": 0.179, "noise 25": 0.389},
        ),
        ("vgg", {"shift": 0.0156, "noise 25": 0.56}),
    ],
)
def test_a_portrait_keeps_its_known_distances(net: str, anchors: dict[str, float]):
    portrait = Image.fromarray(data.astronaut()).resize((256, 256), Image.Resampling.LANCZOS)
    pixels, noise = np.asarray(portrait).astype(np.float32), np.random.default_rng(0).normal(0, 1, (256, 256, 3))
    changed = {
        "shift": np.roll(pixels, 1, axis=1),
        "blur 1": np.asarray(portrait.filter(ImageFilter.GaussianBlur(1))),
        "noise 25": pixels + 25 * noise,
    }
    stack = np.stack([changed[name] for name in anchors]).clip(0, 255).astype(np.float32)
    others = torch.from_numpy(stack / 127.5 - 1).permute(0, 3, 1, 2)
    reference = torch.from_numpy(pixels / 127.5 - 1).permute(2, 0, 1).expand_as(others)
    assert STLPIPS(net)(reference, others).tolist() == pytest.approx(list(anchors.values()), rel=0.03)


@needs_weights
@pytest.mark.parametrize("shapes", [((1, 3, 32, 32), (1, 3, 32, 40)), ((3, 32, 32),) * 2, ((1, 3, 31, 64),) * 2])
def test_wrong_shapes_are_refused(distance: STLPIPS, shapes: tuple[tuple[int, ...], ...]):
    with pytest.raises(ValueError, match="of one shape with sides >= 32"):
        distance(*(torch.zeros(shape) for shape in shapes))


def test_an_unknown_net_is_refused():
    with pytest.raises(ValueError, match="one of alex, vgg; got 'squeeze'"):
        STLPIPS("squeeze")
