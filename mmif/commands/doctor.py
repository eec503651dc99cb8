"""``mmif-doctor``: what is installed here, what can run, and what is wrong.

Beyond the standard library nothing is imported at module level: the command must answer where torch is broken.
"""

from __future__ import annotations

import argparse
import json
import platform
import re
from collections.abc import Sequence
from importlib import metadata, resources
from typing import Any

from mmif.commands import cli

DISTRIBUTION = "mminvertfill"
# What is shown -> the distributions that provide it, the first installed one counts.
_PROVIDERS = {
    "torch": ("torch",),
    "triton": ("triton",),
    "onnxruntime": ("onnxruntime-gpu", "onnxruntime"),
    "tensorrt": ("tensorrt", "tensorrt-cu13"),
    "tensorrt_rtx": ("tensorrt-rtx", "tensorrt-rtx-cu13"),
}


def main(argv: Sequence[str] | None = None) -> int:
    """Print the report; return 1 when something is broken, else 0."""
    parser = cli.Parser(prog="mmif-doctor", description="What is installed here, what can run, and what is wrong.")
    parser.add_argument("--json", action="store_true", help="print the report as one JSON object")
    return cli.run(_print, parser, argv)


def _print(args: argparse.Namespace) -> int:
    found = report()
    print(json.dumps(found, indent=2) if args.json else render(found))
    return 1 if found["problems"] else 0


def report() -> dict[str, Any]:
    """Return everything the command prints as one JSON-able object; ``problems`` is empty in a healthy environment."""
    torch_facts, problems = _torch_facts()
    return {
        "versions": {"python": platform.python_version(), "mmif": _version(DISTRIBUTION)}
        | {name: _first_version(names) for name, names in _PROVIDERS.items()},
        **torch_facts,
        "weights": bundled_weights(),
        "missing_extras": missing_extras(),
        "problems": problems + clashes(),
    }


def clashes() -> list[str]:
    """Return one line for each other distribution here that also installs an import package called ``mmif``."""
    owners = {_normal(name) for name in metadata.packages_distributions().get("mmif", [])}
    owners |= {"mmif-python"} if _version("mmif-python") else set()
    return [
        f"{name} also installs an import package called mmif: keep it and {DISTRIBUTION} in two environments"
        for name in sorted(owners - {DISTRIBUTION})
    ]


def missing_extras() -> dict[str, list[str]]:
    """Return the extras that are not complete here, each with the distributions it lacks."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:
        return {}  # a checkout that was never installed declares none
    missing: dict[str, list[str]] = {}
    for requirement in requirements:
        name = re.match(r"[\w.-]+", requirement)
        extra = re.search(r"extra == ['\"]([\w-]+)['\"]", requirement)
        if name and extra and _version(name[0]) is None:
            missing.setdefault(extra[1], []).append(name[0])
    return missing


def bundled_weights() -> list[str]:
    """Return the names of the weights that come with the package."""
    folder = resources.files("mmif") / "weights"
    if not folder.is_dir():
        return []
    return sorted(entry.name for entry in folder.iterdir() if (entry / "model.safetensors").is_file())


def render(found: dict[str, Any]) -> str:
    """Return the report of :func:`report` as text for a person."""
    lines = [f"{name:<13} {version or 'not installed'}" for name, version in found["versions"].items()]
    lines += [f"{'device':<13} {found['device']}", f"{'weights':<13} {', '.join(found['weights']) or 'none bundled'}"]
    lines += [
        f"{backend['kind']:<13} {backend['name']}: {backend['why_not'] or 'usable'}" for backend in found["backends"]
    ]
    lines += [f"{'op':<13} {op}: {name}" for op, name in found["ops"].items()]
    lines += [
        f"{'extra':<13} {extra}: lacks {', '.join(names)} (pip install '{DISTRIBUTION}[{extra}]')"
        for extra, names in found["missing_extras"].items()
    ]
    return "\n".join(lines + [f"PROBLEM       {problem}" for problem in found["problems"]])


def _torch_facts() -> tuple[dict[str, Any], list[str]]:
    """What only torch can tell, and what keeps it from telling."""
    try:
        import torch

        from mmif.ops import dispatch, selftest
        from mmif.runtimes import choose
    except (ImportError, OSError) as error:  # OSError: a shared library of torch does not load
        reason = f"torch cannot be imported ({' '.join(str(error).split())}): install it again"
        return {"cuda": None, "device": "unknown", "backends": [], "ops": {}}, [reason]
    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else ["cpu"]
    tables = {"op backend": dispatch.table(), "runtime": choose.table()}
    table = [{"kind": kind, "name": name, "why_not": why} for kind, rows in tables.items() for name, why in rows]
    ops, wrong = selftest.run("cuda" if cuda else "cpu")
    facts = {"cuda": torch.version.cuda, "device": ", ".join(names), "backends": table, "ops": ops}
    return facts, wrong


def _version(distribution: str) -> str | None:
    try:
        return metadata.version(distribution)
    except metadata.PackageNotFoundError:
        return None


def _first_version(distributions: Sequence[str]) -> str | None:
    return next((version for name in distributions if (version := _version(name))), None)


def _normal(distribution: str) -> str:
    return re.sub(r"[-_.]+", "-", distribution).lower()


if __name__ == "__main__":
    raise SystemExit(main())
