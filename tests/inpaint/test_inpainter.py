"""Inpainter: any photograph in, known pixels out as they were, and results that depend on nothing else."""

from __future__ import annotations

import io
import runpy
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import torch
from fake_model import FakeModel
from PIL import Image, ImageDraw, ImageFilter

from mmif import checkpoint
from mmif.config import from_preset
from mmif.images.holes import grow
from mmif.images.write import write_image
from mmif.inpaint import Inpainter, Job, Result
from mmif.model import MMInvertFill
from mmif.ops import dispatch
from mmif.ops.dispatch import BackendUnavailable
from mmif.runtimes import choose

EXAMPLES = Path(__file__).parents[2] / "examples"
RNG = np.random.default_rng(1)
RGB = RNG.integers(0, 256, (50, 70, 3), np.uint8)
HOLE = np.zeros((50, 70), bool)
HOLE[10:30, 20:45] = True


@pytest.fixture
def model() -> FakeModel:
    return FakeModel()


@pytest.fixture
def pipe(model) -> Inpainter:
    return Inpainter(model)


def pixels(image: Image.Image) -> np.ndarray:
    return np.asarray(image)


# Known pixels


def _modes() -> dict[str, Image.Image]:
    image, alpha = Image.fromarray(RGB), Image.fromarray(RGB[:, :, 0])
    translucent = image.copy()
    translucent.putalpha(alpha)
    return {
        "RGB": image,
        "RGBA": translucent,
        "L": image.convert("L"),
        "LA": Image.merge("LA", [image.convert("L"), alpha]),
        "P": image.quantize(16),
        "1": image.convert("1"),
    }


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L", "LA", "P", "1"])
@pytest.mark.parametrize("suffix", [".png", ".tif", ".webp", ".bmp"])
def test_known_pixels_come_back_byte_identical(pipe, tmp_path, mode, suffix):
    source = _modes()[mode]
    source.save(tmp_path / "in.png")
    result = pipe(tmp_path / "in.png", HOLE)
    write_image(result.image, tmp_path / f"out{suffix}")
    back = Image.open(tmp_path / f"out{suffix}")
    opaque = suffix == ".bmp"
    kept = "RGBA" if mode in ("RGBA", "LA") and not opaque else "RGB"
    assert np.array_equal(pixels(back.convert(kept))[~HOLE], pixels(source.convert(kept))[~HOLE])
    assert not np.array_equal(pixels(back.convert("RGB"))[HOLE], pixels(source.convert("RGB"))[HOLE])
    if mode in ("L", "LA", "1") and suffix != ".webp":
        assert back.mode == ("LA" if mode == "LA" and not opaque else "L")  # grey stays grey


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
def test_profile_and_exif_are_kept(pipe, tmp_path, suffix):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    Image.fromarray(RGB).save(tmp_path / f"in{suffix}", icc_profile=b"profile", exif=exif)
    pipe(tmp_path / f"in{suffix}", HOLE).save(tmp_path / f"out{suffix}")
    back = Image.open(tmp_path / f"out{suffix}")
    assert back.info["icc_profile"] == b"profile"
    assert back.getexif()[0x010F] == "maker"


def test_saving_a_sample(pipe, tmp_path, monkeypatch):
    result = pipe(RGB, HOLE, num_samples=2)
    result.save(str(tmp_path / "new" / "out.png"), sample=1)
    assert np.array_equal(pixels(Image.open(tmp_path / "new" / "out.png")), pixels(result.images[1]))
    for sample in (2, -1):
        with pytest.raises(ValueError, match=rf"sample must be 0\.\.1, got {sample}"):
            result.save(tmp_path / "out.png", sample)
    with pytest.raises(ValueError, match="an output must end in one of"):
        result.save(tmp_path / "out.xyz")
    with pytest.raises(ValueError, match="quality must be <= 100, got 101"):
        result.save(tmp_path / "out.jpg", quality=101)

    def half(self, target, *args, **options):
        target.write(b"half of")
        raise OSError("full")

    monkeypatch.setattr(Image.Image, "save", half)
    with pytest.raises(OSError, match="full"):
        result.save(tmp_path / "new" / "out.png")
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["out.png"]
    assert np.array_equal(pixels(Image.open(tmp_path / "new" / "out.png")), pixels(result.images[1]))


