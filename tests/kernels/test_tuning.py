"""How a kernel's configuration is chosen and remembered, on a clock of the tests' own: no GPU is needed."""

from __future__ import annotations

import json
import logging
import multiprocessing
import os
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
import torch

from mmif.kernels import tuning
from mmif.kernels.tuning import Config, choose, measure, store
from mmif.kernels.tuning.store import Choice, Store
from mmif.ops import _triton

A, B, C = (Config(warps, 2, (("BLOCK", 16 * warps),)) for warps in (1, 2, 4))
KEY = ("forward", 2, 64, "float16")
CPU = torch.device("cpu")
X = torch.linspace(-1.0, 1.0, 100)
BORDER = torch.where(X.argsort() < len(X) // 10, 1.05 * X, X)  # a tenth of it is wrong


class Op:
    """An op whose kernel takes ``ms[config]`` and returns ``results[config]``, or raises it; None is the reference."""

    def __init__(self, ms, results=None, configs=(A, B, C)):
        self.ms, self.results, self.configs, self.ran = ms, results or {}, configs, []

    def launch(self, config):
        self.ran.append(config)
        result = self.results.get(config, X)
        if isinstance(result, Exception):
            raise result
        return result

    def time_all(self, candidates):
        times = []
        for candidate in candidates:
            candidate()
            times.append(self.ms[self.ran[-1]])
        return times

    def __call__(self):
        """Run the op, return which way its result came from."""
        tuning.run("op", KEY, self.configs, self.launch, lambda: self.launch(None), CPU)
        return self.ran[-1]


@pytest.fixture
def op(monkeypatch, tmp_path):
    """Makes an :class:`Op` on what looks like a GPU, with a store in the test's folder."""
    monkeypatch.setenv("MMIF_CACHE_DIR", str(tmp_path))
    monkeypatch.delenv("MMIF_TUNE", raising=False)
    monkeypatch.setattr(choose, "_interpreting", False)
    monkeypatch.setattr(choose, "file_name", lambda device: "device.json")
    monkeypatch.setattr(torch.cuda, "synchronize", lambda: None)
    monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: False)
    forget()

    def make(*args, **kwargs):
        op = Op(*args, **kwargs)
        monkeypatch.setattr(measure, "_time_all", op.time_all)
        return op

    yield make
    forget()


def forget():
    """Forget what this process knows, as a new one."""
    choose._store.cache_clear()
    choose._opened.cache_clear()
    store._warn_once.cache_clear()


def stored(path="device.json"):
    (entry,) = json.loads(Path(path).read_text())["entries"]
    return entry


def test_the_fastest_wins_and_is_remembered(op, caplog):
    caplog.set_level(logging.INFO, "mmif.kernels.tuning")
    run = op({None: 0.31, A: 0.5, B: 0.25, C: 0.4})
    assert run() == B
    assert caplog.messages == [
        "op forward 2 64 float16: BLOCK=32 num_warps=2 num_stages=2 (kernel 0.25 ms, reference 0.31 ms)"
    ]
    assert tuning.verdict("op", KEY, CPU) is None
    run.ran.clear()
    assert run() == B
    forget()  # now from the file
    assert run() == B
    assert run.ran == [B, B]


def test_what_was_chosen_can_be_told(op):
    op({None: 0.31, A: 0.5, B: 0.25, C: 0.4})()
    name = " ".join(map(str, ("op", *KEY)))
    assert tuning.chosen(CPU) == {name: f"{B} (kernel 0.25 ms, reference 0.31 ms)"}


def test_a_kernel_slower_than_its_reference_is_not_used(op):
    run = op({None: 0.25, A: 0.5, B: 0.31, C: 0.4})
    assert run() is None
    run.ran.clear()
    assert run() is None
    assert run.ran == [None]
    words = "measured slower than the reference here (0.31 ms against 0.25 ms)"
    assert tuning.verdict("op", KEY, CPU) == words
    assert tuning.verdict("op", (*KEY, "other"), CPU) is None
    with tuning.forced(0):
        assert tuning.verdict("op", KEY, CPU) is None


def test_a_kernel_may_be_three_percent_slower(op):
    assert op({None: 1.0, A: 1.029}, configs=(A,))() == A
    forget()
    os.remove("device.json")
    assert op({None: 1.0, A: 1.031}, configs=(A,))() is None


@pytest.mark.parametrize(
    "wrong",
    [
        X + 0.1,
        BORDER,
        X * torch.nan,
        X.where(X != X[50], torch.inf),
        X[:50],
        X.half(),
        (X, X),
    ],
    ids=["off", "border", "nan", "one_inf", "shape", "dtype", "number"],
)
def test_a_configuration_with_wrong_results_is_dropped(op, caplog, wrong):
    run = op({None: 0.31, A: 0.5, C: 0.4}, {B: wrong})  # no time of B: it is never measured
    assert run() is None
    assert list(stored()["dropped"]) == [str(B)]
    assert [record.levelname for record in caplog.records] == ["WARNING"]
    assert f"op: {B} is not used, its results are wrong: " in caplog.text


