"""V-Net (Milletari, Navab and Ahmadi 2016, arXiv:1606.04797): stages of 3D convolutions that learn what is to
be added to their input, made smaller and larger by strided convolutions, and learnt by Dice's coefficient,
which minds how much of an object is found and not how much ground there is.

Group norms are added.
"""

from __future__ import annotations

from itertools import pairwise

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.zoo.layers.blocks import groups
from dlsys.zoo.objective import dice
from dlsys.zoo.tasks.segment import Segment
from dlsys.zoo.vision.v_net.card import CARD, VNetOptions


class VNet(Segment):
    """A class for each voxel of `volume`.

    Raises:
        UsageError: a side cannot be halved as often as there are stages.
    """

    Options = VNetOptions
    card = CARD

    def learns_by(self, outputs: Tensor, mask: Tensor) -> Tensor:
        return dice(outputs, mask)

    def build(self) -> nn.Module:
        channels, *sides = self.shape.row["volume"]
        parts = 2 ** (len(self.options.channels) - 1)
        if wrong := [side for side in sides if side % parts]:
            raise UsageError(
                f"model.channels: {len(self.options.channels)} stages halve a volume's sides "
                f"{len(self.options.channels) - 1} times, and {wrong[0]} is no multiple of {parts}",
                hint="make data.size a multiple, or name fewer stages",
            )
        return VNetNet(channels, self.shape.classes, self.options)


class VNetNet(nn.Module):
    """From volumes (rows, channels, a, b, c) to logits (rows, classes, a, b, c)."""

    def __init__(self, channels: int, classes: int, options: VNetOptions) -> None:
        super().__init__()
        widths, side = options.channels, options.side
        counts = [options.convolutions[min(n, len(options.convolutions) - 1)] for n in range(len(widths))]
        self.begin = nn.Sequential(
            nn.Conv3d(channels, widths[0], side, padding=side // 2), *_after(widths[0])
        )
        self.down = nn.ModuleList(
            nn.Sequential(nn.Conv3d(inputs, outputs, 2, stride=2), *_after(outputs))
            for inputs, outputs in pairwise(widths)
        )
        self.stages = nn.ModuleList(_Stage(width, n, side) for width, n in zip(widths, counts, strict=True))
        steps = [*zip(pairwise(widths), counts, strict=False)][::-1]
        self.up = nn.ModuleList(
            nn.Sequential(nn.ConvTranspose3d(below, own, 2, stride=2), *_after(own))
            for (own, below), _ in steps
        )
        # What comes from below and what was seen on the way down, side by side.
        self.joined = nn.ModuleList(_Stage(2 * own, n, side) for (own, _), n in steps)
        self.narrow = nn.ModuleList(nn.Conv3d(2 * own, own, 1) for (own, _), _ in steps)
        self.score = nn.Conv3d(widths[0], classes, 1)

    def forward(self, volume: Tensor) -> Tensor:
        x = self.stages[0](self.begin(volume))
        seen = [x]
        for down, stage in zip(self.down, self.stages[1:], strict=True):
            x = stage(down(x))
            seen.append(x)
        for up, stage, narrow, own in zip(
            self.up, self.joined, self.narrow, reversed(seen[:-1]), strict=True
        ):
            x = narrow(stage(torch.cat([up(x), own], 1)))
        result: Tensor = self.score(x)
        return result


class _Stage(nn.Module):
    """A few convolutions, whose result is added to what they were given; the sum is activated."""

    def __init__(self, width: int, count: int, side: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        for number in range(count):
            layers += [nn.Conv3d(width, width, side, padding=side // 2), *_after(width)]
            if number == count - 1:
                layers.pop()  # the last one's activation is the sum's
        self.layers = nn.Sequential(*layers)
        self.activation = nn.PReLU(width)

    def forward(self, x: Tensor) -> Tensor:
        result: Tensor = self.activation(x + self.layers(x))
        return result


def _after(width: int) -> list[nn.Module]:
    return [nn.GroupNorm(groups(width), width), nn.PReLU(width)]
