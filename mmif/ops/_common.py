"""Small helpers shared by the ops."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor


def empty_like_format(x: Tensor, shape: Sequence[int]) -> Tensor:
    """Return an empty tensor of ``shape`` in the dtype, device and memory format (dense) of the 4-D tensor ``x``."""
    channels_last = x.ndim == 4 and x.shape[1] > 1 and x.is_contiguous(memory_format=torch.channels_last)
    memory_format = torch.channels_last if channels_last else torch.contiguous_format
    return torch.empty(tuple(shape), dtype=x.dtype, device=x.device, memory_format=memory_format)
