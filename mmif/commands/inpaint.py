"""``mmif-inpaint``: one photograph or a folder of them, from files to files."""

from __future__ import annotations

import argparse
import re
import signal
import sys
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from PIL import Image
from tqdm import tqdm

from mmif.commands import cli
from mmif.images.write import check_target, lost_in, writable_suffix, write_image
from mmif.inpaint import Inpainter, Job, Result
from mmif.inpaint.pairing import Pair, pair_guidance, pair_masks
from mmif.inpaint.strip import comparison_strip
from mmif.ops import dispatch

_GUIDANCE = {"segmentation": "seg", "segmentation_mask": "seg_mask", "edge": "edge", "edge_mask": "edge_mask"}


@dataclass(frozen=True, slots=True)
class _Task:
    """One job and the files that it makes."""

    job: Job
    samples: list[Path]
    segmentation: Path | None
    edges: Path | None
    strip: Path | None

    @property
    def outputs(self) -> list[Path]:
        return [*self.samples, *(path for path in (self.segmentation, self.edges, self.strip) if path)]

    def inputs(self) -> set[Path]:
        sources = (self.job.image, self.job.mask, *(getattr(self.job, name) for name in _GUIDANCE))
        return {Path(source).resolve() for source in sources if isinstance(source, Path)}


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mmif-inpaint``."""
    signal.signal(signal.SIGTERM, signal.default_int_handler)  # as Ctrl-C: a half-written file is removed
    cli.run(_body, _parser(), argv)


def _parser() -> argparse.ArgumentParser:
    parser = cli.Parser(
        prog="mmif-inpaint",
        description="Fill holes in photographs. Masks: white = hole. Known pixels come back byte-identical.",
        epilog="Folders are paired by name: a.png with a_mask.png or a_mask000.png, a_mask001.png, .. (in the same "
        "folder or another), or with a.png in another folder; or one mask file serves all. Results keep the stem and "
        "format of their photograph (GIF, AVIF, JFIF and MPO become PNG).",
    )
    add = parser.add_argument
    add("image", type=Path, help="a photograph, or a folder of them")
    add("mask", type=Path, help="its mask (white = hole), or a folder of masks, or one mask for all")
    add("-o", "--output", type=Path, required=True, help="file to write, or folder if IMAGE is a folder")
    add("--model", default="scenes-128", help="bundled weights, checkpoint folder or hub id (default: %(default)s)")
    add("--segmentation", type=Path, help="label map (palette or grey PNG, 255 = unknown), or folder of a_seg.png")
    add("--segmentation-mask", type=Path, help="where the labels are unknown (white), or folder of a_seg_mask.png")
    add("--edge", type=Path, help="edge map (white = edge), or folder of a_edge.png")
    add("--edge-mask", type=Path, help="where the edges are unknown (white), or folder of a_edge_mask.png")
    add("--invert-mask", action="store_true", help="the mask is black where the hole is")
    add("--seed", type=int, default=0, help="same seed, same picture (default: %(default)s)")
    add("--num-samples", type=int, default=1, help="results per mask, written as OUT_s0, OUT_s1, ..")
    add("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    add("--backend", choices=("auto", *dispatch.OP_BACKENDS), help="op backend (default: MMIF_BACKEND, or auto)")
    add("--batch", type=int, default=8, help="squares per call of the model (default: %(default)s)")
    add("--margin", type=float, default=0.5, help="surroundings seen, as a share of the hole (default: %(default)s)")
    add("--seam", default="match", choices=("match", "none"), help="match: colours of the fill meet the photograph")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    existing.add_argument("--skip-existing", action="store_true", help="leave results that exist, make the others")
    add("--save-segmentation", action="store_true", help="write OUT_seg.png, the predicted labels")
    add("--save-edges", action="store_true", help="write OUT_edge.png, the predicted edges")
    add("--save-strip", action="store_true", help="write OUT_strip.png: photograph, hole, predictions, result")
    return parser


def _body(args: argparse.Namespace) -> None:
    pairs = _pairs(args)
    guidance = _guidance(args, [pair.image for pair in pairs.values()])
    tasks = [_task(args, pair, output, guidance) for output, pair in pairs.items()]
    todo = _check_outputs(tasks, args)
    pipe = Inpainter.from_pretrained(args.model, args.device, args.backend, seam=args.seam, margin=args.margin)
    print(pipe.describe(), flush=True)
    folder = args.image.is_dir()
    try:
        failed = _fill(pipe, todo, args)
    except KeyboardInterrupt:
        hint = "; every file that is there is whole, go on with --skip-existing" if folder else ""
        print(f"mmif-inpaint: interrupted{hint}", file=sys.stderr)
        raise SystemExit(130) from None
    if folder:
        written, there = len(todo) - len(failed), len(tasks) - len(todo)
        print(f"{written} of {len(tasks)} written to {args.output}, {there} were there already")
        _refuse(failed)
    elif failed:
        raise failed[0]
    else:
        print(f"result {', '.join(str(path) for path in tasks[0].outputs)}" + ("" if todo else ": was there already"))


def _fill(pipe: Inpainter, todo: list[_Task], args: argparse.Namespace) -> list[Exception]:
    """Fill and write what can be read; return why the others could not."""
    notes, failed = _Notes(), []
    results = pipe.attempts(
        (task.job for task in todo),
        args.batch,
        seed=args.seed,
        num_samples=args.num_samples,
    )
    bar = tqdm(zip(todo, results, strict=True), total=len(todo), disable=None if args.image.is_dir() else True)
    for task, result in bar:
        if isinstance(result, Result):
            _write(task, result, keep=args.skip_existing)
            notes.add(task, result)
        else:
            failed.append(result)
    notes.close()
    return failed


def _refuse(failed: list[Exception]) -> None:
    if failed:
        more = f"; and {len(failed) - 5} more" if len(failed) > 5 else ""
        raise ValueError(
            f"every photograph must be one that can be filled; {len(failed)} are not: "
            f"{'; '.join(str(error) for error in failed[:5])}{more}; mend or remove them, then --skip-existing makes "
            "what is missing"
        ) from failed[0]


def _pairs(args: argparse.Namespace) -> dict[Path, Pair]:
    """Photographs with their masks, by the file to write."""
    if args.image.is_dir():
        if args.output.exists() and not args.output.is_dir():
            raise ValueError(f"the output for a folder must be a folder; {args.output} is a file")
        pairs = pair_masks(args.image, args.mask)
        return {args.output / (pair.stem + writable_suffix(pair.image)): pair for pair in pairs}
    if not args.image.exists():
        raise ValueError(f"a photograph or a folder of them must exist at {args.image}; none is there")
    return {args.output: Pair(args.image, args.mask, args.output.stem)}


def _guidance(args: argparse.Namespace, images: list[Path]) -> dict[str, dict[Path, Path]]:
    """What is given for which photograph, by the field of ``Job``: for some photographs only, but not for none."""
    guidance = {}
    for name, kind in _GUIDANCE.items():
        source, flag = getattr(args, name), "--" + name.replace("_", "-")
        maps = getattr(args, name.removesuffix("_mask")) if name.endswith("_mask") else None
        if source and name.endswith("_mask") and not maps:
            raise ValueError(f"{flag} needs {flag.removesuffix('-mask')}; pass both, or none")
        guidance[name] = pair_guidance(source, images, kind, maps=maps, whole=args.image.is_dir())
        if source and not guidance[name]:
            raise ValueError(f"{flag} must be a file, or a folder that holds NAME_{kind}.png; {source} is not")
    return guidance


def _task(args: argparse.Namespace, pair: Pair, output: Path, guidance: dict[str, dict[Path, Path]]) -> _Task:
    count = args.num_samples
    samples = [output] if count == 1 else [output.with_stem(f"{output.stem}_s{k}") for k in range(count)]

    def extra(wanted: bool, kind: str) -> Path | None:
        return output.with_name(f"{output.stem}_{kind}.png") if wanted else None

    return _Task(
        _job(pair, {name: files.get(pair.image) for name, files in guidance.items()}, args.invert_mask),
        samples,
        extra(args.save_segmentation, "seg"),
        extra(args.save_edges, "edge"),
        extra(args.save_strip, "strip"),
    )


def _job(pair: Pair, guidance: dict[str, Any], invert: bool) -> Job:
    """A map serves as nothing else. Masks may be one file: what is a hole may be unknown to the guidance, too."""
    roles: dict[Path, str] = {}
    for role, file in {"mask": pair.mask, **guidance}.items():
        other = roles.setdefault(file.resolve(), role) if file else role
        if other != role and not ("mask" in other and "mask" in role):
            raise ValueError(
                f"the {other} and the {role} of {pair.image} must be two files; {file} would be both; "
                "put one elsewhere, or name them NAME_mask.png, NAME_seg.png, NAME_edge.png, .."
            )
    return Job(pair.image, pair.mask, **guidance, invert_mask=invert)


def _check_outputs(tasks: list[_Task], args: argparse.Namespace) -> list[_Task]:
    """Refuse, before any work, what cannot or must not be written; return the tasks that are left to do."""
    outputs = [path for task in tasks for path in task.outputs]
    inputs = set().union(*(task.inputs() for task in tasks))
    twice = [path.name for path, count in Counter(outputs).items() if count > 1]
    if twice:
        raise ValueError(f"outputs must have different names; more than one photograph makes {twice[0]}; rename one")
    for path in outputs:
        check_target(path)
        if path.resolve() in inputs:
            raise ValueError(f"an output must not replace an input; {path} is one; choose another --output")
    existing = [path for path in outputs if path.exists()]
    if args.skip_existing:
        return [task for task in tasks if not all(path.exists() for path in task.outputs)]
    if existing and not args.overwrite:
        more = f" and {len(existing) - 5} more" if len(existing) > 5 else ""
        names = ", ".join(str(path) for path in existing[:5])
        raise ValueError(f"outputs must not exist yet; {names}{more} do; pass --overwrite or --skip-existing")
    return tasks


def _write(task: _Task, result: Result, keep: bool) -> None:
    """Write what the task makes; ``keep`` leaves files that are there, of a task that lacks others."""
    wanted = [*zip(task.samples, result.images, strict=True)]
    if task.segmentation:
        wanted.append((task.segmentation, _predicted(result.segmentation, "segmentation")))
    if task.edges:
        wanted.append((task.edges, _predicted(result.edges, "edges")))
    if task.strip:
        wanted.append((task.strip, comparison_strip(result)))
    for path, image in wanted:
        if not (keep and path.exists()):
            write_image(image, path)


def _predicted(image: Image.Image | None, what: str) -> Image.Image:
    if image is None:
        raise ValueError(f"this model does not predict {what}; leave out --save-{what}")
    return image


class _Notes:
    """Says on stderr what a person should know: each kind of note once, and in the end how often."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def add(self, task: _Task, result: Result) -> None:
        for note in [*result.notes, *lost_in(task.samples[0], result.photo)]:
            kind = re.sub(r"\d+(\.\d+)?", "..", note)
            self._kinds[kind] += 1
            if self._kinds[kind] == 1:
                tqdm.write(f"note: {task.job.image}: {note}", file=sys.stderr)

    def close(self) -> None:
        for kind, count in self._kinds.items():
            if count > 1:
                print(f"note: {count - 1} more: {kind}", file=sys.stderr)
