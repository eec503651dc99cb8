"""RGB branch F: features of the known pixels for every resolution of the generator (F&W+ space, Eq. 6)."""

from __future__ import annotations

from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from mmif.config import GeneratorConfig
from mmif.model.layers import EqualConv2d, EqualLinear


def diffuse(x: Tensor, known: Tensor) -> Tensor:
    """Spread the known pixels smoothly over the unknown ones, coarse to fine (a pull-push pyramid).

    Args:
        x: ``[N, C, s, s]``, zero where unknown; s a power of two.
        known: ``[N, 1, s, s]`` in {0, 1}.

    Returns:
        Like ``x``, equal to it where known; zero where nothing at all is known.
    """
    if x.shape[2] == 1:
        return x / known.clamp(min=1e-6)
    # Averages of what is known in every 2x2 cell; a cell counts as known as soon as one of its pixels is.
    total, share = F.avg_pool2d(x, 2), F.avg_pool2d(known, 2)
    cells = (share > 0).to(x.dtype)
    coarse = diffuse(total / share.clamp(min=0.25) * cells, cells)
    smooth = F.interpolate(coarse, scale_factor=2, mode="bilinear", align_corners=False)
    return x * known + smooth * (1 - known)


class RGBBranch(nn.Module):
    """Masked photograph to ``{resolution: feature}``, finest first: convolution, tap, downsample; dense at 4x4.

    Every tap passes a 1x1 convolution that starts at zero, so at step 0 the generator is the pretrained one. With
    ``const_mode="replace"`` the 4x4 feature stands in for the learned constant and starts at random instead.
    """

    def __init__(self, config: GeneratorConfig):
        super().__init__()
        self.config = config
        fine_to_coarse = config.resolutions[::-1]
        widths = [3 + config.fbranch_mask] + [config.channels(r) for r in fine_to_coarse]
        # The first convolution works at full size; every later one follows a blur-downsampling.
        self.convs = nn.ModuleList(
            EqualConv2d(i, o, 3, act="lrelu", down=1 if n == 0 else 2) for n, (i, o) in enumerate(pairwise(widths))
        )
        before = [r // 2 for r in fine_to_coarse[:-1]] if config.add_at == "pre_upconv" else fine_to_coarse[:-1]
        self.taps = nn.ModuleList(
            EqualConv2d(config.channels(r), config.channels(b), 1, zero_init=True)
            for r, b in zip(fine_to_coarse[:-1], before, strict=True)
        )
        channels = config.channels(4)
        hidden = min(512, 2 * channels)  # 512 in the full model; flat 8192 -> 8192 would be 67 M weights
        self.squeeze = EqualLinear(channels * 16, hidden, act="lrelu")
        self.expand = EqualLinear(hidden, channels * 16, act="lrelu")
        self.tail = EqualConv2d(channels, channels, 3, zero_init=config.const_mode == "add")

    def forward(self, image: Tensor, hole: Tensor) -> dict[int, Tensor]:
        """``image`` [N, 3, s, s] in [-1, 1] and ``hole`` [N, 1, s, s] in {0, 1}; the image is masked here."""
        x = image * (1 - hole)
        if self.config.fbranch_fill == "diffuse":
            x = diffuse(x, 1 - hole)
        if self.config.fbranch_mask:
            x = torch.cat([x, hole], dim=1)
        feats: dict[int, Tensor] = {}
        for n, r in enumerate(self.config.resolutions[::-1]):
            x = self.convs[n](x)
            if r > 4:
                feats[r] = self.taps[n](x)
        y = self.expand(self.squeeze(x.flatten(1))).view_as(x)
        feats[4] = self.tail(y)
        return feats
