"""Give pyright the annotations of what mmif imports, without installing it.

Downloads the wheels of the dependency group ``annotated`` of pyproject.toml, at the versions of constraints.txt and
without what they depend on, and unpacks their Python files beside the interpreter that runs this. PyTorch and Triton
are then some 60 MB of text in place of gigabytes of libraries, and nothing can be run with them. pip keeps the wheels
in its cache, so that ``make demo`` does not download them again. docs/adr/0011 has the reasons.
"""

from __future__ import annotations

import subprocess
import sys
import sysconfig
import tempfile
import zipfile
from pathlib import Path

PIP = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--only-binary", ":all:"]


def main() -> None:
    """Download, unpack, throw the wheels away."""
    target = sysconfig.get_path("purelib")
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run([*PIP, "--constraint", "constraints.txt", "--group", "annotated", "--dest", folder], check=True)
        for wheel in sorted(Path(folder).glob("*.whl")):
            with zipfile.ZipFile(wheel) as archive:
                names = [name for name in archive.namelist() if name.endswith((".py", ".pyi", "/py.typed"))]
                archive.extractall(target, names)


if __name__ == "__main__":
    main()