@pytest.mark.parametrize("suffix", [".png", ".jpg", ".tif", ".webp"])
@pytest.mark.parametrize("source", [".jpg", ".tif"])
def test_the_exif_of_a_camera_is_kept(pipe, tmp_path, source, suffix):
    exif = Image.Exif()
    exif[0x010F] = "maker"
    exif.get_ifd(0x8769)[0x9003] = "2020:01:02 03:04:05"  # a camera's own directory, and that of its place
    exif.get_ifd(0x8825)[1] = "N"
    Image.fromarray(RGB).save(tmp_path / f"in{source}", exif=exif.tobytes())
    write_image(pipe(tmp_path / f"in{source}", HOLE).image, tmp_path / f"out{suffix}")
    kept = Image.open(tmp_path / f"out{suffix}").getexif()
    assert kept[0x010F] == "maker"
    assert kept.get_ifd(0x8769)[0x9003] == "2020:01:02 03:04:05"
    assert kept.get_ifd(0x8825)[1] == "N"


@pytest.mark.parametrize("seam", ["match", "none"])
def test_only_the_hole_is_filled_with_either_seam(model, seam):
    out = pixels(Inpainter(model, seam=seam)(RGB, HOLE).image)
    assert np.array_equal(out[~HOLE], RGB[~HOLE])
    if seam == "none":
        assert (out[HOLE] == 0).all()  # the fake fills with its noise key, 0


def test_the_model_never_sees_what_the_hole_holds(pipe, model):
    for value in (0, 255):
        pipe(np.where(HOLE[..., None], np.uint8(value), RGB), HOLE)
    first, second = model.calls
    assert torch.equal(first.hole, second.hole)
    assert torch.equal(first.image * (1 - first.hole), second.image * (1 - second.hole))


# Sizes and degenerate masks


@pytest.mark.parametrize("size", [(1, 1), (1, 40), (40, 1), (2, 2), (33, 31), (20, 500)])
@pytest.mark.parametrize("share", [0.0, 0.3, 1.0])
def test_any_size_and_shape(pipe, size, share):
    rgb = RNG.integers(0, 256, (*size, 3), np.uint8)
    hole = RNG.random(size) < share
    result = pipe(rgb, hole)
    out = pixels(result.image)
    assert out.shape == rgb.shape
    assert np.array_equal(out[~hole], rgb[~hole])


def test_an_empty_mask_gives_the_photograph_back_and_says_so(pipe, model):
    result = pipe(RGB, np.zeros_like(HOLE), num_samples=2)
    assert all(np.array_equal(pixels(image), RGB) for image in result.images)
    assert len(result.images) == 2
    assert not model.calls
    assert "nothing to fill" in result.notes[0]
    assert result.segmentation is not None
    assert (pixels(result.segmentation) == 255).all()


def test_a_full_mask_works_with_a_warning(pipe):
    result = pipe(RGB, np.ones_like(HOLE))
    assert (pixels(result.image) == 0).all()
    assert "did you mean --invert-mask" in result.notes[0]


def test_invert_mask(pipe):
    out = [pixels(pipe(RGB, mask, invert_mask=invert).image) for mask, invert in ((HOLE, False), (~HOLE, True))]
    assert np.array_equal(*out)


def test_boxes_say_what_a_mask_says(pipe):
    assert np.array_equal(pixels(pipe(RGB, boxes=[(20, 10, 25, 20)]).image), pixels(pipe(RGB, HOLE).image))
    result = pipe(RGB, boxes=[(0, 0, 1, 1), (5, 5, 60, 45)])
    assert result.hole.sum() == 1 + 60 * 45
    assert not result.notes  # nobody mistakes the polarity of a rectangle
    with pytest.raises(ValueError, match="a box must lie inside the photograph, 70 x 50; 60,40,20,20"):
        pipe(RGB, boxes=[(60, 40, 20, 20)])


def test_a_grown_mask_fills_more_and_no_more(pipe):
    result = pipe(RGB, HOLE, grow_mask=3)
    assert np.array_equal(result.hole, grow(HOLE, 3))
    assert np.array_equal(pixels(result.image)[~result.hole], RGB[~result.hole])
    assert not (pixels(result.image)[result.hole] == RGB[result.hole]).all(1).any()


