"""Convolutions with their norm and activation, as detectors and segmenters are built of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

from torch import Tensor, nn

# Channels of a group, at least.
_GROUP = 8


def convolution(
    inputs: int, outputs: int, side: int = 3, *, stride: int = 1, dilation: int = 1, dims: int = 2
) -> nn.Sequential:
    """A convolution of `side` × `side` that keeps height and width (or divides them by `stride`, rounding
    up), group norm and ReLU; of volumes with `dims=3`.

    Group norm (Wu and He 2018) and not batch norm: rows do not see each other, so any number of workers
    computes what one does, and detectors' small batches do it no harm.
    """
    return nn.Sequential(
        (nn.Conv2d, nn.Conv3d)[dims - 2](
            inputs, outputs, side, stride, dilation * (side // 2), dilation, bias=False
        ),
        nn.GroupNorm(groups(outputs), outputs),
        nn.ReLU(inplace=True),
    )


def groups(channels: int) -> int:
    """Groups for a norm of so many channels: as many as divide them into 8 or more each."""
    return next((count for count in range(max(1, channels // _GROUP), 0, -1) if channels % count == 0), 1)


class Stages(nn.ModuleList):
    """A small convolutional net, each of whose stages halves height and width (rounding up).

    From images (rows, channels[0], height, width) to the maps of all stages, the largest first.

    Args:
        channels: the image's, and of each stage.
    """

    def __init__(self, channels: Sequence[int]) -> None:
        super().__init__(
            nn.Sequential(convolution(inputs, outputs, stride=2), convolution(outputs, outputs))
            for inputs, outputs in pairwise(channels)
        )

    def forward(self, x: Tensor) -> list[Tensor]:
        maps = []
        for stage in self:
            x = stage(x)
            maps.append(x)
        return maps
