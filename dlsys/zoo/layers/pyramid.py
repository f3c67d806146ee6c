"""Feature pyramids (Lin et al. 2017, arXiv:1612.03144): what late maps know, on early ones too."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.blocks import groups
from dlsys.zoo.layers.boxes import area


class FeaturePyramid(nn.Module):
    """From the maps of several stages to as many maps of the same sizes and of `width` channels each.

    A map is the stage's own, made as wide, plus the next one's enlarged; a last convolution smooths each.

    Args:
        inputs: channels of the maps, the largest map first.
        width: channels of each result.
        norm: whether group norms (Wu and He 2018), which the paper has none of, bring them all to one scale.
    """

    def __init__(self, inputs: Sequence[int], width: int, *, norm: bool = True) -> None:
        super().__init__()
        self.sideways = nn.ModuleList(nn.Conv2d(channels, width, 1) for channels in inputs)
        self.smooth = nn.ModuleList(nn.Conv2d(width, width, 3, padding=1) for _ in inputs)
        if norm:
            self.smooth = nn.ModuleList(
                nn.Sequential(smooth, nn.GroupNorm(groups(width), width)) for smooth in self.smooth
            )

    def forward(self, maps: Sequence[Tensor]) -> list[Tensor]:
        found: list[Tensor] = []
        for sideways, own in zip(reversed(self.sideways), reversed(maps), strict=True):
            x = sideways(own)
            if found:
                x = x + F.interpolate(found[-1], size=x.shape[-2:], mode="nearest")
            found.append(x)
        return [smooth(x) for smooth, x in zip(self.smooth, reversed(found), strict=True)]


def level_of(boxes: Tensor, sizes: Sequence[float]) -> Tensor:
    """The level whose map a box's features are taken from: int64 (…).

    Where each level's size is twice the last one's, it is the paper's: one level for each doubling.

    Args:
        boxes: (…, 4), in pixels.
        sizes: of each level, the side of the boxes that it is for, in pixels, rising.
    """
    between = [(small * large) ** 0.5 for small, large in pairwise(sizes)]
    return torch.bucketize(area(boxes).clamp(min=0).sqrt(), boxes.new_tensor(between))
