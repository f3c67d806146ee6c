"""3D U-Net (Çiçek et al. 2016, arXiv:1606.06650): a U-Net whose convolutions are of three dimensions.
Channels double before each map is made smaller, not after, so that none is a bottleneck.

Convolutions keep the sides, where the paper's lose the edge; norms are group norms, where the paper's are of
batches, which hold few volumes.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.tasks.segment import Segment
from dlsys.zoo.vision.unet_3d.card import CARD, UNet3DOptions


class UNet3D(Segment):
    """A class for each voxel of `volume`."""

    Options = UNet3DOptions
    card = CARD

    def build(self) -> nn.Module:
        return UNet3DNet(self.shape.row["volume"][0], self.shape.classes, self.options)


class UNet3DNet(nn.Module):
    """From volumes (rows, channels, a, b, c), of any size, to logits (rows, classes, a, b, c)."""

    def __init__(self, channels: int, classes: int, options: UNet3DOptions) -> None:
        super().__init__()
        widths = options.channels
        self.down = nn.ModuleList(
            _twice(inputs, max(1, outputs // 2), outputs) for inputs, outputs in pairwise((channels, *widths))
        )
        self.up = nn.ModuleList(_twice(below + own, own, own) for own, below in reversed([*pairwise(widths)]))
        self.score = nn.Conv3d(widths[0], classes, 1)

    def forward(self, volume: Tensor) -> Tensor:
        x, seen = volume, []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool3d(x, 2))
            seen.append(x)
        for block, own in zip(self.up, reversed(seen[:-1]), strict=True):
            x = block(torch.cat([own, F.interpolate(x, size=own.shape[-3:])], 1))
        result: Tensor = self.score(x)
        return result


def _twice(inputs: int, between: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, between, dims=3), convolution(between, outputs, dims=3))
