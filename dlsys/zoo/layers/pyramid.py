"""Feature pyramids (Lin et al. 2017, arXiv:1612.03144): what a net's late maps know, on its early maps
too."""

from __future__ import annotations

from collections.abc import Sequence

from torch import Tensor, nn
from torch.nn import functional as F


class FeaturePyramid(nn.Module):
    """From the maps of several stages to as many maps of the same sizes and of `width` channels each.

    A map is the stage's own, made as wide, plus the next one's enlarged; a last convolution smooths each.

    Args:
        inputs: channels of the maps, the largest map first.
        width: channels of each result.
    """

    def __init__(self, inputs: Sequence[int], width: int) -> None:
        super().__init__()
        self.sideways = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in inputs)

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        found: list[Tensor] = []
        for sideways, own in zip(reversed(self.sideways), reversed(maps), strict=True):
            x = sideways(own)
            if found:
                x = x + F.interpolate(found[-1], size=x.shape[-2:], mode="nearest")
            found.append(x)
        return [smooth(x) for smooth, x in zip(self.smooth, reversed(found), strict=True)]
