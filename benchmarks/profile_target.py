"""Two calls of each form of the fused epilogue at its largest shape, marked for a profiler (profile.sh)."""

from __future__ import annotations

import torch
from contest import Setup
from kernel_cases import epilogue_cases

NAMES = ("layer 8x128x256x256 fp16", "up layer 8x128x256x256 fp16")


def main() -> None:
    """Warm up, then run between the profiler's marks."""
    setup = Setup(compile=False)
    calls = [case.build(setup).calls["mmif"] for case in epilogue_cases() if case.name in NAMES]
    for _ in range(3):
        for call in calls:
            call()
    torch.cuda.synchronize()
    torch.cuda.profiler.start()
    for call in calls * 2:
        call()
    torch.cuda.synchronize()
    torch.cuda.profiler.stop()


if __name__ == "__main__":
    main()
