from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from mmif.data.prepare import prepare
from mmif.data.settings import Settings
from mmif.data.workers import share_out

END_DURING_WORK = """
import os, time
from mmif.data.workers import share_out
share_out(time.sleep, [(0,), (60,), (60,)], 2, lambda _: os.kill(os.getpid(), {signal}))
"""


def test_every_result_comes_once():
    done = []
    share_out(divmod, [(i, 3) for i in range(5)], 2, done.append)
    assert sorted(done) == [divmod(i, 3) for i in range(5)]


def test_an_error_of_the_work_comes_through():
    with pytest.raises(ZeroDivisionError):
        share_out(divmod, [(1, 1), (1, 0)], 2, lambda _: None)


def test_a_process_ended_from_outside_is_one_clear_error():
    with pytest.raises(
        ChildProcessError, match=r"^a worker was killed, probably for lack of memory; .* fewer --workers"
    ):
        share_out(os._exit, [(1,), (1,)], 2, lambda _: None)


OWNER_KILLED = """
import os, sys
from mmif.data.dataset import InfiniteSampler, PackedDataset, batches
if __name__ == "__main__":
    data = batches(PackedDataset(sys.argv[1], "train"), InfiniteSampler(4, 0), 2, workers=2)
    os.kill(os.getpid(), 9)
"""


def test_workers_that_start_while_their_owner_is_killed_end_too(folder: Path, tmp_path: Path):
    prepare(folder, tmp_path / "set", Settings("folder", size=32, seg="none"), progress=False)
    (tmp_path / "owner.py").write_text(OWNER_KILLED)
    # returns only when nobody holds the pipes any more, the workers included
    words = [sys.executable, str(tmp_path / "owner.py"), str(tmp_path / "set")]
    with subprocess.Popen(words, stdout=subprocess.PIPE, stderr=subprocess.PIPE, start_new_session=True) as owner:
        try:
            owner.communicate(timeout=60)
        except subprocess.TimeoutExpired:
            os.killpg(owner.pid, signal.SIGKILL)
            raise
    assert owner.returncode == -signal.SIGKILL


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGKILL])
def test_the_processes_end_with_their_owner(number: signal.Signals):
    code = END_DURING_WORK.format(signal=int(number))
    # returns only when nobody holds the pipes any more, the workers included
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=False)
    assert ended.returncode == -number
