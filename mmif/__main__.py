"""``python -m mmif VERB ...`` runs the command ``mmif-VERB``."""

from __future__ import annotations

import importlib
import sys
from collections.abc import Sequence

from mmif import __version__

VERBS = ("inpaint", "train", "eval", "data", "doctor", "info")


def main(argv: Sequence[str] | None = None) -> int | None:
    """Run the command named by the first argument with the rest; an unknown one is a usage error (exit code 2)."""
    args = list(sys.argv[1:] if argv is None else argv)
    verbs = ", ".join(VERBS)
    if args[:1] in (["-h"], ["--help"]):
        print(f"usage: python -m mmif VERB ...\nVERB is one of {verbs}; each has its own --help.")
        return 0
    if args[:1] == ["--version"]:
        print(f"mmif {__version__}")
        return 0
    if not args or args[0] not in VERBS:
        came = f"unknown command {args[0]!r}" if args else "a command must be given"
        print(f"mmif: error: {came}; commands are {verbs}", file=sys.stderr)
        return 2
    return importlib.import_module(f"mmif.commands.{args[0]}").main(args[1:])


if __name__ == "__main__":
    sys.exit(main())
