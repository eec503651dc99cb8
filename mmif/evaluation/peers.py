"""Classical inpainting methods to compare with: OpenCV Telea, OpenCV Navier-Stokes, and PatchMatch.

Each takes one photograph (uint8 [H, W, 3] RGB) and its hole (bool [H, W], True = missing), never sees the pixels under
the hole, and returns a filled uint8 [H, W, 3] whose known pixels are those of the photograph. The libraries are the
``eval`` extra and are imported on the first call. ``docs/evaluation.md`` says how the parameters were chosen.
"""

from __future__ import annotations

import importlib
from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from mmif.evaluation import request

Image = NDArray[np.uint8]
Hole = NDArray[np.bool_]
Baseline = Callable[[Image, Hole], Image]

RADIUS = 1.0  # pixels: neighbourhood from which OpenCV fills each pixel
PATCH_RADIUS = 1  # PatchMatch compares patches of 2 * 1 + 1 = 3 pixels a side
PATCHMATCH_SEED = 0  # of its random search, so that equal input gives equal output


def telea(rgb: Image, hole: Hole) -> Image:
    """Fast-marching inpainting (Telea 2004), OpenCV's ``INPAINT_TELEA``.

    Raises:
        ValueError: shape or dtype is not as the module says, nothing is known, or OpenCV is not installed.
    """
    cv2 = _need("cv2", "opencv-python-headless")
    return _fill(rgb, hole, lambda image: cv2.inpaint(image, hole.astype(np.uint8), RADIUS, cv2.INPAINT_TELEA))


def navier_stokes(rgb: Image, hole: Hole) -> Image:
    """Navier-Stokes inpainting (Bertalmio et al. 2001), OpenCV's ``INPAINT_NS``; errors as in :func:`telea`."""
    cv2 = _need("cv2", "opencv-python-headless")
    return _fill(rgb, hole, lambda image: cv2.inpaint(image, hole.astype(np.uint8), RADIUS, cv2.INPAINT_NS))


def patchmatch(rgb: Image, hole: Hole) -> Image:
    """PatchMatch (Barnes et al. 2009) with the multi-scale fill of ``pypatchmatch``; errors as in :func:`telea`."""
    library = _need("patchmatch.patch_match", "pypatchmatch")

    def fill(image: Image) -> Image:
        library.set_random_seed(PATCHMATCH_SEED)
        return library.inpaint(image, hole, patch_size=PATCH_RADIUS)

    return _fill(rgb, hole, fill)


BASELINES: dict[str, Baseline] = dict(zip(request.BASELINES, (telea, navier_stokes, patchmatch), strict=True))


def _fill(rgb: Image, hole: Hole, method: Callable[[Image], Image]) -> Image:
    if rgb.ndim != 3 or rgb.shape[2] != 3 or rgb.dtype != np.uint8:
        raise ValueError(f"the image must be uint8 [H, W, 3], got {rgb.dtype} {rgb.shape}")
    if hole.shape != rgb.shape[:2] or hole.dtype != np.bool_:
        raise ValueError(f"the hole must be bool {rgb.shape[:2]}, got {hole.dtype} {hole.shape}")
    if hole.all():
        raise ValueError("a baseline needs at least one known pixel, got a hole over the whole image")
    if not hole.any():
        return rgb.copy()
    blanked = np.where(hole[..., None], np.uint8(0), rgb)
    return np.where(hole[..., None], method(blanked), rgb)


def _need(module: str, distribution: str) -> Any:
    try:
        return importlib.import_module(module)
    except ImportError as error:
        raise ValueError(
            f"this baseline needs {distribution} ({error}); run `pip install {distribution}`, "
            'or `pip install "mminvertfill[eval]"` for all of them'
        ) from error
