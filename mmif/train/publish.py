"""``mmif-train publish``: a run's averaged weights as a checkpoint to ship, in float16, with what is known of them."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True, slots=True)
class PublishConfig:
    """What to publish, and where."""

    run: str
    """Run folder of `mmif-train encoder`."""
    out: str
    """Checkpoint folder to write."""
    overwrite: bool = False
    """Replace a checkpoint that is there."""


def publish(options: PublishConfig) -> None:
    """Write ``options.out`` from ``options.run``; a model card there is left alone.

    Raises:
        ValueError: no run is there, it holds no whole model, its weights overflow float16, or a run, or unasked a
            checkpoint, would be replaced.
    """
    import torch  # here: the options are read without it, too

    from mmif import checkpoint

    log = Path(options.run) / "trainer" / "log.jsonl"
    if not log.is_file():
        raise ValueError(
            f"--run must be a run folder of `mmif-train encoder`, and {options.run} holds no trainer/{log.name}"
        )
    if (Path(options.out) / "trainer").exists():
        raise ValueError(f"--out must not be a run folder, whose weights float16 would replace, got {options.out}")
    file = Path(options.out) / checkpoint.WEIGHTS
    if file.exists() and not options.overwrite:
        raise ValueError(f"{file} must not exist yet; choose another --out, or give --overwrite")
    model, info = checkpoint.load(options.run)
    too_large = [k for k, v in model.state_dict().items() if v.is_floating_point() and not v.half().isfinite().all()]
    if too_large:
        raise ValueError(f"weights must fit into float16, {len(too_large)} tensors do not (first: {too_large[0]})")
    lines = log.read_text(encoding="utf-8").splitlines()
    last = json.loads(lines[-1]) if lines else {}  # a run shorter than --log-every
    extra = {"stage": info["stage"], "step": info["step"], "hours": info["hours"], "last_losses": last}
    checkpoint.save(model, options.out, config=model.config, extra=extra, dtype=torch.float16)
    print(f"{file}: {file.stat().st_size / 1e6:.1f} MB, step {info['step']}, {info['hours']:.2f} hours")
