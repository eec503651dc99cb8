"""The chooser: who is asked first, what is said, and what an export gets."""

import logging
import os
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch

from mmif.ops import _triton, dispatch
from mmif.ops.dispatch import BackendUnavailable, choose, use

OP = "an_op"
X = torch.zeros(1)


@pytest.fixture
def bodies(monkeypatch):
    """An empty table of bodies, and a CUDA device as far as the chooser can see; returns a function to add a body."""
    monkeypatch.setattr(dispatch, "_bodies", {})
    monkeypatch.setattr(dispatch, "_absent", {})  # an extension that was built without CUDA has its own words
    monkeypatch.setattr(dispatch, "_told", set())
    monkeypatch.setattr(dispatch._in_force, "backend", "auto")
    monkeypatch.setattr(dispatch, "_interpreted", False)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    return lambda backend, supports=lambda *_: None, op=OP: dispatch.register_body(op, backend, supports)


def only_float32(x):
    return None if x.dtype == torch.float32 else f"it takes float32 only, got {x.dtype}"


def test_nothing_compiled_is_the_reference(bodies):
    assert choose(OP, X) == "reference"


def test_auto_takes_the_first_that_can(bodies):
    bodies("triton")
    assert choose(OP, X) == "triton"
    bodies("cuda")
    assert choose(OP, X) == "cuda"
    assert choose("another_op", X) == "reference"


def test_argument_before_use_before_environment(bodies, monkeypatch):
    bodies("cuda")
    bodies("triton")
    monkeypatch.setattr(dispatch._in_force, "backend", "triton")  # what MMIF_BACKEND sets
    assert choose(OP, X) == "triton"
    with use("cuda"):
        assert choose(OP, X) == "cuda"
        assert choose(OP, X, backend="reference") == "reference"
        with use("auto"):
            assert choose(OP, X) == "cuda"
        with use("reference"):
            assert choose(OP, X) == "reference"
            assert choose(OP, X, backend="auto") == "cuda"
        assert choose(OP, X) == "cuda"
    assert choose(OP, X) == "triton"


def test_require_speaks_for_the_backend_in_force(bodies, monkeypatch):
    dispatch.require("auto")
    dispatch.require("reference")
    with pytest.raises(BackendUnavailable, match="triton"):
        dispatch.require("triton")
    monkeypatch.setattr(dispatch._in_force, "backend", "nonsense")  # what MMIF_BACKEND may say
    with pytest.raises(ValueError, match="'nonsense'"):
        dispatch.require(None)


def test_use_ends_with_its_block_also_after_an_error(bodies):
    with pytest.raises(RuntimeError, match="inside"), use("triton"):
        raise RuntimeError("inside")
    assert choose(OP, X) == "reference"


def test_threads_do_not_see_each_other(bodies):
    """Two blocks that overlap, whichever ends first: each thread keeps its own, and nothing is left behind."""
    bodies("cuda")
    bodies("triton")
    both_inside, first_left = threading.Barrier(2), threading.Event()

    def serve(backend, leaves_first):
        with use(backend):
            both_inside.wait()
            inside = choose(OP, X)
            if not leaves_first:
                first_left.wait()
                assert choose(OP, X) == inside
        first_left.set()
        return inside, choose(OP, X)

    for first, second in (("triton", "reference"), ("reference", "triton")):
        for leaves_first in (True, False):
            first_left.clear()
            with ThreadPoolExecutor(2) as pool:
                served = [pool.submit(serve, first, leaves_first), pool.submit(serve, second, not leaves_first)]
            assert [done.result() for done in served] == [(first, "cuda"), (second, "cuda")]
            assert choose(OP, X) == "cuda"


def test_a_thread_starts_with_what_the_environment_says(bodies):
    bodies("cuda")
    with use("reference"), ThreadPoolExecutor(1) as pool:
        assert pool.submit(choose, OP, X).result() == "cuda"


