"""What all commands share: one clear line for a user's mistake, exit code 2, no traceback unless asked for."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Sequence

import torch

from mmif.backends import BackendUnavailable


def run(
    body: Callable[[argparse.Namespace], None], parser: argparse.ArgumentParser, argv: Sequence[str] | None = None
) -> None:
    """Parse ``argv`` and call ``body``; a user's mistake becomes one line on stderr and exit code 2.

    Mistakes are ValueError, OSError and BackendUnavailable; running out of memory is treated alike. ``--debug`` is
    added to ``parser`` and lets the traceback through. Ctrl-C exits with 130.
    """
    parser.add_argument("--debug", action="store_true", help="show the traceback of an error")
    try:
        body(parser.parse_args(argv))  # which may read a configuration file
    except (ValueError, OSError, MemoryError, torch.OutOfMemoryError, BackendUnavailable) as error:
        if "--debug" in (sys.argv[1:] if argv is None else argv):
            raise
        message = " ".join(str(error).split()) or "out of memory"
        print(f"{parser.prog}: error: {message}", file=sys.stderr)
        raise SystemExit(2) from None
    except KeyboardInterrupt:
        print(f"{parser.prog}: interrupted", file=sys.stderr)
        raise SystemExit(130) from None