def test_a_mask_that_follows_a_soft_red_object_leaves_a_ghost_and_a_grown_one_does_not():
    photo = Image.open(EXAMPLES / "photo.jpg").convert("RGB")
    disc = Image.new("L", photo.size)
    ImageDraw.Draw(disc).ellipse((40, 20, 80, 60), fill=255)
    disc = disc.filter(ImageFilter.GaussianBlur(4))
    with_disc = Image.composite(Image.new("RGB", photo.size, (220, 30, 30)), photo, disc)
    tight = pixels(disc) > 127
    pipe = Inpainter.from_pretrained("scenes-128", "cpu")

    def redness(image: Image.Image) -> float:
        rgb = pixels(image)[tight].astype(float)
        return (rgb[:, 0] - rgb[:, 1:].mean(1)).mean()

    true = redness(photo)
    assert redness(pipe(with_disc, tight).image) - true > 60  # measured: 91
    assert abs(redness(pipe(with_disc, tight, grow_mask=6).image) - true) < 25  # measured: 13


def test_a_huge_photograph_needs_no_float_copy_of_it(tmp_path):
    """12000 x 9000: 108 million pixels come and go within 16 bytes each, while a float copy alone needs 12."""
    width, height = 12000, 9000
    Image.new("L", (width, height), 90).save(tmp_path / "photo.jpg")
    mask = Image.new("1", (width, height))
    mask.paste(1, (5000, 4000, 5300, 4200))
    mask.save(tmp_path / "mask.png")
    code = """
import resource, sys
from fake_model import FakeModel
from mmif.inpaint import Inpainter
before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
result = Inpainter(FakeModel())("photo.jpg", "mask.png")
assert result.image.size == (12000, 9000)
print(resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before, result.timings["total"])
"""
    tests, root = Path(__file__).parents[1], Path(__file__).parents[2]
    run = subprocess.run(
        [sys.executable, "-c", f"import sys; sys.path[:0] = [{str(tests)!r}, {str(root)!r}]\n{code}"],
        capture_output=True, text=True, check=True, cwd=tmp_path,
    )  # fmt: skip
    kilobytes = float(run.stdout.split()[0])
    assert kilobytes * 1024 < 16 * width * height


# Independence


def _jobs() -> list[Job]:
    jobs = []
    for i in range(5):
        rgb = RNG.integers(0, 256, (40 + 7 * i, 60, 3), np.uint8)
        hole = np.zeros(rgb.shape[:2], bool)
        hole[5:20, 5 + 3 * i : 30] = True
        hole[30:35, 50:55] = i % 2
        jobs.append(Job(rgb, hole, segmentation=hole.astype(np.uint8) if i == 2 else None, index=i))
    return jobs


def test_batch_size_and_order_change_nothing(pipe, model):
    jobs = _jobs()
    alone = [pipe.batch([job], seed=4, num_samples=2) for job in jobs]
    expected = [[pixels(image) for image in next(results).images] for results in alone]
    model.calls.clear()
    for size in (1, 3, 64):
        got = list(pipe.batch(reversed(jobs), size, seed=4, num_samples=2))
        for result, images in zip(reversed(got), expected, strict=True):
            assert all(np.array_equal(pixels(image), other) for image, other in zip(result.images, images, strict=True))
    assert max(len(call.image) for call in model.calls) > 3  # photographs did share calls


def test_results_come_as_soon_as_they_are_whole(pipe):
    read = []

    def jobs():
        for i, job in enumerate(_jobs()):
            read.append(i)
            yield job

    next(pipe.batch(jobs(), batch_size=1))
    assert read == [0]


def test_seed_and_index_key_the_noise(pipe, tmp_path):
    def level(source=RGB, **options):
        return pixels(pipe(source, np.ones_like(HOLE), **options).image)[0, 0, 0]

    Image.fromarray(RGB).save(tmp_path / "a.png")
    Image.fromarray(RGB).save(tmp_path / "b.png")
    assert level() == level(seed=0) != level(seed=1)
    assert level(tmp_path / "a.png") != level(tmp_path / "b.png")
    assert level(tmp_path / "a.png") == level(str(tmp_path / "a.png"))


def test_samples_differ_and_the_first_does_not_depend_on_their_number(pipe, model):
    one, three = pipe(RGB, HOLE), pipe(RGB, HOLE, num_samples=3)
    assert np.array_equal(pixels(one.image), pixels(three.image))
    assert len({image.tobytes() for image in three.images}) == 3
    assert model.calls[0].mean_latent is None
    assert [call.mean_latent is None for call in model.calls[1:]] == [True, False]


# Guidance


