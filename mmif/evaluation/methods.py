"""Who fills the holes: classical methods, and a model as users run it, through :class:`mmif.Inpainter`."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from mmif.evaluation.peers import BASELINES
from mmif.evaluation.protocol import Batch
from mmif.inpaint import Inpainter, Job

Method = Callable[[Batch], NDArray[np.uint8]]  # the filled photographs, uint8 [N, H, W, 3]


def baseline_method(name: str) -> Method:
    """The classical method called ``name``, image by image."""

    def method(batch: Batch) -> NDArray[np.uint8]:
        return np.stack([BASELINES[name](rgb, hole) for rgb, hole in zip(batch.rgb, batch.hole, strict=True)])

    return method


def model_method(pipe: Inpainter, seed: int, *, oracle: bool = False) -> Method:
    """What users run, its noise keyed by (seed, position in the split).

    Args:
        pipe: the model, with its way of meeting the border of the hole.
        seed: of the noise.
        oracle: give the true edges everywhere, and the true labels where there are any.
    """

    def method(batch: Batch) -> NDArray[np.uint8]:
        try:
            results = list(pipe.batch(jobs(batch, oracle), len(batch.keys), seed=seed))
        except ValueError as error:
            raise ValueError(f"the batch of photograph {batch.keys[0]} cannot be filled: {error}") from error
        return np.stack([np.asarray(result.image.convert("RGB")) for result in results])

    return method


def jobs(batch: Batch, oracle: bool) -> list[Job]:
    """A request for each photograph of the batch."""
    guidance = zip(batch.seg, batch.edge, strict=True) if oracle else [(None, None)] * len(batch.keys)
    return [
        Job(rgb, hole, segmentation=seg, edge=edge, index=index)
        for rgb, hole, index, (seg, edge) in zip(batch.rgb, batch.hole, batch.indices, guidance, strict=True)
    ]
