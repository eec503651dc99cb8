"""What is installed here, what can run, and what is wrong: all that ``mmif-doctor`` says.

It must answer where torch is broken, so torch and what needs it are imported inside.
"""

from __future__ import annotations

from typing import Any

from mmif import host


def report() -> dict[str, Any]:
    """Return one JSON-able object; ``problems`` has a line for each, and is empty in a healthy environment."""
    facts, problems = _torch_facts()
    return {
        "versions": host.versions(),
        **facts,
        "missing_extras": host.missing_extras(),
        "problems": problems + host.clashes(),
    }


def _torch_facts() -> tuple[dict[str, Any], list[str]]:
    """What only torch can tell, and what keeps it from telling."""
    try:
        import torch

        from mmif import checkpoint
        from mmif.ops import dispatch, selftest
        from mmif.runtimes import choose
    except (ImportError, OSError) as error:  # OSError: a shared library of torch does not load
        reason = f"torch cannot be imported ({' '.join(str(error).split())}): install it again"
        return {"cuda": None, "device": "unknown", "backends": [], "ops": {}, "weights": []}, [reason]
    cuda = torch.cuda.is_available()
    names = [torch.cuda.get_device_name(i) for i in range(torch.cuda.device_count())] if cuda else ["cpu"]
    tables = {"op backend": dispatch.table(), "runtime": choose.table()}
    table = [{"kind": kind, "name": name, "why_not": why} for kind, rows in tables.items() for name, why in rows]
    serving, wrong = selftest.run("cuda" if cuda else "cpu")
    return {
        "cuda": torch.version.cuda,
        "device": ", ".join(names),
        "backends": table,
        "ops": serving,
        "weights": sorted(checkpoint.bundled()),
    }, wrong
