"""The tables of README.md, written from results/. After a new measurement: ``python benchmarks/report.py``.

A table stands between ``<!-- NAME -->`` and ``<!-- /NAME -->``. tests/benchmarks/test_report.py fails where the README
says something else than the files do.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable
from functools import partial
from pathlib import Path
from statistics import geometric_mean
from typing import Any

from mmif import files

RESULTS = Path(__file__).parent / "results"
README = Path(__file__).parents[1] / "README.md"
PEERS = {"telea": "Telea", "ns": "Navier-Stokes", "patchmatch": "PatchMatch"}


def newest(theme: str) -> tuple[str, dict[str, Any]]:
    """Name and content of the last result of a theme; results are called THEME_DEVICE_YYYYMM.json.

    Raises:
        ValueError: the theme was never measured.
    """
    found = sorted(RESULTS.glob(f"{theme}_*_*.json"), key=lambda path: path.stem.rpartition("_")[2])
    if not found:
        raise ValueError(f"{theme} has no file in {RESULTS}; measure it first")
    return found[-1].name, json.loads(found[-1].read_text(encoding="utf-8"))


def quality() -> str:
    """Distance to the photograph, of the bundled weights and of the classical methods; the best of a ratio is bold."""
    name, record = newest("quality-scenes-128")
    lines = [
        f"After {record['model']['hours']:.1f} hours of training on two CPU cores, "
        f"on {record['data']['n']} held-out photographs:",
        f"`benchmarks/results/{name}`.",
        "",
        "| hole | method | PSNR in the hole, dB | ST-LPIPS (AlexNet), lower is closer |",
        "|---|---|---|---|",
    ]
    for ratio in dict.fromkeys(row["ratio"] for row in record["results"]):
        rows = {row["method"]: row["metrics"] for row in record["results"] if row["ratio"] == ratio}
        (ours,) = rows.keys() - PEERS.keys()
        psnr = _bold({method: row["psnr"]["mean"] for method, row in rows.items()}, max, 2)
        distance = _bold({method: row["stlpips-alex"]["mean"] for method, row in rows.items()}, min, 3)
        for hole, title, methods in (
            (f"{ratio} %", " / ".join(PEERS.values()), list(PEERS)),
            ("", "scenes-128", [ours]),
        ):
            cells = [" / ".join(column[method] for method in methods) for column in (psnr, distance)]
            lines.append(f"| {hole} | {title} | {' | '.join(cells)} |".replace("|  |", "| |"))
    return "\n".join(lines)


def _bold(values: dict[str, float], best: Callable[[Iterable[float]], float], digits: int) -> dict[str, str]:
    texts = {method: f"{value:.{digits}f}" for method, value in values.items()}
    winner = f"{best(values.values()):.{digits}f}"
    return {method: f"**{text}**" if text == winner else text for method, text in texts.items()}


def speed() -> str:
    """What was timed, on which machine."""
    inpaint_file, inpaint = newest("inpaint-cpu")
    model_file, model = newest("model-cpu-celebahq-256")
    import_file, imported = newest("import-time")
    ops_file, ops = newest("ops-cpu")
    machines = {record["environment"]["device"] for record in (inpaint, model, imported, ops)}
    photograph = inpaint["rows"][0]
    whole = next(row for row in model["rows"] if row["part"] == "total")
    seconds = next(row["median_s"] for row in imported["rows"] if row["case"] == "import mmif")
    rows = [
        (
            f"`{photograph['weights']}`, one photograph of {photograph['image'].replace('x', ' x ')} after loading",
            f"{photograph['median_ms']:.0f} ms",
            inpaint_file,
        ),
        (
            f"`{model['config']['preset']}` forward pass, batch {model['config']['batch']}, float32, untrained",
            f"{model['config']['whole']['median_ms'] / 1000:.1f} s, {whole['gmacs']:.0f} GMAC",
            model_file,
        ),
        ("`import mmif` beyond torch", f"{1000 * seconds:.1f} ms", import_file),
        ("`upfirdn2d` against PyTorch's, forward; with backward", _times(ops["rows"], "upfirdn2d"), ops_file),
        ("`bias_act`, leaky ReLU, likewise", _times(ops["rows"], "bias_act lrelu"), ops_file),
    ]
    lines = [f"| on {', '.join(sorted(machines))} | measured | file in `benchmarks/results/` |", "|---|---|---|"]
    lines += [f"| {what} | {value} | `{file}` |" for what, value, file in rows]
    if not any(RESULTS.glob("kernels-k[0-9]*.json")):
        lines.append("| any GPU | not measured | `kernels-cuda_not-measured.json` lists what there is to measure |")
    return "\n".join(lines)


def _times(rows: Iterable[dict[str, Any]], op: str) -> str:
    """Geometric means over the shapes in float32."""
    mine = [row for row in rows if row["op"].startswith(op) and row["dtype"] == "float32"]
    means = [
        geometric_mean(row["ratio"] for row in mine if row["pass"] == what)
        for what in ("forward", "forward + backward")
    ]
    return f"{means[0]:.1f} and {means[1]:.1f} times as fast"


TABLES: dict[str, Callable[[], str]] = {"quality": quality, "speed": speed}


def _between(table: str, place: re.Match[str]) -> str:
    return f"{place[1]}\n{table}\n{place[2]}"


def rewritten(text: str) -> str:
    """The document with its tables made anew.

    Raises:
        ValueError: the place of a table is missing, or a measurement is.
    """
    for name, table in TABLES.items():
        place = re.compile(rf"(<!-- {name} -->\n).*?(\n<!-- /{name} -->)", re.DOTALL)
        text, count = place.subn(partial(_between, table()), text)
        if count != 1:
            raise ValueError(
                f"the document must have one place for {name}, <!-- {name} --> .. <!-- /{name} -->; got {count}"
            )
    return text


if __name__ == "__main__":
    files.write(README, rewritten(README.read_text(encoding="utf-8")))
