"""One CUDA graph of the synthesis network: everything between style codes and image in one launch."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from mmif.model.generator import SynthesisNetwork


class CapturedSynthesis:
    """One CUDA graph of a ``SynthesisNetwork`` for one batch size: one launch per image, no allocation.

    Parameters that change afterwards are not seen; capture again.

    Args:
        synthesis: the network, on a CUDA device, in evaluation.
        ws: example of ``forward``'s argument, and so are ``noise`` and ``feats``; shapes and dtypes stay.

    Raises:
        ValueError: the arguments are not on a CUDA device.
    """

    def __init__(
        self, synthesis: SynthesisNetwork, ws: Tensor, noise: Sequence[Tensor], feats: dict[int, Tensor] | None = None
    ):
        if not ws.is_cuda:
            raise ValueError(
                f"CapturedSynthesis: ws must be on a CUDA device, got {ws.device}; call the network itself"
            )
        feats = feats or {}
        self._inputs = [t.clone() for t in (ws, *noise, *feats.values())]
        static_ws, *rest = self._inputs
        static_feats = dict(zip(feats, rest[len(noise) :], strict=True))
        self._keys = list(feats)
        self._graph = torch.cuda.CUDAGraph()
        self._plan = synthesis.plan()  # the graph reads its tensors, also when the network has a newer one
        with torch.no_grad():
            side = torch.cuda.Stream()
            side.wait_stream(torch.cuda.current_stream())
            with torch.cuda.stream(side):  # what runs for the first time (autotuning, the plan) must not be captured
                for _ in range(3):
                    synthesis(static_ws, rest[: len(noise)], static_feats)
            torch.cuda.current_stream().wait_stream(side)
            with torch.cuda.graph(self._graph):
                self._output = synthesis(static_ws, rest[: len(noise)], static_feats)

    def __call__(self, ws: Tensor, noise: Sequence[Tensor], feats: dict[int, Tensor] | None = None) -> Tensor:
        """Return the image, valid until the next call."""
        given = (ws, *noise, *((feats or {})[key] for key in self._keys))
        for static, new in zip(self._inputs, given, strict=True):
            if static.shape != new.shape or static.dtype != new.dtype:
                raise ValueError(
                    f"CapturedSynthesis: inputs must stay {static.dtype} {tuple(static.shape)} as captured, "
                    f"got {new.dtype} {tuple(new.shape)}; capture again"
                )
            static.copy_(new)
        self._graph.replay()
        return self._output