def test_rounding_is_not_wrong(op):
    half = X.half()
    infinite = torch.where(X > 0.9, torch.inf, X)
    for truth, close in (
        (half, half * (1 + 4 * torch.finfo(torch.float16).eps)),
        (X, X.half().float()),  # what TF32 makes of it
        ((X, X * 1e-9), (X, X * 1e-10)),  # a gradient that vanishes
        (infinite, infinite + 1e-6),
        ((X, X.argsort()), (X, X.argsort(descending=True))),  # integers are no results
        (X.new_empty(0), X.new_empty(0)),
    ):
        assert op({None: 2.0, A: 1.0}, {None: truth, A: close}, (A,))() == A
        forget()
        os.remove("device.json")


def test_infinities_hide_no_error(op):
    infinite = torch.where(X > 0.9, torch.inf, X)
    assert op({None: 2.0}, {None: infinite, A: infinite + 0.5}, (A,))() is None


@pytest.mark.parametrize("broken", [X * torch.nan, (X * 1e9).half()], ids=["nan", "overflow"])
def test_results_that_are_no_numbers_decide_nothing(op, broken):
    run = op({}, {None: broken})
    assert run() is None
    assert not Path("device.json").exists()
    run.results.clear()
    run.ms = {None: 2.0, A: 1.5, B: 1.0, C: 3.0}
    assert run() == B


@pytest.mark.parametrize("broken", [(X * 1e9).half(), torch.OutOfMemoryError("no memory")], ids=["overflow", "memory"])
def test_what_may_pass_is_held_against_no_configuration(op, broken):
    run = op({}, {None: X.half(), A: broken})
    assert run() is None
    assert not Path("device.json").exists()


@pytest.mark.triton
def test_a_first_configuration_that_does_not_fit_is_done_without(op, monkeypatch, caplog):
    from triton.runtime.errors import OutOfResources

    monkeypatch.setenv("MMIF_TUNE", "0")
    assert op({}, {A: OutOfResources(131072, 101376, "shared memory")})() is None
    assert "op: the reference serves, since " in caplog.text


def test_a_configuration_that_fails_is_dropped(op, caplog):
    out_of_resources = RuntimeError("out of resource: shared memory,\n  Required: 300000")
    compilation = ValueError("at 3:4:\n" + "the source\n" * 100 + "incompatible types")
    run = op({None: 0.31, B: 0.25}, {A: out_of_resources, C: compilation})
    assert run() == B
    assert not caplog.records
    dropped = stored()["dropped"]
    assert dropped[str(A)] == "RuntimeError: out of resource: shared memory, Required: 300000"
    assert dropped[str(C)].startswith("ValueError: at 3:4: the source")
    assert dropped[str(C)].endswith("the source incompatible types")
    assert len(dropped[str(C)]) < 330


def test_all_dropped_is_the_reference(op):
    run = op({None: 0.31}, {A: RuntimeError("too large"), B: RuntimeError("too large"), C: RuntimeError("too slow")})
    assert run() is None
    reasons = "RuntimeError: too large; RuntimeError: too slow"
    assert tuning.verdict("op", KEY, CPU) == f"no configuration of its kernel serves here ({reasons})"


def test_a_reference_too_large_for_the_memory_is_done_without(op):
    run = op({A: 0.3, C: 0.2}, {None: torch.OutOfMemoryError("tried to allocate 64 GiB"), B: X + 1})
    assert run() == C
    assert set(stored()["dropped"]) == {"reference", str(B)}


def test_an_error_of_the_reference_is_an_error(op):
    with pytest.raises(RuntimeError, match="illegal memory access"):
        op({}, {None: RuntimeError("illegal memory access")})()
    assert not Path("device.json").exists()


def test_where_nothing_runs_the_caller_sees_why(op):
    full = torch.OutOfMemoryError("full")
    with pytest.raises(torch.OutOfMemoryError, match="full"):
        op({}, {None: full, A: full, B: full, C: full})()


@pytest.mark.parametrize("why", ["environment", "capture", "compile"])
def test_where_nothing_may_be_measured(op, monkeypatch, why):
    if why == "environment":
        monkeypatch.setenv("MMIF_TUNE", "0")
    elif why == "capture":
        monkeypatch.setattr(torch.cuda, "is_current_stream_capturing", lambda: True)
    else:
        monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    run = op({})
    assert run() == A
    assert run.ran == [A]
    assert not Path("device.json").exists()
    choose._store(CPU).put("op", KEY, Choice(B, 0.25, 0.31))
    assert run() == B
    choose._store(CPU).put("op", KEY, Choice(None, 0.31, 0.25))
    assert run() is None