def test_guidance_reaches_the_model_with_its_own_hole(pipe, model):
    labels = np.full(HOLE.shape, 2, np.uint8)
    labels[:, :30] = 255
    unknown = np.zeros_like(HOLE)
    unknown[:5] = True
    edges = np.zeros_like(HOLE)
    edges[:, 40] = True
    result = pipe(RGB, np.ones_like(HOLE), labels, edges, segmentation_mask=unknown, edge_mask=unknown)
    call = model.calls[0]
    seg, seg_hole, edge, edge_hole = (plane.numpy() for plane in (call.seg, call.seg_hole, call.edge, call.edge_hole))
    assert set(np.unique(seg.sum(1) + seg_hole[:, 0])) == {1.0}  # a label, or unknown
    assert seg[0, 2].sum() + seg_hole.sum() == seg[0, 2].size
    assert 0.4 < seg_hole.mean() < 0.6
    assert edge.any()
    assert 0.0 < edge_hole.mean() < 0.2
    assert result.segmentation is not None
    assert result.segmentation.size == (70, 50)
    assert (pixels(result.segmentation)[10:, 32:] == 2).all()
    assert result.edges is not None
    assert (pixels(result.edges)[:, 40] == 255).all()
    assert set(np.unique(pixels(result.edges))) == {0, 255}


def test_without_guidance_the_model_is_told_so(pipe, model):
    pipe(RGB, HOLE)
    call = model.calls[0]
    assert [call.seg, call.seg_hole, call.edge, call.edge_hole] == [None] * 4


def test_predictions_can_be_passed_back(pipe):
    result = pipe(RGB, HOLE)
    again = pipe(RGB, HOLE, result.segmentation, result.edges)
    assert np.array_equal(pixels(again.segmentation), pixels(result.segmentation))


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"segmentation": np.zeros((50, 69), np.uint8)}, "the segmentation must have the size"),
        ({"segmentation": np.full((50, 70), 4, np.uint8)}, r"must be 0\.\.3, or 255"),
        ({"edge": np.zeros((49, 70), bool)}, "the edge map must have the size"),
        ({"edge_mask": HOLE}, "an edge mask needs an edge map"),
        ({"segmentation_mask": HOLE}, "a segmentation mask needs a segmentation"),
        (
            {"segmentation": np.zeros((50, 70), np.uint8), "segmentation_mask": HOLE.T},
            "the segmentation mask must have",
        ),
        ({"edge": HOLE, "edge_mask": HOLE.T}, "the edge mask must have"),
        ({"num_samples": 0}, "num_samples must be >= 1, got 0"),
        ({"num_samples": 1001}, "num_samples must be <= 1000, got 1001"),
        ({"num_samples": 1.5}, r"num_samples must be a whole number, got 1\.5"),
        ({"boxes": [(0, 0, 1, 1)]}, "give a mask or boxes; got both"),
        ({"grow_mask": -1}, "grow_mask must be >= 0, got -1"),
        ({"grow_mask": 10**6}, "grow_mask must be <= 1000, got 1000000"),
        ({"mask_image": HOLE}, "mask and mask_image are two names of one thing"),
        ({"seed": "x"}, "seed must be a whole number, got 'x'"),
        ({"seed": 1.0}, r"seed must be a whole number, got 1\.0"),
    ],
)
def test_bad_arguments(pipe, options, message):
    with pytest.raises(ValueError, match=message):
        pipe(RGB, HOLE, **options)


@pytest.mark.parametrize("margin", [-1, 11, float("nan"), "a", None])
def test_a_bad_margin_is_found_at_once(margin):
    with pytest.raises(ValueError, match=r"margin must lie in \[0, 10\]"):
        Inpainter(FakeModel(), margin=margin)


def test_a_job_says_what_its_fields_cannot_be():
    for fields, message in (
        ({}, "give a mask or boxes; got neither"),
        ({"boxes": [(0, 0, 1, 1)], "invert_mask": True}, "there is nothing to invert"),
        ({"boxes": [(0, 0, 1.5, 1)]}, r"a box must be a whole number, got 1\.5"),
        ({"mask": HOLE, "index": "a"}, "index must be a whole number, got 'a'"),
    ):
        with pytest.raises(ValueError, match=message):
            Job(RGB, **fields)


# Names that others use