@pytest.mark.parametrize(
    ("value", "outcome"),
    [
        ("cuda", "BackendUnavailable: bias_act: backend 'cuda' cannot run: "),
        ("cudnn", "ValueError: backend must be one of auto, cuda, triton, cpu, reference; got 'cudnn'"),
    ],
)
def test_environment(value, outcome):
    code = (
        "import torch; from mmif.ops import dispatch\n"
        "try: dispatch.choose('bias_act', torch.zeros(1))\n"
        "except Exception as error: print(f'{type(error).__name__}: {error}')"
    )
    environment = {**os.environ, "MMIF_BACKEND": value, "CUDA_VISIBLE_DEVICES": ""}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith(outcome)


def test_unknown_names(bodies):
    known = r"backend must be one of auto, cuda, triton, cpu, reference; got 'cudnn'"
    with pytest.raises(ValueError, match=known):
        choose(OP, X, backend="cudnn")
    with pytest.raises(ValueError, match=known), use("cudnn"):
        pass
    with pytest.raises(ValueError, match=known):
        bodies("cudnn")
    with pytest.raises(ValueError, match="backend must be one of cuda, triton, cpu, reference; got 'cudnn'"):
        dispatch.why_not("cudnn")


def test_an_explicit_request_that_cannot_be_met_raises_with_the_reason(bodies, monkeypatch):
    with pytest.raises(BackendUnavailable, match=r"^an_op: backend 'cuda' cannot run: this version .* no cuda kernels"):
        choose(OP, X, backend="cuda")
    bodies("cuda", only_float32)
    bodies("triton", op="another_op")
    with pytest.raises(BackendUnavailable, match=r"'triton' cannot run: it has no body for an_op; use backend='auto'"):
        choose(OP, X, backend="triton")
    with pytest.raises(BackendUnavailable, match=r"'cuda' cannot run: it takes float32 only, got torch.float16"):
        choose(OP, X.half(), backend="cuda")
    with use("cuda"), pytest.raises(BackendUnavailable, match="takes float32 only"):
        choose(OP, X.half())
    with use("triton"):
        assert choose(OP, X) == "cuda"  # forced for a whole model, and this op was never written for it
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(BackendUnavailable, match=r"'cuda' cannot run: no CUDA device is visible to torch"):
        choose(OP, X, backend="cuda")


def test_auto_passes_over_a_body_and_says_why_once(bodies, caplog):
    bodies("cuda", only_float32)
    bodies("triton")
    caplog.set_level(logging.INFO, "mmif.ops.dispatch")
    assert choose(OP, X.half()) == "triton"
    assert choose(OP, X.half()) == "triton"
    assert [(r.levelname, r.message) for r in caplog.records] == [
        ("INFO", "an_op: cuda passed over: it takes float32 only, got torch.float16")
    ]
    assert choose(OP, X) == "cuda"
    choose(OP, X.double())  # another reason is said, too
    assert len(caplog.records) == 2


def test_a_body_sees_the_tensors_of_the_call(bodies):
    seen = []
    bodies("cuda", lambda *tensors: seen.append(tensors))
    choose(OP, X, None)
    assert seen == [(X, None)]


def test_a_body_sees_the_facts_of_the_call(bodies):
    def even_sizes(x, *, sizes):
        return None if all(size % 2 == 0 for size in sizes) else f"sizes must be even, got {sizes}"

    bodies("cuda", even_sizes)
    assert choose(OP, X, sizes=(2, 4)) == "cuda"
    assert choose(OP, X, sizes=(2, 3)) == "reference"
    with pytest.raises(BackendUnavailable, match=r"'cuda' cannot run: sizes must be even, got \(3,\); use"):
        choose(OP, X, backend="cuda", sizes=(3,))


