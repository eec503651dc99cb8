"""``mmif-doctor``: what is installed here, what can run, and what is wrong."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence
from typing import Any

from mmif.commands import cli
from mmif.host import install_line
from mmif.runtimes.doctor import report


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; return 1 when something is broken, else 0."""
    parser = cli.Parser(prog="mmif-doctor", description="What is installed here, what can run, and what is wrong.")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    return cli.run(_print, parser, argv)


def _print(args: argparse.Namespace) -> int:
    found = report()
    print(json.dumps(found, indent=2) if args.json else "\n".join(_lines(found)))
    return 1 if found["problems"] else 0


def _lines(found: dict[str, Any]) -> list[str]:
    rows = [(name, version or "not installed") for name, version in found["versions"].items()]
    rows += [("device", found["device"]), ("weights", ", ".join(found["weights"]) or "none found")]
    rows += [(backend["kind"], f"{backend['name']}: {backend['why_not'] or 'usable'}") for backend in found["backends"]]
    rows += [("op", f"{op}: {name}") for op, name in found["ops"].items()]
    rows += [
        ("extra", f"{extra}: lacks {', '.join(names)} ({install_line(extra)})")
        for extra, names in found["missing_extras"].items()
    ]
    rows += [("PROBLEM", problem) for problem in found["problems"]]
    return [f"{what:<13} {said}" for what, said in rows]
