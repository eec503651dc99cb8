"""From files to files: which photographs a run fills, with which masks, and what it writes where."""

from __future__ import annotations

import errno
import io
import os
import sys
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from PIL import Image

from mmif.files import real, some
from mmif.images.holes import MAX_GROWTH
from mmif.images.source import ImageLike
from mmif.images.write import check_target, writable_suffix, write_image
from mmif.inpaint.pairing import Photographs, find_photographs, pair_guidance, pair_masks
from mmif.inpaint.request import MAX_SAMPLES, Job, whole
from mmif.inpaint.result import Result
from mmif.inpaint.strip import comparison_strip

STREAM = Path("-")  # standard input
_GUIDANCE = {"segmentation": "seg", "segmentation_mask": "seg_mask", "edge": "edge", "edge_mask": "edge_mask"}
# The disk, not the photograph, is at fault.
_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO)


@dataclass(frozen=True, slots=True)
class Run:
    """What is to be filled, and where the results go; the fields are options of ``mmif-inpaint``.

    Attributes:
        photographs: one file or ``-``, several files, or one folder.
        output: file to write; a folder where it is one, ends in ``/``, or has to take several results.
        mask: file or ``-``, or a folder in which masks are found by name; None: ``boxes`` say it.
        guidance: file or folder, by the field of :class:`Job`.
        recursive: folders in the folder count.
        boxes: as in :class:`Job`, like the next two.
        invert_mask: black = hole.
        grow_mask: pixels.
        num_samples: results for each mask, 1..1000.
        quality: of JPEG files, 1..100; None: as their photographs have it.
        extras: what else is written beside a result: ``seg``, ``edge``, ``strip``.
        overwrite: replace results that exist.
        skip_existing: leave results that exist, make the others.

    Raises:
        ValueError: fields that do not go together, or outside their range.
    """

    photographs: Sequence[Path]
    output: str
    mask: Path | None = None
    guidance: Mapping[str, Path | None] = field(default_factory=dict)
    recursive: bool = False
    boxes: Sequence[Sequence[int]] = ()
    invert_mask: bool = False
    grow_mask: int = 0
    num_samples: int = 1
    quality: int | None = None
    extras: Sequence[str] = ()
    overwrite: bool = False
    skip_existing: bool = False

    def __post_init__(self) -> None:
        folder = len(self.photographs) == 1 and self.photographs[0].is_dir()
        if STREAM in self.photographs and (len(self.photographs) > 1 or self.mask == STREAM):
            raise ValueError("standard input is one file; - can stand for one photograph or one mask")
        if self.boxes and len(self.photographs) > 1:  # the last one may be a mask
            raise ValueError(
                f"--box takes the place of a mask, and goes with one photograph or one folder; got "
                f"{some(self.photographs)}; leave out the mask, or put the photographs into a folder"
            )
        if not self.output:
            raise ValueError("--output must name a file or a folder; got an empty name")
        if self.recursive and not folder:
            raise ValueError("--recursive needs a folder of photographs; leave it out, or name a folder alone")
        whole("--grow-mask", self.grow_mask, 0, MAX_GROWTH)
        whole("--num-samples", self.num_samples, 1, MAX_SAMPLES)
        if self.quality is not None:
            whole("--quality", self.quality, 1, 100)

    @property
    def several(self) -> bool:
        """Whether photographs and masks are found by name, and results go to a folder."""
        return len(self.photographs) > 1 or self.photographs[0].is_dir() or bool(self.mask and self.mask.is_dir())


class _Input(io.BytesIO):
    """What standard input held."""

    name = "standard input"


class _Filled(NamedTuple):
    """A photograph, its mask if it has one, and the result."""

    image: Path
    mask: Path | None
    output: Path


@dataclass(frozen=True, slots=True)
class Task:
    """One job and the files that it makes."""

    job: Job
    samples: list[Path]
    extras: dict[str, Path]

    @property
    def outputs(self) -> list[Path]:
        return [*self.samples, *self.extras.values()]

    def inputs(self) -> set[Path]:
        sources = (self.job.image, self.job.mask, *(getattr(self.job, name) for name in _GUIDANCE))
        return {real(source) for source in sources if isinstance(source, Path)}

    def write(self, result: Result, run: Run) -> None:
        """Write what the task makes; with ``run.skip_existing`` not what is there, of a task that lacked others.

        Raises:
            ValueError: the model does not predict what is to be written.
            OSError: a file that cannot be written.
        """
        wanted = [*zip(self.samples, result.images, strict=True)]
        wanted += [(path, _extra(result, kind)) for kind, path in self.extras.items()]
        for path, image in wanted:
            if not (run.skip_existing and path.exists()):
                write_image(image, path, run.quality)


def plan(run: Run) -> list[Task]:
    """Find what belongs together and name what comes of it; nothing is opened.

    Raises:
        ValueError: files that cannot be paired, or that would be two things at once.
    """
    if run.several:
        photos, found = _several(run)
    else:
        (image,) = run.photographs
        if image != STREAM and not image.exists():
            raise ValueError(f"no photograph or folder at {image}; check the path")
        photos, found = Photographs({image.stem: image}), [_Filled(image, run.mask, _output(run, image))]
    guidance = _guidance(run, photos)
    tasks = [_task(run, one, {name: files.get(one.image) for name, files in guidance.items()}) for one in found]
    twice = [path for path, count in Counter(path for task in tasks for path in task.outputs).items() if count > 1]
    if twice:
        raise ValueError(f"more than one photograph would make {twice[0]}; rename one")
    return tasks