def test_the_interpreter_serves_by_name_alone(bodies, monkeypatch, caplog):
    """Without a device: it runs on the CPU."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    bodies("triton")
    assert dispatch.why_not("triton") == "no CUDA device is visible to torch"
    monkeypatch.setattr(dispatch, "_interpreted", True)
    assert dispatch.interpreted()
    assert dispatch.why_not("triton") is None
    caplog.set_level(logging.INFO, "mmif.ops.dispatch")
    assert choose(OP, X) == "reference"
    assert caplog.messages == ["an_op: triton passed over: the interpreter is for tests, ask for triton by name"]
    assert choose(OP, X, backend="triton") == "triton"
    with use("triton"):
        assert choose(OP, X) == "triton"


@pytest.mark.parametrize("value", ["0", "1"])
def test_the_interpreter_is_named_by_the_environment(value):
    code = "from mmif.ops import dispatch; print(dispatch.interpreted())"
    environment = {**os.environ, "TRITON_INTERPRET": value}
    done = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == str(value == "1")


def test_what_no_triton_kernel_takes(bodies, monkeypatch):
    _triton.announce(OP, lambda *tensors, most: None if len(tensors) <= most else f"at most {most}, got {len(tensors)}")

    def reason(*tensors):
        with pytest.raises(BackendUnavailable, match=r"^an_op: backend 'triton' cannot run: ") as error:
            choose(OP, *tensors, backend="triton", most=2)
        return str(error.value).removeprefix("an_op: backend 'triton' cannot run: ").partition("; use")[0]

    assert reason(X) == "this backend needs tensors on cuda; one is on cpu"
    monkeypatch.setattr(dispatch, "_interpreted", True)
    assert choose(OP, X, None, backend="triton", most=2) == "triton"
    assert choose(OP, X, X.long(), backend="triton", most=2) == "triton"
    assert reason(X, X, X) == "at most 2, got 3"
    assert reason(X, X.to("meta")) == "tensors must share a device, got cpu, meta"
    assert reason(X, X.double()) == "tensors must be float16, bfloat16 or float32, got torch.float64"
    assert reason(X, X[:0]) == "a tensor is empty"
    assert reason(X.expand(2, 2**31)) == "a sample has 2^31 elements or more"
    assert choose(OP, X.expand(2**31, 2), backend="triton", most=2) == "triton"


def test_without_triton_its_backend_is_absent(bodies, monkeypatch):
    monkeypatch.setattr(dispatch, "_absent", {})
    monkeypatch.setattr(dispatch, "installed", lambda module: module != "triton")
    _triton.announce(OP)
    assert dispatch.why_not("triton") == "triton is not installed (pip install triton)"


class Chooses(torch.nn.Module):
    def forward(self, x):
        return x + 1 if choose(OP, x, backend="cuda") == "reference" else x * 2


@pytest.mark.parametrize("strict", [False, True], ids=["traced", "strict"])
def test_an_export_always_gets_the_reference(bodies, monkeypatch, strict):
    """Even where another backend is asked for by name, and the same module was compiled before."""
    bodies("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the compiler would use the device
    monkeypatch.setattr(dispatch, "why_not", lambda _: None)
    model = Chooses()
    torch.compiler.reset()
    compiled = torch.compile(model, fullgraph=True, backend="eager")
    assert model(X) == compiled(X) == 0
    program = torch.export.export(model, (X,), strict=strict)
    assert program.module()(X) == 1
    assert not dispatch.exporting()
    assert compiled(X) == 0


def doubled_by_cuda(x):
    """One more by the reference, twice as much by another body."""
    return x + 1 if choose(OP, x) == "reference" else x * 2


def with_the_reference(x):
    with use("reference"):
        inside = doubled_by_cuda(x)
    return inside + 10 * doubled_by_cuda(x)


@pytest.fixture
def compiled(bodies, monkeypatch):
    """Compile whole, with a CUDA body as far as the chooser can see."""
    bodies("cuda")
    monkeypatch.setattr(dispatch, "why_not", lambda _: None)
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)  # the compiler would use the device
    torch.compiler.reset()
    return lambda function: torch.compile(function, fullgraph=True, backend="eager")


def test_a_compiled_function_follows_use(compiled):
    function = compiled(doubled_by_cuda)
    assert function(X) == 0
    with use("reference"):
        assert function(X) == 1
        with use("auto"):
            assert function(X) == 0
        assert function(X) == 1
    assert function(X) == 0


def test_a_compiled_function_follows_use_in_each_thread(compiled):
    function = compiled(doubled_by_cuda)
    with use("reference"), ThreadPoolExecutor(1) as pool:
        assert function(X) == 1
        assert pool.submit(function, X).result() == 0
        assert function(X) == 1


def test_use_inside_a_compiled_function(compiled):
    function = compiled(with_the_reference)
    assert function(X) == 1
    assert choose(OP, X) == "cuda"
    with use("reference"):
        assert function(X) == 11
        assert choose(OP, X) == "reference"


def test_a_choice_that_did_not_change_compiles_once(compiled):
    function = compiled(doubled_by_cuda)
    function(X)
    with torch.compiler.set_stance("fail_on_recompile"):
        with use("auto"):
            function(X)
        function(X)


def test_the_table_is_complete(bodies):
    rows = dispatch.table()
    assert [name for name, _ in rows] == list(dispatch.OP_BACKENDS)
    reasons = dict(rows)
    assert reasons["reference"] is None
    assert "no cuda kernels" in reasons["cuda"]
    bodies("cuda")  # found as soon as it is there
    assert dict(dispatch.table())["cuda"] is None


def test_what_is_usable_does_not_depend_on_what_was_imported_before():
    code = "from mmif.ops import dispatch; {}; print(dispatch.why_not('cpu'), dispatch.why_not('cuda'))"
    for first in ("dispatch.require(None)", "dispatch.table()", "dispatch.describe()", "import mmif.ops"):
        done = subprocess.run([sys.executable, "-c", code.format(first)], capture_output=True, text=True, check=True)
        assert done.stdout.strip() == f"{dispatch.why_not('cpu')} {dispatch.why_not('cuda')}"


def test_describe(bodies):
    assert dispatch.describe() == "ops reference"
    bodies("triton")
    assert dispatch.describe() == "ops triton"
    with use("reference"):
        assert dispatch.describe() == "ops reference"


def test_installed():
    assert dispatch.installed("torch")
    assert not dispatch.installed("a_module_that_nobody_has")


def test_forward_mode_takes_the_reference(bodies):
    """A registered op has no forward-mode derivative: without this its tangent would be dropped without a word."""
    bodies("cuda")

    def op(x):
        assert choose(OP, x) == choose(OP, x, backend="reference") == "reference"
        with pytest.raises(BackendUnavailable, match=f"^{OP}: backend 'cuda' has no forward-mode gradients; use"):
            choose(OP, x, backend="cuda")
        return 3 * x

    assert torch.func.jvp(op, (X,), (torch.ones(1),))[1] == 3
    with torch.autograd.forward_ad.dual_level():
        op(torch.autograd.forward_ad.make_dual(X, torch.ones(1)))
    assert choose(OP, X) == "cuda"


def test_a_transform_takes_the_reference(bodies):
    """No registered op follows torch.func."""
    bodies("cuda")

    def op(x):
        assert choose(OP, x) == choose(OP, x, backend="reference") == "reference"
        with pytest.raises(BackendUnavailable, match=f"^{OP}: backend 'cuda' has no transforms of torch.func; use"):
            choose(OP, x, backend="cuda")
        return (3 * x).sum()

    assert torch.func.grad(op)(X) == 3
    assert torch.vmap(op)(X) == 0
    assert choose(OP, X) == "cuda"


def test_a_compiled_transform_takes_the_reference(compiled):
    function = compiled(torch.func.grad(lambda x: doubled_by_cuda(x).sum()))
    assert function(X) == 1
    assert compiled(doubled_by_cuda)(X) == 0