def test_threads_measure_once(op, monkeypatch):
    """Autograd runs each device's backward on a thread of its own."""
    run, measured = op({None: 2.0, A: 1.0}, configs=(A,)), []

    def time_all(candidates):
        measured.append(1)
        time.sleep(0.1)
        return run.time_all(candidates)

    monkeypatch.setattr(measure, "_time_all", time_all)
    with ThreadPoolExecutor(4) as pool:
        assert [future.result() for future in [pool.submit(run) for _ in range(4)]] == [A] * 4
    assert measured == [1]


def test_the_interpreter_runs_the_first(op, monkeypatch):
    monkeypatch.setattr(choose, "_interpreting", True)
    run = op({})
    assert run() == A
    assert tuning.capability(CPU) == 90
    assert tuning.verdict("op", KEY, CPU) is None
    assert run.ran == [A]


def test_forced(op):
    run = op({})
    for index, config in enumerate((A, B, C, A)):
        with tuning.forced(index):
            assert run() == config
    assert run.ran == [A, B, C, A]
    with tuning.forced(1):
        with pytest.raises(RuntimeError, match="inside"), tuning.forced(2):
            raise RuntimeError("inside")
        assert run() == B
    run.ms = {None: 1.0, A: 0.1, B: 0.2, C: 0.3}
    assert run() == A


def test_a_stored_configuration_that_is_no_longer_offered_is_measured_again(op):
    assert op({None: 3.0, A: 1.0}, configs=(A,))() == A
    forget()
    assert op({None: 3.0, B: 1.0, C: 2.0}, configs=(B, C))() == B
    assert stored()["config"]["warps"] == B.warps


def test_the_number_of_configurations_is_bounded(op):
    with pytest.raises(AssertionError, match="between 1 and 6 configurations, got 7"):
        op({}, configs=(A,) * 7)()


def test_times_are_medians_of_turns(monkeypatch):
    """The fast one has an outlier; the slow one runs less often."""
    calls = []

    def elapsed(turn):
        before = len(calls)
        for call in turn:
            call()
        return [30.0 if name == "slow" else 90.0 if before and i == 0 else 1.0 for i, name in enumerate(calls[before:])]

    monkeypatch.setattr(measure, "_elapsed", elapsed)
    assert measure._time_all([lambda: calls.append("fast"), lambda: calls.append("slow")]) == [1.0, 30.0]
    assert calls[:6] == ["fast", "slow"] * 3
    assert calls.count("fast") == 1 + measure.MAX_REPEATS
    assert calls.count("slow") == 1 + measure.MIN_REPEATS


