"""What all commands share: one clear line for a user's mistake, exit code 2, no traceback unless asked for.

Only the standard library is imported at module level: ``mmif-doctor`` must answer where torch is broken.
"""

from __future__ import annotations

import argparse
import os
import sys
from collections.abc import Callable, Sequence
from typing import NoReturn, TypeVar

T = TypeVar("T")


class Parser(argparse.ArgumentParser):
    """Says what is wrong with an option in one line, as of any other mistake; ``--help`` has the usage."""

    def error(self, message: str) -> NoReturn:
        self.exit(2, f"{self.prog}: error: {message}; see {self.prog} --help\n")


def run(
    body: Callable[[argparse.Namespace], T], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> T:
    """Parse ``argv`` and return what ``body`` does; a user's mistake becomes one line on stderr and exit code 2.

    Mistakes are ValueError, OSError and BackendUnavailable; running out of memory is treated alike. ``--debug`` is
    added to ``parser`` and lets the traceback through. Ctrl-C exits with 130; where the reader of the output is gone
    (``| head``) the command ends without a word, with 1.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    try:
        result = body(parser.parse_args(argv))  # which may read a configuration file
        sys.stdout.flush()  # now, not at exit, where a reader that is gone could no longer be caught
        return result
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # else the flush at exit fails as well
        raise SystemExit(1) from None
    except Exception as error:
        message = _line(error)
        if message is None or "--debug" in (sys.argv[1:] if argv is None else argv):
            raise
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None


def _line(error: Exception) -> str | None:
    """The line for a user's mistake or a lack of memory; None for what only a mistake of ours can be."""
    text = " ".join(str(error).split()) or type(error).__name__
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
    return f"out of memory: take a smaller model, photograph or batch ({text})" if lacks_memory else None
