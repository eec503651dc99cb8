"""What an evaluation leaves behind: the Markdown table, the JSON file and the picture strip."""

from __future__ import annotations

import datetime
import json
import os
import platform
import re
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw

from mmif.metrics import Estimate, estimate, win_share


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


# Whose version can change a number.
_DISTRIBUTIONS = (
    "mminvertfill",
    "torch",
    "numpy",
    "pillow",
    "opencv-python-headless",
    "pypatchmatch",
    "stlpips-pytorch",
)

Results = Mapping[str, Mapping[str, Scores]]  # bucket of hole ratios -> method -> scores


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


def provenance() -> dict[str, Any]:
    """Return when, with which code and on what machine: date, commit, versions, processor, threads."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "commit": _commit(),
        "versions": {"python": platform.python_version(), **{name: _version(name) for name in _DISTRIBUTIONS}},
        "platform": platform.platform(),
        "cpu": _cpu(),
        "threads": torch.get_num_threads(),
    }


def write_json(path: Path, report: Mapping[str, Any]) -> None:
    """Write ``report`` as strict JSON; the file appears only when it is whole."""
    text = json.dumps(report, indent=1, allow_nan=False)
    text = re.sub(r"\[[\d\s.,eE+-]+\]", lambda numbers: " ".join(numbers[0].split()), text)  # a list in one line
    temporary = path.with_name(path.name + ".tmp")
    temporary.write_text(text + "\n", encoding="utf-8")
    os.replace(temporary, path)


def strip(columns: Sequence[str], rows: Sequence[tuple[str, Sequence[NDArray[np.uint8]]]]) -> Image.Image:
    """Return a grid of pictures, with a title over each column and a label left of each row.

    Args:
        columns: titles.
        rows: label and one uint8 [S, S, 3] picture per column; one S for all.
    """
    side, gap, left, top = rows[0][1][0].shape[0], 4, 52, 16
    width, height = left + len(columns) * (side + gap), top + len(rows) * (side + gap)
    sheet = Image.new("RGB", (width, height), "white")
    draw = ImageDraw.Draw(sheet)
    for x, title in enumerate(columns):
        draw.text((left + x * (side + gap), 2), title, fill="black")
    for y, (label, pictures) in enumerate(rows):
        draw.text((2, top + y * (side + gap)), label, fill="black")
        for x, picture in enumerate(pictures):
            sheet.paste(Image.fromarray(picture), (left + x * (side + gap), top + y * (side + gap)))
    return sheet


def save_strip(path: Path, sheet: Image.Image) -> None:
    """Save the grid in the format that the suffix names; the file appears only when it is whole."""
    temporary = path.with_name(f"{path.stem}.tmp{path.suffix}")
    sheet.save(temporary)
    os.replace(temporary, path)


def check_writable(path: Path | None) -> None:
    """Raise ValueError if ``path`` cannot be created: better before the work than after it."""
    if path is not None and not (path.parent.is_dir() and os.access(path.parent, os.W_OK) and not path.is_dir()):
        raise ValueError(f"{path} must be a file in a folder that exists and can be written to; choose another place")


def _cell(value: Estimate, digits: int) -> str:
    spread = "" if np.isnan(value.stderr) else f" +- {value.stderr:.{digits}f}"
    return f"{value.mean:.{digits}f}{spread}"


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(cells) + " |"


def _finite(row: dict[str, Any]) -> dict[str, Any]:
    """JSON has no NaN: the standard error of one photograph becomes null."""
    return {key: None if isinstance(value, float) and np.isnan(value) else value for key, value in row.items()}


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _commit() -> str | None:
    """Commit of the checkout that this file lies in, with ``-dirty`` if it has changes; None outside a checkout."""
    root = Path(__file__).parents[1]
    if not (root / ".git").exists():  # installed: git would find whatever repository the environment lies in
        return None
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=12"]
    try:
        return subprocess.run(command, capture_output=True, text=True, check=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return None


def _cpu() -> str:
    info = Path("/proc/cpuinfo")
    lines = info.read_text().splitlines() if info.is_file() else []
    names = [line.split(":", 1)[1].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.processor()
