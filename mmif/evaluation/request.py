"""What can be asked of an evaluation. Loads neither torch nor NumPy, so that ``mmif-eval --help`` is quick."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal, NamedTuple

from mmif.files import real
from mmif.options import Positive, Range, check, spelled

BASELINES = ("telea", "ns", "patchmatch")  # of mmif.evaluation.peers
DISTANCES = ("stlpips-alex", "stlpips-vgg")
GUIDANCE = {
    "none": "none (the test condition)",
    "oracle": "ORACLE: true segmentation and edges inside the hole are given; an upper bound, not a result",
}


class Bucket(NamedTuple):
    """A range of hole ratios in per cent, written ``lo-hi``."""

    lo: int
    hi: int

    def __str__(self) -> str:
        return f"{self.lo}-{self.hi}"


@dataclass(frozen=True)
class PreparedOptions:
    """A model, or none, and classical methods on a set that ``mmif-data prepare`` made."""

    data: str
    """Folder of the set."""
    model: str | None = None
    """Weights, as `mmif.Inpainter.from_pretrained` takes them."""
    split: str = "test"
    """Part of the data."""
    n: Positive = 300
    """Photographs, drawn by the seed."""
    ratios: tuple[Bucket, ...] = (Bucket(10, 30), Bucket(40, 60), Bucket(70, 90))
    """Of holes, in per cent."""
    baselines: tuple[str, ...] = BASELINES
    """Classical methods."""
    guidance: Literal["none", "oracle"] = "none"
    """See :data:`GUIDANCE`."""
    seam: Literal["match", "none"] = "match"
    """As in `mmif-inpaint`."""
    seed: Annotated[int, Range(0, 2**63 - 1)] = 0
    """Of photographs, holes and noise."""
    batch: Annotated[int, Range(1, 2**16)] = 16
    """Photographs at once."""
    strip_rows: Positive = 3
    """Photographs of each ratio whose pictures are kept."""

    def __post_init__(self) -> None:
        check(self, spelled)
        if not self.model and (not self.baselines or self.guidance != "none"):
            raise ValueError("without --model, --baselines must name one and --guidance must be none")


@dataclass(frozen=True)
class FolderOptions:
    """Anybody's results, as files beside their originals."""

    reference: Path  # folder of original photographs
    candidate: Path  # folder of filled photographs
    masks: Path  # folder, or one file for all
    invert_mask: bool = False  # black = hole

    def __post_init__(self) -> None:
        for name in ("reference", "candidate"):
            folder: Path = getattr(self, name)
            if not folder.is_dir():
                came = "a file" if folder.exists() else "not there"
                raise ValueError(f"--{name} must be a folder of pictures; {folder} is {came}")
        if real(self.reference) == real(self.candidate):
            raise ValueError(f"--reference and --candidate must be two folders; both are {self.reference}")


def parse_buckets(text: str) -> tuple[Bucket, ...]:
    """Read ``10-30,40-60``.

    Raises:
        ValueError: not of this form, a bucket twice, or outside 0 <= lo < hi < 100.
    """
    parts = text.split(",")
    pairs = [re.fullmatch(r"\s*(\d{1,2})-(\d{1,2})\s*", part) for part in parts]
    buckets = tuple(Bucket(int(pair[1]), int(pair[2])) for pair in pairs if pair)
    if len(set(buckets)) != len(parts) or any(bucket.lo >= bucket.hi for bucket in buckets):
        raise ValueError(
            f"--ratios must be different ranges in per cent such as 10-30,40-60 with lo < hi < 100, got {text!r}"
        )
    return buckets


def parse_names(flag: str, text: str, known: Sequence[str]) -> tuple[str, ...]:
    """Read a comma-separated choice from ``known``; ``none`` is an empty one.

    Raises:
        ValueError: a name that is not known, or one twice.
    """
    names = () if text == "none" else tuple(name.strip() for name in text.split(","))
    if set(names) - set(known) or len(set(names)) != len(names):
        raise ValueError(f"{flag} must be none or different names out of {', '.join(known)}; got {text!r}")
    return names
