"""Two calls of each of the hottest kernels at their largest shapes, marked for a profiler (profile.sh)."""

from __future__ import annotations

from itertools import chain

import torch
from cases.attention import attention_cases
from cases.bottleneck import bottleneck_cases
from cases.stylegan_ops import epilogue_cases
from comparison import Setup

NAMES = (
    "layer 8x128x256x256 fp16",
    "up layer 8x128x256x256 fp16",
    "attention post 8x64x128x128 (4096x128+1024x512) fp16 nhwc",
    "acb_paths 8x256x32x32 fp16",
)


def main() -> None:
    """Warm up, then run between the profiler's marks."""
    setup = Setup(compile=False)
    cases = chain(epilogue_cases(), attention_cases(), bottleneck_cases())
    calls = [case.build(setup).calls["mmif"] for case in cases if case.name in NAMES]
    with torch.no_grad():
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
