"""``mmif-info``: parameters and multiply-accumulates of every part of a preset."""

from __future__ import annotations

import argparse
import json
from collections.abc import Sequence

from mmif.commands import cli
from mmif.config import PRESETS, from_preset, with_overrides


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mmif-info``."""
    parser = cli.Parser(prog="mmif-info", description="Parameters and multiply-adds of every part of a preset.")
    parser.add_argument(
        "preset", nargs="?", default="celebahq-256", help=f"one of {', '.join(PRESETS)} (default: %(default)s)"
    )
    parser.add_argument("--override", nargs="*", default=[], metavar="SECTION.KEY=VALUE", help="changes to the preset")
    parser.add_argument("--json", action="store_true", help="print JSON: the configuration and the table")
    cli.run(_print, parser, argv)


def _print(args: argparse.Namespace) -> None:
    from mmif.model.count import measure  # torch, which --help can do without

    config = with_overrides(from_preset(args.preset), args.override)
    rows = measure(config)
    if args.json:
        parts = {part: {"parameters": params, "macs": macs} for part, params, macs in rows}
        print(json.dumps({"preset": args.preset, "model": config.to_dict(), "parts": parts}, indent=2))
        return
    print(f"{args.preset}: {config.resolution} x {config.resolution} pixels, {config.generator.num_ws} style codes")
    print(f"{'part':<22}{'parameters':>14}{'GMAC':>10}")
    for part, params, macs in rows:
        print(f"{part:<22}{params:>14,}{macs / 1e9:>10.3f}")
