"""A linear SVM on histograms of oriented gradients (Dalal and Triggs 2005, doi:10.1109/CVPR.2005.177).

As the paper ends: gradients of [−1, 0, 1] without smoothing, of the channel where they are largest; votes for
the two nearest directions; R-HOG blocks under a Gaussian, in which a pixel votes for the nearest cells;
L2-Hys.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import UsageError
from dlsys.zoo.tasks.svm import LinearSVM, Standardized
from dlsys.zoo.vision.hog_svm.card import CARD, HOGOptions

# Of a block's sum of squares; it leaves blocks without an edge at zero.
_EPSILON = 1e-4


class HOG(nn.Module):
    """(rows, channels, height, width) in 0…1 to (rows, blocks · block² · bins).

    Numbers stand in the order of blocks (row by row), their cells, and directions: bin i is around
    (i + ½)/bins of 180 degrees (or 360), counted from an edge's gradient to the right, downwards.
    """

    votes: Tensor

    def __init__(self, options: HOGOptions) -> None:
        super().__init__()
        self.options = options
        side = options.cell * options.block
        # From the block's middle to a pixel's, and to a cell's, both in pixels.
        pixel = torch.arange(side) - (side - 1) / 2
        cell = options.cell * (torch.arange(options.block) - (options.block - 1) / 2)
        share = (1 - (pixel - cell[:, None]).abs() / options.cell).clamp(min=0)
        line = share * torch.exp(-((pixel / (side / 2)) ** 2) / 2)  # the Gaussian's sigma is half a block
        kernels = line[:, None, :, None] * line[None, :, None, :]
        self.register_buffer("votes", kernels.flatten(0, 1)[:, None], persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        size, angle = _gradient(image)
        directions = self._directions(size, angle).flatten(0, 1)[:, None]
        blocks = F.conv2d(directions, self.votes.to(image.dtype), stride=self.options.cell)
        blocks = blocks.reshape(len(image), self.options.bins, *blocks.shape[1:])
        # (rows, bins, cells, down, right) to (rows, blocks, cells · bins)
        blocks = blocks.permute(0, 3, 4, 2, 1).flatten(3).flatten(1, 2)
        return self._normalized(self._normalized(blocks).clamp(max=self.options.clip)).flatten(1)

    def _directions(self, size: Tensor, angle: Tensor) -> Tensor:
        """Each pixel's votes (rows, bins, height, width): its gradient's size, shared by the two bins that
        are next to its direction."""
        bins, turn = self.options.bins, 2 * math.pi if self.options.signed else math.pi
        place = angle / turn * bins - 0.5
        lower = place.floor()
        upper_share = place - lower
        first = lower.long().remainder(bins)
        found = size.new_zeros(len(size), bins, *size.shape[1:])
        found.scatter_add_(1, first[:, None], (size * (1 - upper_share))[:, None])
        return found.scatter_add_(1, (first + 1).remainder(bins)[:, None], (size * upper_share)[:, None])

    def _normalized(self, blocks: Tensor) -> Tensor:
        return blocks / (blocks.square().sum(-1, keepdim=True) + _EPSILON).sqrt()


def _gradient(image: Tensor) -> tuple[Tensor, Tensor]:
    """Size and angle (from −π to π) of each pixel's gradient: (rows, height, width); zero at the edges."""
    down, right = torch.zeros_like(image), torch.zeros_like(image)
    down[:, :, 1:-1] = image[:, :, 2:] - image[:, :, :-2]
    right[..., 1:-1] = image[..., 2:] - image[..., :-2]
    strongest = (down.square() + right.square()).argmax(1, keepdim=True)
    down, right = (part.gather(1, strongest)[:, 0] for part in (down, right))
    return torch.hypot(down, right), torch.atan2(down, right)


class HOGSVM(LinearSVM):
    """Scores (rows, classes) of `image`, of at least a block's pixels a side.

    Raises:
        UsageError: images are smaller than a block.
    """

    Options = HOGOptions
    card = CARD

    def features(self) -> nn.Module:
        if self.options.features == "raw":
            return Standardized()
        _, *sides = self.shape.row["image"]
        block = self.options.cell * self.options.block
        if min(sides) < block:
            raise UsageError(
                f"model.cell: blocks have {block} pixels a side, and images {' × '.join(map(str, sides))}: "
                "make cells smaller, or images larger"
            )
        return HOG(self.options)