def test_the_store_survives_its_process(tmp_path):
    path = tmp_path / "folder" / "device.json"
    choice = Choice(C, 0.25, None, {"reference": "OutOfMemoryError: 64 GiB", str(A): 'ValueError: "quoted"'})
    Store(path).put("op", KEY, choice)
    code = (
        "import sys; from pathlib import Path; from mmif.kernels import tuning; from mmif.kernels.tuning import store; "
        "print(store.Store(Path(sys.argv[1])).get('op', ('forward', 2, 64, 'float16'))); print('triton' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(path)], capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == [repr(choice), "False"]
    assert [p.name for p in path.parent.glob("*.tmp")] == []


def entry(**changes):
    """A file with one entry, right but for the changes."""
    right = {"op": "op", "key": list(KEY), "config": None, "ms": 2.0, "reference_ms": 1.0, "dropped": {}}
    return json.dumps({"entries": [right | changes]})


NOT_A_STORE = {
    "empty": "",
    "cut": "{",
    "list": "[]",
    "no_key": '{"entries": [{"op": "op"}]}',
    "no_list": '{"entries": 3}',
    "binary": "\x00",
    "deep": "[" * 200_000,
    "text_for_a_time": entry(ms="fast"),
    "no_reference": entry(reference_ms=None),
    "number_for_a_reason": entry(ms=None, dropped={"a": 1}),
    "list_for_a_config": entry(config=[1]),
}


def test_the_entry_that_is_spoilt_is_right(op):
    Path("device.json").write_text(entry())
    assert op({})() is None


@pytest.mark.parametrize("content", NOT_A_STORE.values(), ids=NOT_A_STORE)
def test_a_store_that_cannot_be_read_counts_as_empty(op, caplog, content):
    Path("device.json").write_text(content)
    run = op({None: 0.31, A: 0.5, B: 0.25, C: 0.4})
    assert run() == B
    assert len(caplog.records) == 1
    assert "device.json cannot be read, its kernels are measured again: " in caplog.text
    assert stored()["ms"] == 0.25


def test_a_folder_that_cannot_be_written(op, monkeypatch, tmp_path, caplog):
    (tmp_path / "file").touch()
    monkeypatch.setenv("MMIF_CACHE_DIR", str(tmp_path / "file" / "folder"))
    run = op({None: 0.31, A: 0.5, B: 0.25, C: 0.4})
    assert run() == B
    run.ran.clear()
    assert run() == B
    assert run.ran == [B]
    assert len(caplog.records) == 1
    assert "tuned kernels cannot be stored, they are measured again next time: " in caplog.text


def _put_many(path, writer):
    mine = Store(path)
    for i in range(10):
        mine.put("op", (writer, i), Choice(A, 1.0, 2.0))


def test_concurrent_writers_lose_nothing(tmp_path):
    path = tmp_path / "device.json"
    late = Store(path)
    context = multiprocessing.get_context("fork")
    writers = [context.Process(target=_put_many, args=(path, i)) for i in range(4)]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
        assert writer.exitcode == 0
    late.put("op", ("late",), Choice(None, 2.0, 1.0))
    last = Store(path)
    assert late.get("op", (3, 9)) == Choice(A, 1.0, 2.0)
    assert all(last.get("op", (writer, i)) for writer in range(4) for i in range(10))
    assert last.get("op", ("late",)) == Choice(None, 2.0, 1.0)


def test_the_folder_follows_the_environment(monkeypatch, tmp_path):
    monkeypatch.setenv("MMIF_CACHE_DIR", str(tmp_path))
    assert store.folder() == tmp_path
    monkeypatch.delenv("MMIF_CACHE_DIR")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert store.folder() == tmp_path / "cache" / "mmif" / "tuned"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert store.folder() == tmp_path / ".cache" / "mmif" / "tuned"
    monkeypatch.setenv("XDG_CACHE_HOME", "cache")  # relative: the standard says that it does not count
    assert store.folder() == tmp_path / ".cache" / "mmif" / "tuned"


def test_a_user_without_a_home_stores_nothing_and_is_told_once(op, monkeypatch, caplog):
    """A folder shared by all users would let each of them choose how the others' kernels run."""
    monkeypatch.delenv("MMIF_CACHE_DIR")
    monkeypatch.delenv("XDG_CACHE_HOME", raising=False)
    monkeypatch.setattr(os.path, "expanduser", lambda path: path)
    assert store.folder() is None
    run = op({None: 0.31, A: 0.5, B: 0.25, C: 0.4})
    assert run() == B
    run.ran.clear()
    assert run() == B
    assert run.ran == [B]  # remembered by the process
    assert caplog.messages == [
        "tuned kernels cannot be stored, they are measured again next time: "
        "this user has no home; set MMIF_CACHE_DIR to a folder"
    ]


@pytest.mark.triton
def test_the_file_is_named_by_all_that_times_depend_on(monkeypatch):
    import triton

    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    monkeypatch.setattr(torch.cuda, "get_device_name", lambda device: "A GPU/80GB")
    monkeypatch.setattr(store, "_driver", lambda: "580.95")
    name = store.file_name(CPU)
    versions = f"torch{torch.__version__}_triton{triton.__version__}".replace("+", "-")
    assert name == f"A-GPU-80GB_sm90_driver580.95_{versions}_{store.sources(store.PACKAGE)}.json"


@pytest.mark.parametrize("name", ["kernel.py", "room/kernel.py"])
def test_changed_sources_have_another_file(tmp_path, name):
    (tmp_path / "room").mkdir()
    (tmp_path / name).write_text("BLOCK = 64")
    before = store.sources(tmp_path)
    assert store.sources(tmp_path) == before
    (tmp_path / name).write_text("BLOCK = 32")
    assert store.sources(tmp_path) != before


def test_the_sources_are_all_of_the_package():
    assert (store.PACKAGE / "attention" / "fwd.py").exists()
    assert (store.PACKAGE / "adaptive_norm.py").exists()


class OnGpu(torch.Tensor):
    device = torch.device("cuda:99")  # none that a machine has: what is found out of a device is kept


def test_an_op_is_passed_over_where_its_reference_was_faster(op, monkeypatch):
    monkeypatch.setattr(torch.cuda, "get_device_capability", lambda device: (9, 0))
    op({None: 0.25, A: 0.31}, configs=(A,))()
    keys = {4: KEY, 5: None}

    def advice(x):
        return _triton._advice("op", lambda x: keys.get(x.shape[0], ("other",)), x)

    four, five, six = (torch.empty(n).as_subclass(OnGpu) for n in (4, 5, 6))
    assert advice(four) == "measured slower than the reference here (0.31 ms against 0.25 ms)"
    assert advice(five) is advice(six) is _triton._advice("op", None, four) is None
    assert _triton._supports(None, four) is None  # asked for by name it runs all the same
    monkeypatch.setattr(torch.compiler, "is_compiling", lambda: True)
    assert advice(four) is None
