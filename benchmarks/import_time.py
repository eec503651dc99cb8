"""Seconds that mmif adds to torch's own import, each sample in a fresh interpreter, the cases in turn.

Usage: python benchmarks/import_time.py [--samples 15]
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys

from timing import save, table

CASES = {
    "import torch": "import torch",
    "import mmif": "import mmif",
    "mmif.MMInvertFill": "from mmif import MMInvertFill",
    "mmif.Inpainter": "from mmif import Inpainter",
}
PROGRAM = """
import time
{before}
start = time.perf_counter()
{statement}
print(time.perf_counter() - start)
"""


def seconds(case: str) -> float:
    """Time the statement of one case; all but torch's own come after ``import torch``."""
    before = "" if case == "import torch" else "import torch"
    program = PROGRAM.format(before=before, statement=CASES[case])
    return float(subprocess.run([sys.executable, "-c", program], stdout=subprocess.PIPE, check=True).stdout)


def main() -> None:
    """Measure, print the table, save it."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--samples", type=int, default=15, help="fresh interpreters per case")
    samples = parser.parse_args().samples
    times: dict[str, list[float]] = {case: [] for case in CASES}
    for taken in range(samples + 1):  # the first round fills the disk cache and is dropped
        for case in CASES:
            spent = seconds(case)
            if taken:
                times[case].append(spent)
    rows = [
        {"case": case, "median_s": round(statistics.median(values), 4), "max_s": round(max(values), 4)}
        for case, values in times.items()
    ]
    print(table(rows))
    print(save("import-time", {"samples": samples, "target": "import mmif < 1 s beyond torch"}, rows))


if __name__ == "__main__":
    main()
