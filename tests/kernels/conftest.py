"""What the tests of Triton kernels share: where they run."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch


@pytest.fixture
def device() -> Iterator[str]:
    """The GPU; where there is none, the CPU, on which Triton interprets.

    On a GPU the first configuration runs, untuned: tuning would drop a wrong one and take the reference in its place.
    """
    from mmif.kernels import tuning  # not before pytest has read --kernels

    with tuning.forced(0):
        yield "cuda" if torch.cuda.is_available() else "cpu"
