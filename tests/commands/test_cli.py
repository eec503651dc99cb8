"""What all commands share: which errors are one line, and which are not."""

from __future__ import annotations

import argparse

import pytest
import torch

from mmif.__main__ import main
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
    assert error.startswith("mmif-x: error: out of memory: take a smaller model, photograph or batch (")
    assert error.count("\n") == 1


@pytest.mark.parametrize("error", [RuntimeError("mine"), ZeroDivisionError("mine"), AssertionError("mine")])
def test_a_mistake_of_ours_keeps_its_traceback(error):
    with pytest.raises(type(error), match="mine"):
        run(raising(error))


def test_ctrl_c_exits_with_130(capsys):
    with pytest.raises(SystemExit) as stop:
        run(raising(KeyboardInterrupt()))
    assert stop.value.code == 130
    assert capsys.readouterr().err == "mmif-x: interrupted\n"


@pytest.mark.parametrize("verb", ["inpaint", "eval", "data", "info", "doctor"])
def test_an_option_that_is_none_is_one_line(capsys, verb):
    with pytest.raises(SystemExit) as stop:
        main([verb, "--nonsense"])
    assert stop.value.code == 2
    err = capsys.readouterr().err
    assert err.startswith(f"mmif-{verb}: error: ")
    assert err.endswith(f"; see mmif-{verb} --help\n")
    assert err.count("\n") == 1