def test_the_mask_may_be_called_as_in_diffusers(pipe):
    assert np.array_equal(pixels(pipe(image=RGB, mask_image=HOLE).image), pixels(pipe(RGB, HOLE).image))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("generator", "pass seed"),
        ("prompt", "leave it out"),
        ("strength", "leave it out"),
        ("num_images_per_prompt", "pass num_samples"),
        ("return_dict", "the call always returns a Result; leave it out"),
        (
            "nonsense",
            "unknown argument 'nonsense'; known are image, mask, segmentation, edge, seed, num_samples, mask_image, "
            "segmentation_mask, edge_mask, index, boxes, invert_mask, grow_mask",
        ),
    ],
)
def test_arguments_of_other_pipelines_are_refused_by_name(pipe, model, name, instead):
    with pytest.raises(TypeError, match=name) as error:
        pipe(RGB, HOLE, **{name: 1})
    assert instead in str(error.value)
    assert not model.calls


def test_moving_to_a_device_gives_the_pipeline_back():
    pipe = Inpainter(MMInvertFill(from_preset("tiny-32")).eval())
    assert pipe.to("CPU") is pipe.to(torch.device("cpu")) is pipe.to("cpu", torch.float32) is pipe
    assert pipe.device == torch.device("cpu")
    with pytest.raises(ValueError, match="the device must be auto, cpu"):
        pipe.to("gpu")


@pytest.mark.parametrize(
    "change", [lambda pipe: pipe.half(), lambda pipe: pipe.bfloat16(), lambda pipe: pipe.to("cpu", torch.float16)]
)
def test_other_number_types_are_one_line(pipe, change):
    with pytest.raises(ValueError, match=r"^an Inpainter computes in float32, torch\.b?float16 is not supported yet"):
        change(pipe)


def test_options_are_checked_before_anything_is_loaded(tmp_path):
    with pytest.raises(ValueError, match="seam must be"):
        Inpainter.from_pretrained(tmp_path / "absent", seam="soft")  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match="margin must lie"):
        Inpainter.from_pretrained(tmp_path / "absent", margin=-1)


def test_whole_numbers_of_any_type_are_the_same(pipe):
    one = pixels(pipe(RGB, HOLE, seed=1).image)
    assert np.array_equal(pixels(pipe(RGB, HOLE, seed=np.int64(1), num_samples=np.uint8(1)).image), one)
    with pytest.raises(ValueError, match=r"index must be a whole number, got 1\.0"):
        next(pipe.batch([Job(RGB, HOLE, index=1.0)]))  # pyright: ignore[reportArgumentType]


def test_a_job_that_cannot_be_used_costs_no_other(pipe):
    jobs = [Job(RGB, HOLE, index=0), Job(RGB, HOLE.T), Job(RGB, HOLE, index=2), Job("absent.png", HOLE)]
    first, second, third, fourth = pipe.attempts(jobs)
    assert "the mask must have the size" in str(second)
    assert "no image file at absent.png" in str(fourth)
    assert not np.array_equal(pixels(first.image), pixels(third.image))
    results = pipe.batch(jobs)
    assert np.array_equal(pixels(next(results).image), pixels(first.image))
    with pytest.raises(ValueError, match="the mask must have the size"):
        next(results)


class Greedy(io.BytesIO):
    """A file that is too large for the memory."""

    def read(self, *_):
        raise MemoryError


def test_a_job_that_fails_in_whichever_way_costs_no_other(pipe):
    jobs = [Job(Greedy(), HOLE), Job(RGB, HOLE), Job(3, HOLE), Job(RGB, HOLE)]  # pyright: ignore[reportArgumentType]
    for size in (1, 8):
        results = list(pipe.attempts(jobs, size))
        assert [isinstance(result, Result) for result in results] == [False, True, False, True]
    assert isinstance(results[2], TypeError)


def test_a_mask_of_another_size_names_both_and_the_file(pipe, tmp_path):
    with pytest.raises(ValueError, match="70 x 50; it has 50 x 70"):
        pipe(RGB, HOLE.T)
    Image.fromarray(RGB).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png: the mask must have"):
        pipe(tmp_path / "a.png", HOLE.T)


# The network


@pytest.mark.parametrize("device", ["nonsense", "mps", "meta", "xpu", "cuda:99", "", 0, 1.5])
def test_a_device_that_cannot_serve(device):
    with pytest.raises(ValueError, match=r"^the device must|^torch sees 0 CUDA devices"):
        Inpainter.from_pretrained("scenes-128", device)