def to_do(tasks: Sequence[Task], run: Run) -> list[Task]:
    """Check that every result can and may be written; return the tasks that are left to do.

    Raises:
        ValueError: a result that cannot be written, is an input, or exists already.
    """
    outputs = [path for task in tasks for path in task.outputs]
    inputs = set().union(*(task.inputs() for task in tasks))
    for path in outputs:
        check_target(path)
        if real(path) in inputs:
            raise ValueError(f"{path} is an input and would be replaced; choose another --output")
    existing = [path for path in outputs if os.path.lexists(path)]  # a link that leads nowhere is somebody's, too
    if run.skip_existing:
        return [task for task in tasks if not all(path.exists() for path in task.outputs)]
    if existing and not run.overwrite:
        exist = "exists" if len(existing) == 1 else "exist"
        raise ValueError(f"{some(existing)} {exist} already; pass --overwrite or --skip-existing")
    return list(tasks)


def disk_fails(error: BaseException | None) -> bool:
    """Whether an error, or its cause, is of the disk: the next photograph would meet it, too."""
    return error is not None and ((isinstance(error, OSError) and error.errno in _DISK) or disk_fails(error.__cause__))


def _several(run: Run) -> tuple[Photographs, list[_Filled]]:
    """The photographs of a run, and what comes of each."""
    folder = Path(run.output)
    if not folder.is_dir() and (folder.exists() or (folder.suffix and not run.output.endswith("/"))):
        what = "is a file" if folder.exists() else "is named like a picture; end it with / if it is to be a folder"
        raise ValueError(f"several results need a folder, and {run.output} {what}")
    first = run.photographs[0]
    images = first if first.is_dir() else run.photographs
    photos = find_photographs(images, run.mask, recursive=run.recursive, results=folder)
    if run.mask:
        found = [(pair.image, pair.mask, pair.stem) for pair in pair_masks(photos, run.mask)]
    else:
        found = [(image, None, name) for name, image in photos.files.items()]
    return photos, [_Filled(image, mask, folder / (stem + writable_suffix(image))) for image, mask, stem in found]


def _output(run: Run, image: Path) -> Path:
    """The file to write for one photograph."""
    output = Path(run.output)
    if not (output.is_dir() or run.output.endswith("/")):
        return output
    if image == STREAM:
        raise ValueError(f"a photograph from standard input has no name, and {output} is a folder; name a file")
    return output / (image.stem + writable_suffix(image))


def _guidance(run: Run, photos: Photographs) -> dict[str, dict[Path, Path]]:
    """What is given for which photograph, by the field of ``Job``: for some photographs only, but not for none."""
    guidance = {}
    for name, kind in _GUIDANCE.items():
        source, flag = run.guidance.get(name), "--" + name.replace("_", "-")
        maps = run.guidance.get(name.removesuffix("_mask")) if name.endswith("_mask") else None
        if source and name.endswith("_mask") and not maps:
            raise ValueError(f"{flag} needs {flag.removesuffix('-mask')}; pass both, or none")
        guidance[name] = pair_guidance(source, photos, kind, maps=maps)
        if source and not guidance[name]:
            raise ValueError(f"{flag} must be a file, or a folder that holds NAME_{kind}.png; {source} is not")
    return guidance


def _task(run: Run, filled: _Filled, guidance: Mapping[str, Path | None]) -> Task:
    image, mask, output = filled
    _check_roles(image, {"mask": mask, **guidance})
    given: dict[str, Any] = {name: file for name, file in guidance.items() if file}
    hole = {"boxes": run.boxes, "invert_mask": run.invert_mask, "grow_mask": run.grow_mask}
    job = Job(_source(image), mask and _source(mask), **given, **hole)
    count = run.num_samples
    samples = [output] if count == 1 else [output.with_stem(f"{output.stem}_s{k}") for k in range(count)]
    return Task(job, samples, {kind: output.with_name(f"{output.stem}_{kind}.png") for kind in run.extras})


def _source(path: Path) -> ImageLike:
    if path != STREAM:
        return path
    if sys.stdin is None:
        raise ValueError("standard input is closed; name a file in place of -")
    data = sys.stdin.buffer.read()
    if not data:
        raise ValueError("standard input is empty; send it a picture, or name a file in place of -")
    return _Input(data)


def _check_roles(image: Path, files: Mapping[str, Path | None]) -> None:
    """A map serves as nothing else. Masks may be one file: what is a hole may be unknown to the guidance, too."""
    roles: dict[Path, str] = {}
    for role, file in files.items():
        other = roles.setdefault(real(file), role) if file else role
        if other != role and not ("mask" in other and "mask" in role):
            raise ValueError(
                f"{file} would be both the {other} and the {role} of {image}; put one elsewhere, or name them "
                "NAME_mask.png, NAME_seg.png, NAME_edge.png, .."
            )


def _extra(result: Result, kind: str) -> Image.Image:
    if kind == "strip":
        return comparison_strip(result)
    image = result.segmentation if kind == "seg" else result.edges
    if image is None:
        what = {"seg": "segmentation", "edge": "edges"}[kind]
        raise ValueError(f"this model does not predict {what}; leave out --save-{what}")
    return image
