"""U-Net (Ronneberger, Fischer and Brox 2015, arXiv:1505.04597): maps become smaller and richer, then larger
again; on the way up each level also gets what it saw on the way down, where places are still exact.

Convolutions keep height and width, where the paper's lose the edge, so that a mask is as large as its image;
group norms are added.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.tasks.segment import Segment
from dlsys.zoo.vision.unet.card import CARD, UNetOptions


class UNet(Segment):
    """A class for each pixel of `image`."""

    Options = UNetOptions
    card = CARD

    def build(self) -> nn.Module:
        return UNetNet(self.shape.row["image"][0], self.shape.classes, self.options)


class UNetNet(nn.Module):
    """From images (rows, channels, height, width), of any size, to logits (rows, classes, height, width)."""

    def __init__(self, channels: int, classes: int, options: UNetOptions) -> None:
        super().__init__()
        widths = options.channels
        self.skips = options.skips
        self.down = nn.ModuleList(
            _twice(inputs, outputs) for inputs, outputs in pairwise((channels, *widths))
        )
        # Of each level but the lowest, from there up: halves the channels of what comes from below, then
        # takes both in.
        self.narrow = nn.ModuleList(
            convolution(below, own, 1) for own, below in reversed([*pairwise(widths)])
        )
        self.up = nn.ModuleList(_twice(own * (1 + self.skips), own) for own in reversed(widths[:-1]))
        self.score = nn.Conv2d(widths[0], classes, 1)

    def forward(self, image: Tensor) -> Tensor:
        x, seen = image, []
        for level, block in enumerate(self.down):
            x = block(x if level == 0 else F.max_pool2d(x, 2))
            seen.append(x)
        for narrow, block, own in zip(self.narrow, self.up, reversed(seen[:-1]), strict=True):
            x = F.interpolate(narrow(x), size=own.shape[-2:])
            x = block(torch.cat([own, x], 1) if self.skips else x)
        result: Tensor = self.score(x)
        return result


def _twice(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(convolution(inputs, outputs), convolution(outputs, outputs))
