"""What all commands share: which errors are one line, how an interrupt ends, what reaches the terminal."""

from __future__ import annotations

import argparse
import os
import signal
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
from tqdm import tqdm

import mmif
from mmif.__main__ import VERBS, main
from mmif.commands import cli
from mmif.ops.dispatch import BackendUnavailable


def run(body, *argv):
    return cli.run(body, argparse.ArgumentParser(prog="mmif-x"), argv)


def raising(error):
    def body(args):
        raise error

    return body


def test_what_the_body_returns_is_returned():
    assert run(lambda args: args.debug, "--debug") is True


@pytest.mark.parametrize("error", [ValueError("a\n b"), OSError("a b"), BackendUnavailable("a b")])
def test_a_mistake_of_the_user_is_one_line(capsys, error):
    with pytest.raises(SystemExit) as stop:
        run(raising(error))
    assert stop.value.code == 2
    assert capsys.readouterr().err == "mmif-x: error: a b\n"
    with pytest.raises(type(error)):
        run(raising(error), "--debug")


@pytest.mark.parametrize(
    "body",
    [
        raising(MemoryError()),
        raising(torch.OutOfMemoryError("CUDA out of memory")),
        lambda args: torch.empty(2**60, dtype=torch.uint8),  # beyond every address space
    ],
    ids=["python", "cuda", "cpu"],
)
def test_too_little_memory_is_one_line(capsys, body):
    with pytest.raises(SystemExit) as stop:
        run(body)
    assert stop.value.code == 2
    error = capsys.readouterr().err
    assert error.startswith("mmif-x: error: out of memory: use a smaller model, photograph or batch (")
    assert error.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("mine"), ZeroDivisionError("mine"), AssertionError("mine")])
def test_a_mistake_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error), match="mine"):
        run(raising(error))


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_an_interrupt_has_its_own_exit_code_and_the_last_word_of_the_body(capsys, number, code):
    def body(args):
        try:
            signal.raise_signal(number)
        except KeyboardInterrupt as stop:
            stop.add_note("what is there is whole")
            raise

    before = signal.getsignal(signal.SIGTERM)
    with pytest.raises(SystemExit) as stop:
        run(body)
    assert stop.value.code == code
    assert capsys.readouterr().err == "mmif-x: interrupted; what is there is whole\n"
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_command_runs_in_a_thread_where_no_signal_can_be_asked_for():
    with ThreadPoolExecutor(1) as pool:
        assert pool.submit(run, lambda args: "done").result() == "done"


def shell(tail: str, body: str, encoding: str = "utf-8") -> subprocess.CompletedProcess[str]:
    """Run a command whose body is ``body`` with the redirections ``tail``; its exit code is printed last."""
    code = f"import argparse, sys; from mmif.commands import cli; cli.run({body}, cli.Parser(prog='mmif-x'), [])"
    script = f'{{ "$0" -c "$1"; echo code $? >&2; }} {tail}'
    command = ["bash", "-c", script, sys.executable, code]
    env = os.environ | {"PYTHONIOENCODING": encoding}
    return subprocess.run(command, capture_output=True, encoding=encoding, env=env, check=False)


WORK = "lambda args: [print('report ' * 5000), open('work', 'w').write('done')]"


@pytest.mark.parametrize(
    ("tail", "said"), [(">&-", ""), ("| head -c 0", ""), (">/dev/full", "No space left on device")]
)
def test_a_report_that_nobody_reads_costs_nothing(tmp_path, tail, said):
    done = shell(tail, WORK)
    assert "code 0" in done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr
    assert "Exception ignored" not in done.stderr
    assert (tmp_path / "work").read_text() == "done"


def test_a_result_for_standard_output_must_arrive():
    body = "lambda args: cli.deliver(b'picture')"
    assert shell("", body).stdout == "picture"
    for tail, said in (("> /dev/full", "standard output: No space left on device"), (">&-", "is closed")):
        done = shell(tail, body)
        assert said in done.stderr
        assert "code 2" in done.stderr
        assert "Exception ignored" not in done.stderr


@pytest.mark.parametrize(
    ("encoding", "shown"), [("ascii", "caf\\xe9 \\u4e2d"), ("latin-1", "café \\u4e2d"), ("utf-8", "café 中")]
)
def test_letters_that_the_encoding_lacks_are_spelled_out(encoding, shown):
    done = shell("", r"lambda args: print('caf\u00e9 \u4e2d \udcff')", encoding)
    assert done.stderr == "code 0\n"
    assert done.stdout == f"{shown} \\udcff\n"


def test_what_a_terminal_obeys_is_shown(capsys):
    run(lambda args: print("a \x1b]0;title\x07\x9b2J\u202egnp\tb"))
    assert capsys.readouterr().out == "a \\x1b]0;title\\x07\\x9b2J\\u202egnp\tb\n"
    with pytest.raises(SystemExit):
        run(raising(ValueError("a\x1b[2J.png is none")))
    assert capsys.readouterr().err == "mmif-x: error: a\\x1b[2J.png is none\n"
    assert cli.escaped("two\nlines\r") == "two\\nlines\\r"


def test_progress_bars_still_work(capsys):
    run(lambda args: [*tqdm(range(3), ascii=True)])
    assert "\r100%|###" in capsys.readouterr().err


@pytest.mark.parametrize("verb", VERBS)
def test_help_does_not_wait_for_torch(verb):
    code = f"""
import sys
from mmif.__main__ import main
try:
    main(["{verb}", "--help"])
except SystemExit as stop:
    assert not stop.code
assert "torch" not in sys.modules
"""
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    assert f"usage: mmif-{verb}" in done.stdout


# The dialect of options


def test_underscores_of_old_command_lines_are_understood():
    words = ["--change_options", "--a_b=c_d", "x_y", "--", "--file_name"]
    assert cli.spelled(words) == ["--change-options", "--a-b=c_d", "x_y", "--", "--file_name"]


@pytest.mark.parametrize("flag", ["--print-config", "--print_config"])
def test_the_options_of_training_can_be_printed_under_either_spelling(capsys, flag):
    with pytest.raises(SystemExit) as stop:
        main(["train", "gan", "--data", "d", "--out", "o", "--snapshot_every=7", flag])
    assert not stop.value.code
    assert "snapshot_every: 7" in capsys.readouterr().out


@pytest.mark.parametrize("verb", VERBS)
def test_every_command_has_a_version(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--version"])
    assert not stop.value.code
    assert capsys.readouterr().out == f"mmif-{verb} {mmif.__version__}\n"
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"mmif {mmif.__version__}\n"


@pytest.mark.parametrize("verb", ["inpaint", "eval", "data", "info", "doctor"])
def test_an_option_that_is_none_is_one_line(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--nonsense"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mmif-{verb}: error: ")
    assert err.endswith(f"; see mmif-{verb} --help\n")
    assert err.count("\n") == 1
