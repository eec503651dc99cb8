"""What all commands share: how options are spelled, how mistakes and interrupts end, and what reaches the terminal.

Only the standard library is imported at module level: ``--help`` is quick, and ``mmif-doctor`` must answer where torch
is broken.
"""

from __future__ import annotations

import argparse
import errno
import os
import re
import signal
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager, redirect_stderr, redirect_stdout, suppress
from typing import Any, NoReturn, TextIO, TypeVar, cast

from mmif import __version__

T = TypeVar("T")

# What a terminal obeys instead of showing it: control characters, and those that turn the direction of writing; and
# bytes of a file name that are no text.
_CONTROLS = re.compile(r"[\x00-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, as of any other mistake; ``--help`` has the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {escaped(message)}; see {self.prog} --help\n")


class Terminated(KeyboardInterrupt):
    """SIGTERM: ends a command as Ctrl-C does, with its own exit code."""


def run(body: Callable[[Any], T], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None) -> T:
    """Parse ``argv`` and return what ``body`` does; a user's mistake becomes one line on stderr and exit code 2.

    Mistakes are ValueError, OSError and BackendUnavailable; running out of memory is treated alike. Ctrl-C exits with
    130, SIGTERM with 143: ``body`` sees both as KeyboardInterrupt, and a note that it adds to that is printed. Whether
    anybody reads what is printed makes no difference. ``parser`` gets ``--debug``, which lets the traceback of a
    mistake through, and ``--version``.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    parser.add_argument("--version", action="version", version=f"{parser.prog} {__version__}")
    words = spelled(sys.argv[1:] if argv is None else argv)
    with _sigterm_raises(), _reporting():
        try:
            return body(parser.parse_args(words))  # which may read a configuration file
        except Exception as error:
            message = line(error)
            if message is None or "--debug" in words:
                raise
            print(f"{parser.prog}: error: {message}", file=sys.stderr)
            raise SystemExit(2) from None
        except KeyboardInterrupt as stop:
            said = "; ".join(["interrupted", *getattr(stop, "__notes__", ())])
            print(f"{parser.prog}: {said}", file=sys.stderr)
            raise SystemExit(143 if isinstance(stop, Terminated) else 130) from None


def spelled(argv: Sequence[str]) -> list[str]:
    """``argv`` with the names of options as they are documented: old command lines have ``--change_options``."""
    words = list(argv)
    end = words.index("--") if "--" in words else len(words)
    for i, word in enumerate(words[:end]):
        if word.startswith("--"):
            name, equals, value = word.partition("=")
            words[i] = name.replace("_", "-") + equals + value
    return words


def escaped(text: object) -> str:
    r"""``text``, such as a file's name, on one line and with nothing that a terminal obeys: escape becomes ``\x1b``."""
    return _CONTROLS.sub(_visible, str(text))


def line(error: BaseException) -> str | None:
    """One line for a user's mistake or a lack of memory; None for what only a mistake of ours can be."""
    text = escaped(" ".join(str(error).split())) or type(error).__name__
    if isinstance(error, (ValueError, OSError)):
        return text
    lacks_memory = isinstance(error, MemoryError)
    if isinstance(error, RuntimeError):
        import torch

        from mmif.ops.dispatch import BackendUnavailable

        if isinstance(error, BackendUnavailable):
            return text
        # On a CPU torch has no class of its own for it.
        lacks_memory = isinstance(error, torch.OutOfMemoryError) or "DefaultCPUAllocator: can't allocate" in text
    return f"out of memory: use a smaller model, photograph or batch ({text})" if lacks_memory else None


def deliver(data: bytes) -> None:
    """Write a result to standard output: unlike a report, it must arrive.

    Raises:
        ValueError: there is no standard output.
        OSError: it cannot be written.
    """
    out = getattr(sys.stdout, "buffer", None)
    if out is None:
        raise ValueError("standard output is closed; name a file with --output")
    try:
        out.write(data)
        out.flush()
    except OSError as error:
        raise OSError(f"the result could not be written to standard output: {error.strerror}") from error


@contextmanager
def _sigterm_raises() -> Iterator[None]:
    """Let SIGTERM raise :class:`Terminated`; other threads than the first cannot ask for a signal."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def stop(*_: object) -> NoReturn:
        raise Terminated

    before = signal.signal(signal.SIGTERM, stop)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextmanager
def _reporting() -> Iterator[None]:
    """Print through :class:`_Report`."""
    with ExitStack() as stack:
        for stream, redirect in ((sys.stdout, redirect_stdout), (sys.stderr, redirect_stderr)):
            report = _Report(stream)
            stack.enter_context(redirect(cast(TextIO, report)))
            stack.callback(report.flush)  # now, not at exit, where an error could no longer be caught
        yield


class _Report:
    """Standard output or error as a place to report to: what it cannot take is lost, the work is not.

    A reader that is gone (``| head``), a stream that was closed, a full disk and letters that the encoding lacks are no
    reason to end with an error what went well. Control characters are shown, not obeyed.
    """

    def __init__(self, stream: TextIO | None) -> None:
        self._stream = stream  # None: closed before Python started

    def write(self, text: str) -> int:
        shown = _CONTROLS.sub(lambda found: found[0] if found[0] in "\n\r\t" else _visible(found), text)
        encoding = getattr(self._stream, "encoding", None) or "utf-8"
        self._try("write", shown.encode(encoding, "backslashreplace").decode(encoding))
        return len(text)

    def flush(self) -> None:
        self._try("flush")

    def _try(self, method: str, *args: str) -> None:
        try:
            if self._stream is not None:
                getattr(self._stream, method)(*args)
        except (OSError, ValueError) as error:  # ValueError: it was closed
            self._lose(error)

    def _lose(self, error: Exception) -> None:
        with suppress(OSError, ValueError, AttributeError):  # what is buffered goes nowhere, or the flush at exit fails
            descriptor = cast(TextIO, self._stream).fileno()
            with open(os.devnull, "wb") as nowhere:
                os.dup2(nowhere.fileno(), descriptor)
        self._stream = None
        if isinstance(error, OSError) and error.errno not in (errno.EPIPE, errno.EBADF):
            print(f"what was printed could not be written: {error.strerror}", file=sys.stderr)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._stream, name)


def _visible(found: re.Match[str]) -> str:
    return ascii(found[0])[1:-1]
