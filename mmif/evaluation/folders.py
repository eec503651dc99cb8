"""An evaluation of anybody's results: filled photographs beside their originals, paired by name."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from numpy.typing import NDArray
from tqdm import tqdm

from mmif.evaluation import protocol
from mmif.evaluation.distances import STLPIPS
from mmif.evaluation.protocol import HoleManifest
from mmif.evaluation.request import FolderOptions
from mmif.evaluation.tables import Report, Scores
from mmif.files import naming, some
from mmif.images.masks import hole_note, to_hole
from mmif.images.photo import read_rgb
from mmif.inpaint.pairing import Pair, pair_masks, pair_results

_SUSPICIOUS = 4.0  # a fill differs from the original more than known pixels do, not several times less


def compare_folders(options: FolderOptions, distances: Mapping[str, STLPIPS]) -> Report:
    """Measure every result in its hole, one by one: the sizes of the photographs may differ.

    Known pixels that differ from the reference are put back first, and counted.

    Args:
        options: the three folders.
        distances: learned metrics by name.

    Raises:
        ValueError: files that cannot be paired, read or measured, sizes that differ, a mask without a hole, or no
            candidate that differs from its reference inside the hole.
    """
    pairs = pair_results(pair_masks(options.reference, options.masks), options.candidate)
    manifest, scores = HoleManifest(), Scores()
    changes: dict[str, _Change] = {}
    remarks: dict[str, list[str]] = {}  # on the masks
    for pair, candidate in tqdm(pairs, unit="photo", disable=None):
        remarks[pair.stem] = []
        rgb, filled, hole = _read(pair, candidate, options.invert_mask, remarks[pair.stem])
        changes[pair.stem] = _change(rgb, filled, hole)
        original, result = rgb[None], protocol.composite(rgb[None], filled[None], hole[None])
        with naming(pair.image):
            scores.add(protocol.measure(original, result, hole[None], distances))
        manifest.add("all", [pair.stem], hole[None])
    _refuse_copies([*changes.values()])
    facts = {
        "kind": "folders",
        "candidates_with_changed_known_pixels": sum(change.outside > 0 for change in changes.values()),
        "candidates_unchanged_inside_the_hole": sum(change.inside == 0 for change in changes.values()),
    }
    return Report({"all": {"candidate": scores}}, facts, manifest.summary(), notes=[*_notes(changes), *_once(remarks)])


class _Change(NamedTuple):
    """How much a candidate differs from its reference, in mean absolute levels inside and outside the hole."""

    inside: float
    outside: float


def _change(rgb: NDArray[np.uint8], filled: NDArray[np.uint8], hole: NDArray[np.bool_]) -> _Change:
    levels = np.abs(rgb.astype(np.int16) - filled).mean(2)
    outside = 0.0 if hole.all() else float(levels[~hole].mean())
    return _Change(float(levels[hole].mean()), outside)


def _read(
    pair: Pair, candidate: Path, invert: bool, notes: list[str]
) -> tuple[NDArray[np.uint8], NDArray[np.uint8], NDArray[np.bool_]]:
    """Reference and candidate [H, W, 3], hole [H, W]; what is odd about the mask is added to ``notes``."""
    photo, other = read_rgb(pair.image), read_rgb(candidate)
    if photo.size != other.size:
        raise ValueError(
            f"{candidate} must have the size of {pair.image}, {photo.size[0]} x {photo.size[1]}; "
            f"it has {other.size[0]} x {other.size[1]}"
        )
    with naming(pair.mask):
        hole = to_hole(pair.mask, photo, invert, notes)
    if not hole.any():
        colour = "black" if invert else "white"
        raise ValueError(f"{pair.mask} must have a hole to measure in ({colour} = hole), got none; leave it out")
    notes += filter(None, [hole_note(hole)])
    return photo.rgb.copy(), other.rgb, hole  # what Pillow decoded is read-only, which torch warns of


def _refuse_copies(changes: Sequence[_Change]) -> None:
    """A score of 100 dB for all says that the wrong pixels were compared."""
    if all(change.inside == 0 for change in changes):
        raise ValueError(
            f"a candidate must differ from its reference inside the hole; none of {len(changes)} does: "
            "if black is the hole, pass --invert-mask; if --candidate holds the originals, give the filled photographs"
        )


def _notes(changes: Mapping[str, _Change]) -> list[str]:
    same = [stem for stem, change in changes.items() if change.inside == 0]
    swapped = [stem for stem, change in changes.items() if change.outside > _SUSPICIOUS * change.inside > 0]
    changed = sum(change.outside > 0 for change in changes.values())
    notes = []
    if changed:
        notes.append(
            f"known pixels differ in {changed} of {len(changes)} candidates; the reference's were put back first"
        )
    if same:
        notes.append(
            f"candidates {some(same)} equal the reference inside the hole and score 100 dB: "
            "is that the fill, or is black the hole (--invert-mask)?"
        )
    if swapped:
        notes.append(
            f"candidates {some(swapped)} differ from the reference far more outside the hole than inside: "
            "did you mean --invert-mask?"
        )
    return notes


def _once(remarks: Mapping[str, Sequence[str]]) -> list[str]:
    """Each kind of remark with the first photograph it is about, and how many more there are."""
    kinds: dict[str, list[str]] = {}
    for stem, texts in remarks.items():
        for text in texts:
            kinds.setdefault(re.sub(r"[\d.]+", "..", text), []).append(f"{stem}: {text}")
    return [lines[0] + (f"; {len(lines) - 1} more are like it" if lines[1:] else "") for lines in kinds.values()]
