"""``mmif-inpaint``: one photograph, a list or a folder of them, from files to files."""

from __future__ import annotations

import argparse
import re
import sys
import tempfile
from collections import Counter
from collections.abc import Iterable, Sequence
from contextlib import redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, Any

from mmif import files
from mmif.commands import cli

if TYPE_CHECKING:  # torch, which --help does without
    from mmif.inpaint import Result
    from mmif.inpaint.tasks import Run, Task

_STREAM = "-"


def main(argv: Sequence[str] | None = None) -> None:
    """Entry point of ``mmif-inpaint``."""
    cli.run(_body, _parser(), argv)


class _Parser(cli.Parser):
    """Options may stand between the files: ``PHOTO -o OUT MASK``. After ``--`` all are files."""

    def parse_args(self, args: Any = None, namespace: Any = None) -> Any:
        words = list(args)
        if "--" in words:  # which intermixed parsing drops, and then takes a file called -x for an option
            end = words.index("--")
            words[end:] = [
                f"./{word}" if word.startswith("-") and word != _STREAM else word for word in words[end + 1 :]
            ]
        return self.parse_intermixed_args(words, namespace)


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="mmif-inpaint",
        usage="%(prog)s PHOTO [PHOTO ..] MASK -o OUT [options]",
        description="Fill holes in photographs. Masks: white = hole. Known pixels come back byte-identical.",
        epilog="Folders and lists are paired by name: a.png with a_mask.png, or with a_mask000.png, a_mask001.png, .., "
        "in the same folder or another, or with a.png in another; or one mask file serves all. Results keep the stem "
        "and format of their photograph (what cannot be written, such as GIF and HEIC, becomes PNG).",
    )
    add = parser.add_argument
    add(
        "paths",
        nargs="+",
        type=Path,
        metavar="PHOTO .. MASK",
        help="photographs, or one folder of them, or - (standard input); then their mask (white = hole), a folder of "
        "masks, or one mask for all; with --box one photograph or one folder, and no mask",
    )
    add("-o", "--output", required=True, metavar="OUT", help="file or folder to write, or - for PNG to standard output")
    add("--recursive", action="store_true", help="fill the photographs in folders of the folder, too")
    add(
        "--box",
        type=_box,
        action="append",
        default=[],
        dest="boxes",
        metavar="X,Y,W,H",
        help="fill this rectangle, in pixels from the top left, instead of a mask; may be repeated",
    )
    add("--invert-mask", action="store_true", help="the mask is black where the hole is")
    add(
        "--grow-mask",
        type=int,
        default=0,
        metavar="N",
        help="make the hole N pixels larger on all sides: a mask that closely follows an object with a soft edge or a "
        "shadow leaves a ghost of it, which 4 to 8 remove (default: %(default)s)",
    )
    add("--model", default="scenes-128", help="bundled weights, checkpoint folder or hub id (default: %(default)s)")
    add("--segmentation", type=Path, help="label map (palette or grey PNG, 255 = unknown), or folder of a_seg.png")
    add("--segmentation-mask", type=Path, help="where the labels are unknown (white), or folder of a_seg_mask.png")
    add("--edge", type=Path, help="edge map (white = edge), or folder of a_edge.png")
    add("--edge-mask", type=Path, help="where the edges are unknown (white), or folder of a_edge_mask.png")
    add("--seed", type=int, default=0, help="same seed, same picture (default: %(default)s)")
    add("--num-samples", type=int, default=1, help="results per mask (1..1000), written as OUT_s0, OUT_s1, ..")
    add("--device", help="cpu, cuda or cuda:N (default: a GPU if there is one)")
    add("--backend", help="op backend, one that mmif-doctor lists (default: MMIF_BACKEND, or auto)")
    add("--batch", type=int, default=8, help="squares per call of the model (default: %(default)s)")
    add("--margin", type=float, default=0.5, help="surroundings seen, as a share of the hole (default: %(default)s)")
    add("--seam", default="match", choices=("match", "none"), help="match: colours of the fill meet the photograph")
    add("--quality", type=int, metavar="1-100", help="of JPEG results (default: as the photograph's file has it)")
    existing = parser.add_mutually_exclusive_group()
    existing.add_argument("--overwrite", action="store_true", help="replace results that exist")
    existing.add_argument("--skip-existing", action="store_true", help="leave results that exist, make the others")
    for flag, kind, text in (
        ("--save-segmentation", "seg", "the predicted labels"),
        ("--save-edges", "edge", "the predicted edges"),
        ("--save-strip", "strip", "photograph, hole, predictions, result"),
    ):
        add(flag, action="append_const", const=kind, default=[], dest="extras", help=f"write OUT_{kind}.png: {text}")
    return parser


def _box(text: str) -> tuple[int, ...]:
    numbers = text.split(",")
    if len(numbers) != 4 or not all(re.fullmatch(r"\s*\d+\s*", number) for number in numbers):
        raise argparse.ArgumentTypeError(f"a box must be x,y,width,height in pixels, such as 40,30,64,64; got {text}")
    return tuple(map(int, numbers))


def _body(args: argparse.Namespace) -> None:
    if args.output != _STREAM:
        _fill_files(args, args.output)
        return
    if args.num_samples > 1 or args.extras:
        raise ValueError("standard output takes one picture; leave out --num-samples and --save-.., or name a file")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.png")
        with redirect_stdout(sys.stderr):
            _fill_files(args, str(result))
        cli.deliver(result.read_bytes())


