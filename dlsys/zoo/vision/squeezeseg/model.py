"""SqueezeSegV2 (Wu et al. 2018, arXiv:1809.08495): a laser scan as the sensor saw it, segmented as an image
is; cheap by fire modules (Iandola et al. 2016), robust to lost returns by context aggregation, learnt by the
focal loss.

Maps lose columns alone: lines are few. Norms are group norms, where the paper's are of batches. The
    conditional
random field at the paper's end is left out.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.layers.blocks import convolution
from dlsys.zoo.objective import focal
from dlsys.zoo.tasks.segment import Segment
from dlsys.zoo.vision.squeezeseg.card import CARD, SqueezeSegV2Options

# What x, y, z, strength and range are divided by: about their deviations on a road.
_DEVIATIONS = (12.0, 7.0, 1.0, 0.2, 12.0)
# Of a fire module, channels by those of its squeeze.
_SQUEEZE = 4
# Of a context module: what is around a place, and channels by those between its convolutions.
_AROUND, _NARROW = 7, 16


class SqueezeSegV2(Segment):
    """A class for each point of `scan`: x, y, z, strength and range, range 0 where nothing returned."""

    Options = SqueezeSegV2Options
    card = CARD

    def learns_by(self, outputs: Tensor, mask: Tensor) -> Tensor:
        return focal(outputs, mask)

    def build(self) -> nn.Module:
        return SqueezeSegV2Net(self.shape.classes, self.options)


class SqueezeSegV2Net(nn.Module):
    """From scans (rows, 5, lines, columns) to logits (rows, classes, lines, columns)."""

    def __init__(self, classes: int, options: SqueezeSegV2Options) -> None:
        super().__init__()
        widths = options.channels

        def context(width: int) -> nn.Module:
            return Context(width) if options.context else nn.Identity()

        # Besides the five, whether there was a return at all.
        self.begin = nn.Sequential(convolution(6, widths[0]), context(widths[0]))
        self.down = nn.ModuleList(
            nn.Sequential(
                nn.MaxPool2d(3, stride=(1, 2), padding=1),
                Fire(inputs, outputs),
                context(outputs),
                Fire(outputs, outputs),
            )
            for inputs, outputs in pairwise(widths)
        )
        steps = [*pairwise(widths)][::-1]
        self.narrow = nn.ModuleList(Fire(below, own) for own, below in steps)
        self.up = nn.ModuleList(convolution(own, own) for own, _ in steps)
        self.score = nn.Conv2d(widths[0], classes, 1)

    def forward(self, scan: Tensor) -> Tensor:
        there = (scan[:, 4:] > 0).to(scan)
        x = self.begin(torch.cat([scan / scan.new_tensor(_DEVIATIONS)[:, None, None], there], 1))
        seen = [x]
        for block in self.down:
            x = block(x)
            seen.append(x)
        for narrow, block, own in zip(self.narrow, self.up, reversed(seen[:-1]), strict=True):
            x = block(F.interpolate(narrow(x), size=own.shape[-2:]) + own)
        result: Tensor = self.score(x)
        return result


class Fire(nn.Module):
    """Few channels of 1 × 1, then as many of 1 × 1 as of 3 × 3 side by side."""

    def __init__(self, inputs: int, outputs: int) -> None:
        super().__init__()
        between = max(1, outputs // _SQUEEZE)
        self.squeeze = convolution(inputs, between, 1)
        self.one = convolution(between, outputs - outputs // 2, 1)
        self.three = convolution(between, outputs // 2)

    def forward(self, x: Tensor) -> Tensor:
        x = self.squeeze(x)
        return torch.cat([self.one(x), self.three(x)], 1)


class Context(nn.Module):
    """Weighs each channel at each place, in 0…1, by the largest values around it, which outlast a few
    zeros."""

    def __init__(self, width: int) -> None:
        super().__init__()
        between = max(1, width // _NARROW)
        self.weigh = nn.Sequential(
            nn.MaxPool2d(_AROUND, stride=1, padding=_AROUND // 2),
            nn.Conv2d(width, between, 1),
            nn.ReLU(inplace=True),
            nn.Conv2d(between, width, 1),
            nn.Sigmoid(),
        )

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = x * self.weigh(x)
        return result
