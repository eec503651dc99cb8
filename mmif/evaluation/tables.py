"""What an evaluation leaves behind: Markdown tables, a JSON file, a strip of pictures."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from mmif import files
from mmif.evaluation.metrics import Estimate, estimate, win_share
from mmif.images.sheet import sheet


@dataclass(frozen=True, slots=True)
class Metric:
    """How one metric is shown and which way is better."""

    title: str
    higher_is_better: bool
    digits: int


METRICS = {
    "psnr": Metric("PSNR dB", True, 2),
    "ssim": Metric("SSIM", True, 3),
    "l1": Metric("L1", False, 2),
    "stlpips-alex": Metric("ST-LPIPS alex", False, 3),
    "stlpips-vgg": Metric("ST-LPIPS vgg", False, 3),
}


@dataclass
class Scores:
    """Values of one method in one bucket, photograph by photograph in the same order for every method."""

    values: dict[str, list[float]] = field(default_factory=dict)  # metric -> one value per photograph
    seconds: list[float] = field(default_factory=list)  # per photograph, one entry per batch

    def add(self, values: Mapping[str, Sequence[float]]) -> None:
        """Append one batch: for each metric the values of its photographs."""
        for name, batch in values.items():
            self.values.setdefault(name, []).extend(batch)

    def estimates(self) -> dict[str, Estimate]:
        """Mean and standard error of every metric."""
        return {name: estimate(values) for name, values in self.values.items()}

    def seconds_per_image(self) -> float | None:
        """Median over the batches, so that the first one, which warms up, does not count; None if nothing was timed."""
        return float(np.median(self.seconds)) if self.seconds else None


Results = Mapping[str, Mapping[str, Scores]]  # bucket of hole ratios -> method -> scores
Row = tuple[str, list[NDArray[np.uint8]]]  # of the strip: its label; original, holed, and one picture for each method


@dataclass(frozen=True, slots=True)
class Report:
    """What came of an evaluation.

    Attributes:
        results: the scores.
        facts: what was evaluated, on what; ready for JSON.
        holes: their hash and mean ratios; ready for JSON.
        wins: rows of :func:`wins`.
        notes: what a person should know, one line each.
        strip: the first photographs of each bucket, of equal sizes.
    """

    results: Results
    facts: dict[str, Any]
    holes: dict[str, Any]
    wins: list[dict[str, Any]] = field(default_factory=list)
    notes: list[str] = field(default_factory=list)
    strip: list[Row] = field(default_factory=list)

    def text(self) -> str:
        """The tables, and the hash of the holes."""
        tables = [markdown(self.results)]
        if self.wins:
            tables.append(f"Share of photographs on which the model is better:\n\n{wins_markdown(self.wins)}")
        return "\n\n".join([*tables, f"holes {self.holes['sha256'][:16]}"])

    def pictures(self) -> Image.Image:
        """The strip as one picture; a ValueError if there is none."""
        titles = ["original", "hole", *next(iter(self.results.values()))]
        return sheet([row for _, row in self.strip], titles=titles, labels=[label for label, _ in self.strip])

    def as_json(self) -> dict[str, Any]:
        """All of it but the pictures, strict JSON."""
        return {**self.facts, "holes": self.holes, "results": as_json(self.results), "wins": self.wins}


def markdown(results: Results) -> str:
    """Return one table, a row per bucket and method, and a line that says how to read it."""
    names = list(next(iter(next(iter(results.values())).values())).values)
    head = ["hole %", "method", "n", *(METRICS[name].title for name in names), "s/image"]
    lines = [_row(head), _row(["---"] * len(head))]
    for bucket, methods in results.items():
        for method, scores in methods.items():
            cells = [_cell(value, METRICS[name].digits) for name, value in scores.estimates().items()]
            seconds = scores.seconds_per_image()
            n = str(len(scores.values[names[0]]))
            lines.append(_row([bucket, method, n, *cells, "-" if seconds is None else f"{seconds:.3f}"]))
    better = {
        way: ", ".join(METRICS[n].title for n in names if METRICS[n].higher_is_better == way) for way in (True, False)
    }
    lines += ["", f"Mean +- standard error. Higher is better: {better[True]}; lower: {better[False]}."]
    return "\n".join(lines)


def wins(results: Results, ours: str) -> list[dict[str, Any]]:
    """For each bucket and other method the share of photographs on which ``ours`` is better, metric by metric."""
    rows = []
    for bucket, methods in results.items():
        for method in methods:
            if method != ours:
                mine, theirs = methods[ours].values, methods[method].values
                shares = {name: win_share(mine[name], theirs[name], METRICS[name].higher_is_better) for name in mine}
                rows.append({"ratio": bucket, "against": method, **shares})
    return rows


def wins_markdown(rows: Sequence[Mapping[str, Any]]) -> str:
    """Return the rows of :func:`wins` as a table in per cent."""
    names = [name for name in rows[0] if name in METRICS]
    head = ["hole %", "better than", *(METRICS[name].title for name in names)]
    body = [_row([row["ratio"], row["against"], *(f"{row[name]:.0%}" for name in names)]) for row in rows]
    return "\n".join([_row(head), _row(["---"] * len(head)), *body])


def as_json(results: Results) -> list[dict[str, Any]]:
    """Return the rows of the table with every photograph's values, rounded to 5 digits, ready for JSON."""
    return [
        {
            "ratio": bucket,
            "method": method,
            "seconds_per_image": scores.seconds_per_image(),
            "metrics": {name: _finite(asdict(value)) for name, value in scores.estimates().items()},
            "per_photograph": {name: [round(x, 5) for x in values] for name, values in scores.values.items()},
        }
        for bucket, methods in results.items()
        for method, scores in methods.items()
    ]


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write ``report`` as strict JSON, each list of numbers in one line."""
    text = json.dumps(report, indent=1, allow_nan=False)
    files.write(path, re.sub(r"\[[\d\s.,eE+-]+\]", lambda numbers: " ".join(numbers[0].split()), text) + "\n")


def _cell(value: Estimate, digits: int) -> str:
    spread = "" if np.isnan(value.stderr) else f" +- {value.stderr:.{digits}f}"
    return f"{value.mean:.{digits}f}{spread}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: the standard error of one photograph becomes null."""
    return {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}
