"""A small network from images to points on the unit sphere, which near points compare."""

from __future__ import annotations

import math
from collections import OrderedDict

from torch import Tensor, nn
from torch.nn import functional as F

# Blocks halve the sides of their maps until the shorter one is of 4 to 7 pixels.
_LAST = 4


class Unit(nn.Module):
    """Vectors (rows, dimensions) at length 1."""

    def forward(self, vectors: Tensor) -> Tensor:
        return F.normalize(vectors, dim=-1)


def embedding(image: tuple[int, ...], width: int, dimensions: int) -> nn.Module:
    """A convolutional network whose rows do not see each other.

    Args:
        image: (channels, height, width) of the images.
        width: maps of the first block; each of the next has twice as many.
        dimensions: of the points that it gives.
    """
    channels, height, across = image
    count = max(1, int(math.log2(min(height, across) / _LAST)))
    blocks = OrderedDict[str, nn.Module]()
    for index in range(count):
        maps = width * 2**index
        blocks[f"block{index + 1}"] = nn.Sequential(
            *_convolved(channels, maps), *_convolved(maps, maps), nn.MaxPool2d(2)
        )
        channels, height, across = maps, height // 2, across // 2
    units = channels * height * across
    return nn.Sequential(blocks | {"dense": nn.Sequential(nn.Flatten(), nn.Linear(units, dimensions))})


def _convolved(channels: int, maps: int) -> tuple[nn.Module, ...]:
    # Group norm (Wu and He 2018, arXiv:1803.08494) sees one image at a time, so that several workers compute
    # what one does. It takes away what a bias adds to a group, whose gradient would be rounding alone.
    convolution = nn.Conv2d(channels, maps, 3, padding=1, bias=False)
    return convolution, nn.GroupNorm(math.gcd(8, maps), maps), nn.ReLU()
