"""The Triton kernels on a device: every configuration at the model's shapes; tuning, streams, graphs, memory, start."""

from __future__ import annotations

import json
import logging
import subprocess
import sys
from collections.abc import Callable
from functools import partial
from typing import Any, NamedTuple

import pytest
import torch
from tolerances import assert_close_to_reference
from torch import Tensor

from mmif.kernels import tuning
from mmif.kernels.tuning import Config, choose
from mmif.ops import adaptive_norm, dispatch, gated_mask_attention, gated_residual
from mmif.ops.acb_fusion import acb_fusion, acb_fusion_code

pytestmark = pytest.mark.cuda

HALF, BRAIN, SINGLE = torch.float16, torch.bfloat16, torch.float32
LONG = 100_000_000  # clock cycles that a sleeping kernel takes: about 50 ms
CLOSE = {"rtol": 1e-2, "atol": 1e-2}  # equal in float16 but for the order in which a library adds
DILATIONS = (1, 2, 3, 4)


class Case(NamedTuple):
    """A public function and how its tensors are made, on the CPU in float32."""

    run: Callable[..., Tensor]
    make: Callable[[], list[Tensor]]


def attention(channels: int, side: int, mode: str = "post", sizes: tuple[int, ...] = (2, 4), n: int = 1) -> Case:
    tokens = [(side // p) ** 2 for p in sizes]
    gate = (n, len(sizes), tokens[0], tokens[0]) if mode == "map" else (n, len(sizes), side, side)

    def make() -> list[Tensor]:
        tensors = [torch.randn(n, channels, side, side) for _ in range(3)]
        return tensors if mode == "none" else [*tensors, torch.rand(gate).mul(0.9).add(0.1)]

    return Case(partial(gated_mask_attention, patch_sizes=sizes, mode=mode), make)


def bottleneck(form: str, n: int, channels: int, side: int) -> Case:
    """No rounding crosses a kink: sums before a ReLU have few bits and are not zero, maxima have no close second."""
    c, r, maps = channels, len(DILATIONS), (n, channels, side, side)

    def make() -> list[Tensor]:
        x, path_weight = torch.randint(-4, 5, maps) / 4, torch.randint(-2, 3, (r, c, c, 3, 3)) / 64
        path_bias = (2 * torch.randint(-8, 8, (r, c)) + 1) / 512
        fuse_weight = torch.randn(c, 3 * c, 3, 3) / (25 * c**0.5)
        if form == "code":
            gates, fuse_bias, fc = torch.randn(2, *maps).unbind(), torch.randn(c), [torch.randn(r, c) / c**0.5]
        else:  # one pixel of one gate, seen through another order of the taps by each channel, has all the maxima
            gate = torch.rand(n, 2 * c, side, side)
            gate[:, 0] = 0
            gate[:, 0, side // 2, side // 2] = 16
            fuse_weight[:, c] = torch.stack([torch.randperm(9) for _ in range(c)]).view(c, 3, 3) / 8
            gates, fuse_bias, fc = [gate], torch.randn(c) - 8, [torch.randn(c, c) / c**0.5, torch.randn(c)]
        return [x, *gates, path_weight, path_bias, fuse_weight, fuse_bias, *fc]

    return Case(partial(acb_fusion_code if form == "code" else acb_fusion, dilations=DILATIONS), make)


def pointwise(function: Callable[..., Tensor], count: int, *shape: int) -> Case:
    return Case(function, lambda: [torch.randn(shape) for _ in range(count)])


# The shapes of celebahq-256: its six attention heads, its bottlenecks, its norms.
MODEL = {
    "attention-256x32": attention(256, 32),
    "attention-128x64": attention(128, 64),
    "attention-64x128": attention(64, 128),
    "bottleneck-paper": bottleneck("paper", 1, 256, 32),
    "bottleneck-code": bottleneck("code", 1, 256, 32),
    "norm-512": pointwise(adaptive_norm, 3, 2, 512),
    "norm-256x32": pointwise(adaptive_norm, 4, 2, 256, 32, 32),
    "norm-64x128": pointwise(adaptive_norm, 4, 1, 64, 128, 128),
    "residual-256x32": pointwise(gated_residual, 3, 1, 256, 32, 32),
}
# What the model does by default has its kernels above; these have kernels of their own, too.
OTHERS = {
    **{f"attention-{mode}": attention(64, 32, mode, (2, 4), n=2) for mode in ("logit", "value", "log", "none")},
    "attention-map": attention(64, 32, "map", (4, 4), n=2),
    "attention-odd": attention(20, 24, "post", (1, 2, 3, 4), n=3),
    "bottleneck-odd": bottleneck("paper", 3, 24, 7),
}
CASES = MODEL | OTHERS
HEAVY = ["attention-64x128", "bottleneck-paper"]
dtypes = pytest.mark.parametrize("dtype", [HALF, BRAIN, SINGLE], ids=["float16", "bfloat16", "float32"])


def tensors_of(name: str, dtype: torch.dtype, layout: str = "contiguous", device: str = "cuda") -> list[Tensor]:
    tensors = [t.to(device, dtype) for t in CASES[name].make()]
    memory_format = torch.channels_last if layout == "channels_last" else torch.contiguous_format
    return [t.contiguous(memory_format=memory_format) if t.ndim == 4 else t for t in tensors]


def gradients_of(function: Callable[..., Tensor]) -> Callable[..., tuple[Tensor, ...]]:
    """A function of the arguments of ``function`` and a cotangent that returns the gradients of all arguments."""

    def gradients(*values: Tensor) -> tuple[Tensor, ...]:
        args = [value.detach().requires_grad_() for value in values[:-1]]
        return torch.autograd.grad(function(*args), args, values[-1])

    return gradients


def check(name: str, args: list[Tensor], backend: str | None = "triton") -> None:
    """Output and gradients by the rule of tests/tolerances.py."""
    case, dtype = CASES[name], args[0].dtype
    run, ref = partial(case.run, backend=backend), partial(case.run, backend="reference")
    out = run(*args)
    assert_close_to_reference(out, ref, args, op=name, dtype=dtype)
    values = (*args, torch.randn_like(out))
    assert_close_to_reference(gradients_of(run)(*values), gradients_of(ref), values, grad=True, op=name, dtype=dtype)


def forward_and_gradients(name: str, args: list[Tensor]) -> Callable[[], list[Tensor]]:
    """A call of the kernels without arguments; the cotangent is the output."""
    run = partial(CASES[name].run, backend="triton")

    def call() -> list[Tensor]:
        out = run(*args)
        return [out, *gradients_of(run)(*args, out.detach())]

    return call


def forget() -> None:
    choose._store.cache_clear()
    choose._opened.cache_clear()


@pytest.fixture
def store(monkeypatch, tmp_path):
    """A store of the test's own, empty; returns a function that reads its entries."""
    monkeypatch.setenv("MMIF_CACHE_DIR", str(tmp_path / "tuned"))
    monkeypatch.delenv("MMIF_TUNE", raising=False)
    forget()

    def entries() -> list[dict[str, Any]]:
        files = (tmp_path / "tuned").glob("*.json")
        return [entry for path in files for entry in json.loads(path.read_text())["entries"]]

    yield entries
    forget()


@pytest.fixture
def untuned():
    """The first configuration, whatever is stored."""
    with tuning.forced(0):
        yield


@pytest.mark.parametrize("index", range(tuning.MAX_CONFIGS))
@pytest.mark.parametrize(
    ("dtype", "layout"),
    [(HALF, "contiguous"), (HALF, "channels_last"), (BRAIN, "channels_last"), (SINGLE, "contiguous")],
    ids=["float16-nchw", "float16-nhwc", "bfloat16-nhwc", "float32-nchw"],
)
@pytest.mark.parametrize("name", MODEL)
def test_every_configuration_equals_the_reference(name, dtype, layout, index):
    with tuning.forced(index):
        check(name, tensors_of(name, dtype, layout))


@pytest.mark.parametrize("layout", ["contiguous", "channels_last"])
@dtypes
@pytest.mark.parametrize("name", OTHERS)
def test_other_forms_equal_the_reference(name, dtype, layout, untuned):
    check(name, tensors_of(name, dtype, layout))


@pytest.mark.parametrize("name", CASES)
def test_tuning_drops_no_configuration(name, store, caplog):
    """Each has run here and its results were right; what is chosen then is right, too, and not measured again."""
    caplog.set_level(logging.INFO, "mmif.kernels.tuning")
    args = tensors_of(name, HALF, "channels_last")
    with torch.no_grad():
        CASES[name].run(*args)
    check(name, args, backend=None)
    assert [record for record in caplog.records if record.levelno > logging.INFO] == []
    assert store()
    assert {(entry["op"], str(entry["dropped"])) for entry in store() if entry["dropped"]} == set()
    assert all(entry["config"] is None or entry["ms"] <= 1.03 * entry["reference_ms"] for entry in store())
    caplog.clear()
    forget()
    check(name, args, backend=None)
    assert "mmif.kernels.tuning" not in {record.name for record in caplog.records}


def test_tuning_takes_the_fastest_and_drops_what_fails(store):
    x = torch.randn(1000, device="cuda")
    slow, fast, wrong, large = (Config(warps, 1, ()) for warps in (1, 2, 4, 8))

    def launch(config: Config) -> Tensor:
        if config == large:
            raise RuntimeError("out of resource")
        torch.cuda._sleep(5_000_000 if config == slow else 1_000)
        return x * 3 if config == wrong else x * 2

    def reference() -> Tensor:
        torch.cuda._sleep(2_000_000)
        return x * 2

    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        out = tuning.run("op", ("key", 1), (slow, fast, wrong, large), launch, reference, x.device)
    side.synchronize()
    assert torch.equal(out, x * 2)
    (entry,) = store()
    assert entry["config"]["warps"] == fast.warps
    assert set(entry["dropped"]) == {str(wrong), str(large)}
    assert 0 < entry["ms"] < entry["reference_ms"]
    tuning.run("op", ("key", 2), (slow,), launch, reference, x.device)
    verdict = tuning.verdict("op", ("key", 2), x.device)
    assert verdict is not None
    assert verdict.startswith("measured slower than the reference here (")


def test_nothing_is_measured_while_a_graph_is_captured(store):
    x = torch.randn(1000, device="cuda")
    configs = [Config(warps, 1, ()) for warps in (2, 4)]
    torch.cuda.synchronize()
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        out = tuning.run("op", ("key",), configs, lambda config: x * config.warps, lambda: -x, x.device)
    graph.replay()
    assert torch.equal(out, x * 2)
    assert store() == []


@pytest.mark.parametrize("name", CASES)
def test_auto_takes_the_kernels(name, untuned, monkeypatch):
    """Where nothing speaks against them; a choice by name agrees to the bit."""
    asked = []
    choose = dispatch.choose
    monkeypatch.setattr(dispatch, "choose", lambda *args, **facts: asked.append(choose(*args, **facts)) or asked[-1])
    args = tensors_of(name, HALF)
    with torch.no_grad():
        assert torch.equal(CASES[name].run(*args), CASES[name].run(*args, backend="triton"))
    assert asked == ["triton", "triton"]


@pytest.mark.parametrize("name", MODEL)
def test_two_runs_agree_to_the_bit(name, untuned):
    """No atomics: our sums have one order. Those of a library's convolutions may have any."""
    call = forward_and_gradients(name, tensors_of(name, HALF, "channels_last"))
    torch.testing.assert_close(call(), call(), **(CLOSE if name.startswith("bottleneck") else {"rtol": 0, "atol": 0}))


@pytest.mark.parametrize("name", HEAVY)
def test_runs_on_the_current_stream(name, untuned):
    """The inputs arrive late, on a stream of its own: a kernel on any other stream would read NaN."""
    args = tensors_of(name, HALF)
    call = forward_and_gradients(name, args)
    expected = [t.clone() for t in call()]
    held = [t.clone() for t in args]
    for t in args:
        t.fill_(float("nan"))
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        torch.cuda._sleep(LONG)
        for t, value in zip(args, held, strict=True):
            t.copy_(value)
        outputs = call()
    side.synchronize()
    torch.testing.assert_close(outputs, expected, **CLOSE)


@pytest.mark.parametrize("name", HEAVY)
def test_is_captured_in_a_graph_and_replayed_with_other_values(name, store):
    """In the configuration that was measured before."""
    args, run = tensors_of(name, HALF), CASES[name].run
    with torch.no_grad():
        side = torch.cuda.Stream()
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                run(*args)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            out = run(*args)
        for t in args:
            t.mul_(0.5)
        expected = run(*args).clone()
        out.fill_(float("nan"))
        graph.replay()
    torch.testing.assert_close(out, expected, **CLOSE)


@pytest.mark.parametrize("name", ["attention-256x32", "bottleneck-paper", "norm-256x32", "residual-256x32"])
def test_compiles_whole_with_its_gradients(name, untuned):
    args = tensors_of(name, SINGLE)
    run = partial(CASES[name].run, backend="triton")
    values = (*args, torch.randn_like(run(*args)))
    expected = gradients_of(run)(*values)
    torch.compiler.reset()
    compiled = torch.compile(lambda *args: run(*args), fullgraph=True, backend="inductor")
    with torch.no_grad():
        torch.testing.assert_close(compiled(*args), run(*args), rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(gradients_of(compiled)(*values), expected, rtol=1e-3, atol=1e-3)


def test_runs_on_the_device_of_its_tensors(untuned):
    if torch.cuda.device_count() < 2:
        pytest.skip("one CUDA device")
    for name in HEAVY:
        args = tensors_of(name, HALF)
        expected = forward_and_gradients(name, args)()
        outputs = forward_and_gradients(name, [t.to("cuda:1") for t in args])()
        assert {t.device.index for t in outputs} == {1}
        torch.testing.assert_close([t.cpu() for t in outputs], [t.cpu() for t in expected], **CLOSE)


@pytest.mark.parametrize("mode", ["post", "log"])
def test_attention_never_holds_the_map_of_all_pairs(mode, untuned):
    """4096 tokens of 128 features: the map takes 32 times what a tensor takes."""
    case = attention(32, 128, mode, (2,))
    args = [t.to("cuda", HALF) for t in case.make()]
    run = partial(case.run, backend="triton")
    cotangent = torch.randn_like(args[0])
    gradients_of(run)(*args, cotangent)
    torch.cuda.synchronize()
    torch.cuda.reset_peak_memory_stats()
    before = torch.cuda.memory_allocated()
    gradients_of(run)(*args, cotangent)
    torch.cuda.synchronize()
    assert torch.cuda.max_memory_allocated() - before < 4096 * 4096 * HALF.itemsize / 2


START = """
import logging, time, torch
from mmif import ops
logging.basicConfig(level=logging.INFO)
q = torch.randn(1, 64, 128, 128, device="cuda", dtype=torch.float16)
gate = torch.rand(1, 2, 128, 128, device="cuda", dtype=torch.float16)
torch.cuda.synchronize()
start = time.perf_counter()
with torch.no_grad():
    ops.gated_mask_attention(q, q, q, gate)
torch.cuda.synchronize()
print(time.perf_counter() - start)
"""


def test_a_new_process_starts_from_what_is_stored(store):
    """Less than a second from the first call to its result, Triton's import and the loading of the kernels included."""
    first, second = (
        subprocess.run([sys.executable, "-c", START], capture_output=True, text=True, check=True) for _ in range(2)
    )
    assert "INFO:mmif.kernels.tuning:gated_mask_attention" in first.stderr
    assert "mmif.kernels.tuning" not in second.stderr
    assert float(second.stdout) < 1.0