def _fill_files(args: argparse.Namespace, output: str) -> None:
    """Check all that can be checked without the model, then load it and fill."""
    from mmif.inpaint import Inpainter
    from mmif.inpaint.request import read, whole
    from mmif.inpaint.tasks import plan, to_do

    run = _run(args, output)
    whole("--batch", args.batch, 1)
    if run.several and args.output == _STREAM:
        raise ValueError("standard output takes one picture; name a folder with --output")
    tasks = plan(run)
    todo = to_do(tasks, run)
    _say_beforehand(run, tasks)
    jobs = [task.job for task in todo] if run.several else [read(task.job) for task in todo]
    failed = _Failures()
    if todo:
        pipe = Inpainter.from_pretrained(args.model, args.device, args.backend, seam=args.seam, margin=args.margin)
        print(pipe.describe(), flush=True)
        results = pipe.attempts(jobs, args.batch, seed=args.seed, num_samples=args.num_samples)
        failed = _write(zip(todo, results, strict=True), len(todo), run)
    if run.several:
        written, there = len(todo) - failed.count, len(tasks) - len(todo)
        already = f", {there} {'was' if there == 1 else 'were'} there already" if run.skip_existing else ""
        print(f"{written} of {len(tasks)} written to {output}{already}")
        failed.refuse()
    elif args.output != _STREAM:
        print(f"result {', '.join(map(cli.escaped, tasks[0].outputs))}" + ("" if todo else ": was there already"))


def _run(args: argparse.Namespace, output: str) -> Run:
    from mmif.inpaint.tasks import Run

    photographs, mask = (args.paths, None) if args.boxes else (args.paths[:-1], args.paths[-1])
    if not photographs:
        raise ValueError(f"no mask for {mask}; name one, or pass --box X,Y,W,H")
    fields = ("boxes", "recursive", "invert_mask", "grow_mask", "num_samples", "quality", "extras", "overwrite")
    guidance = {name: getattr(args, name) for name in ("segmentation", "segmentation_mask", "edge", "edge_mask")}
    return Run(
        photographs,
        output,
        mask,
        guidance,
        skip_existing=args.skip_existing,
        **{name: getattr(args, name) for name in fields},
    )


def _write(outcomes: Iterable[tuple[Task, Result | Exception]], count: int, run: Run) -> _Failures:
    """Write what comes; of several photographs one that fails costs no other."""
    from tqdm import tqdm

    from mmif.inpaint.tasks import disk_fails

    notes, failed = _Notes(), _Failures()
    try:
        for task, result in tqdm(outcomes, total=count, disable=None if run.several else True):
            try:
                if isinstance(result, Exception):
                    failed.add(task, result)
                    continue
                task.write(result, run)
                notes.add(task, result)
            except (OSError, MemoryError) as error:
                if disk_fails(error):
                    raise
                failed.add(task, error)
    except KeyboardInterrupt as stop:
        if run.several:
            stop.add_note("every file that is there is whole, go on with --skip-existing")
        raise
    notes.close()
    if failed.first and not run.several:
        raise failed.first
    return failed


def _say_beforehand(run: Run, tasks: Sequence[Task]) -> None:
    """Notes on what will not be done."""
    from mmif.images.folder import look_into
    from mmif.images.write import is_jpeg

    if run.photographs[0].is_dir():
        known = [Path(run.output), *filter(None, [run.mask, *run.guidance.values()])]
        note = look_into(run.photographs[0], run.recursive).note(known)
        if note:
            print(f"note: {cli.escaped(note)}", file=sys.stderr)
    if run.quality is not None and not any(is_jpeg(path) for task in tasks for path in task.samples):
        print("note: --quality is of JPEG results, and there are none: it changes nothing", file=sys.stderr)


class _Failures:
    """Photographs that could not be filled: how many, and the first five with the reason."""

    def __init__(self) -> None:
        self.first: Exception | None = None
        self._lines: list[str] = []

    def add(self, task: Task, error: Exception) -> None:
        self.first = self.first or error  # not all: an error holds on to the pictures it came from
        name, said = task.job.name, cli.line(error) or f"{type(error).__name__}: {error}"
        self._lines.append(said if name in said else f"{name}: {said}")

    @property
    def count(self) -> int:
        return len(self._lines)

    def refuse(self) -> None:
        """Raise ValueError if there are any."""
        if self.count:
            what, them = ("1 photograph", "it") if self.count == 1 else (f"{self.count} photographs", "them")
            raise ValueError(
                f"{what} could not be filled: {files.some(self._lines, '; ')}; "
                f"fix or remove {them}, then run again with --skip-existing"
            ) from self.first


class _Notes:
    """Says on stderr what a person should know: each kind of note once, and in the end how often."""

    def __init__(self) -> None:
        self._kinds: Counter[str] = Counter()

    def add(self, task: Task, result: Result) -> None:
        from tqdm import tqdm

        from mmif.images.write import lost_in

        for note in [*result.notes, *lost_in(task.samples[0], result.photo)]:
            kind = re.sub(r"\d+(\.\d+)?", "..", note)
            self._kinds[kind] += 1
            if self._kinds[kind] == 1:
                tqdm.write(f"note: {cli.escaped(task.job.name)}: {cli.escaped(note)}", file=sys.stderr)

    def close(self) -> None:
        for kind, count in self._kinds.items():
            if count > 1:
                print(f"note: {count - 1} more: {cli.escaped(kind)}", file=sys.stderr)
