"""Between arrays outside and tensors inside: float32 NCHW, images in [-1, 1], planes 0 or 1, labels one-hot."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor


def to_model(rgb: np.ndarray) -> Tensor:
    """uint8 [N, H, W, 3] -> float32 [N, 3, H, W] in [-1, 1]."""
    return levels_to_model(torch.from_numpy(np.ascontiguousarray(rgb)).permute(0, 3, 1, 2))


def levels_to_model(levels: Tensor) -> Tensor:
    """uint8 of any shape -> float32 in [-1, 1] on the same device."""
    return levels.to(torch.float32, copy=True).div_(127.5).sub_(1.0)


def from_model(image: Tensor) -> np.ndarray:
    """Float [N, 3, H, W] in [-1, 1] -> uint8 [N, H, W, 3], clamped and rounded."""
    levels = image.detach().float().add(1.0).mul_(127.5).round_().clamp_(0, 255)
    return levels.to(torch.uint8).permute(0, 2, 3, 1).cpu().numpy()


def binary_to_model(planes: np.ndarray) -> Tensor:
    """Bool [N, H, W] -> float32 [N, 1, H, W], 0 or 1: holes and edges."""
    return torch.from_numpy(planes.astype(np.float32))[:, None]


def labels_to_model(labels: np.ndarray | Tensor, num_classes: int) -> Tensor:
    """Whole numbers [N, H, W] -> one-hot float32 [N, num_classes, H, W] on the same device; unknown is all zero."""
    labels = torch.as_tensor(labels)
    ids = torch.arange(num_classes, dtype=labels.dtype, device=labels.device)
    return (labels[:, None] == ids[:, None, None]).float()