@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_numbers_that_are_none_are_an_error_not_a_black_image(bad, tmp_path):
    Image.fromarray(RGB).save(tmp_path / "b.png")
    pipe = Inpainter(FakeModel(bad))
    results = pipe.batch([Job(RGB, HOLE), Job(tmp_path / "b.png", HOLE)])
    with pytest.raises(ValueError, match=r"NaN or infinity for .*b\.png, which was not written"):
        list(results)


def test_numbers_that_are_none_cost_one_photograph_alone():
    jobs = [Job(RGB, HOLE, index=0), Job(RGB, HOLE, index=1)]
    good, bad = Inpainter(FakeModel(np.nan)).attempts(jobs)  # the fake spoils the last of a batch
    assert isinstance(good, Result)
    assert "NaN or infinity" in str(bad)


def test_two_pipelines_in_two_threads_keep_their_own_backends(model):
    both_are_running = threading.Barrier(2, timeout=30)
    seen = {}

    class Watched(FakeModel):
        def __call__(self, *args, **options):
            both_are_running.wait()
            seen[self] = dispatch.describe()
            both_are_running.wait()
            return super().__call__(*args, **options)

    before = dispatch.describe()
    pipes = [Inpainter(Watched(), backend=backend) for backend in ("reference", "triton")]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda pipe: pipe(RGB, HOLE), pipes))
    assert [seen[pipe.model] for pipe in pipes] == ["ops reference", "ops triton"]
    assert dispatch.describe() == before


def test_the_real_network_from_a_checkpoint(tmp_path):
    config = from_preset("tiny-32")
    checkpoint.save(MMInvertFill(config), tmp_path / "tiny", config=config, extra={})
    pipe = Inpainter.from_pretrained(tmp_path / "tiny", device="cpu")
    assert pipe.describe().startswith(f"device cpu | {dispatch.describe()} | runtime eager | weights tiny (sha256 ")
    labels = np.full(HOLE.shape, 3, np.uint8)
    results = list(pipe.batch([Job(RGB, HOLE), Job(RGB, HOLE, labels, HOLE)], 3, num_samples=2))
    for result in results:
        assert all(np.array_equal(pixels(image)[~HOLE], RGB[~HOLE]) for image in result.images)
        assert result.segmentation is not None
        assert result.segmentation.size == (70, 50)
    alone = pipe(RGB, HOLE, num_samples=2)
    for image, other in zip(alone.images, results[0].images, strict=True):
        difference = pixels(image).astype(int) - pixels(other)
        assert np.abs(difference).max() <= 1  # convolutions of another batch size may round differently


def test_the_runtime_that_is_chosen_is_told(monkeypatch, model):
    monkeypatch.setattr(choose, "RUNTIMES", {"absent": lambda: "it is not installed", "quick": lambda: None})
    assert " | runtime quick | " in Inpainter(model).describe()


def test_bad_devices_and_backends(tmp_path):
    with pytest.raises(ValueError, match="the device must be auto, cpu, cuda"):
        Inpainter.from_pretrained(tmp_path, device="gpu")
    with pytest.raises(ValueError, match="torch sees"):
        Inpainter.from_pretrained(tmp_path, device="cuda:99")
    with pytest.raises(ValueError, match="backend must be one of"):
        Inpainter.from_pretrained(tmp_path, device="cpu", backend="fast")
    if not torch.cuda.is_available():
        with pytest.raises(BackendUnavailable, match="'cuda' cannot run"):
            Inpainter.from_pretrained(tmp_path, device="cpu", backend="cuda")
    with pytest.raises(ValueError, match="seam must be"):
        Inpainter(FakeModel(), seam="soft")  # pyright: ignore[reportArgumentType]


def test_the_example_runs(tmp_path, capsys):
    config = from_preset("tiny-32")
    checkpoint.save(MMInvertFill(config), tmp_path / "tiny", config=config, extra={})
    runpy.run_path(str(EXAMPLES / "inpaint.py"))["main"](str(tmp_path / "tiny"), "out.png")
    photo, hole = pixels(Image.open(EXAMPLES / "photo.jpg")), pixels(Image.open(EXAMPLES / "mask.png"))
    assert np.array_equal(pixels(Image.open("out.png"))[~hole], photo[~hole])
    assert 0.05 < hole.mean() < 0.5
    assert "result out.png" in capsys.readouterr().out
