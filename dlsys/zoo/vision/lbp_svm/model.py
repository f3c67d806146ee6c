"""A linear SVM on local binary patterns (Ojala et al. 2002, doi:10.1109/TPAMI.2002.1017623).

Whether each neighbour on a circle is at least as bright as the pixel gives a pattern of bits. Those with at
most two changes around the circle, the uniform ones, have a place each in the histogram (or, invariant to
rotation, a place for each number of ones); all others share the last. What the SVM sees are the square roots
of the patterns' shares: their scalar product is Hellinger's kernel, exactly (Vedaldi and Zisserman 2012,
doi:10.1109/TPAMI.2011.153), which parts histograms better than the shares themselves.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.zoo.tasks.svm import LinearSVM, Standardized, grey
from dlsys.zoo.vision.lbp_svm.card import CARD, LBPOptions


def places(points: int, rotation_invariant: bool) -> Tensor:
    """Each pattern's place in the histogram: int64 (2^points,), of neighbour i's bit × 2^i.

    There are points · (points − 1) + 3 places; points + 2 of them where rotation does not count.
    """
    patterns = torch.arange(2**points)
    bits = patterns[:, None] >> torch.arange(points) & 1
    ones, uniform = bits.sum(1), (bits != bits.roll(-1, 1)).sum(1) <= 2
    if rotation_invariant:
        return torch.where(uniform, ones, points + 1)
    found = torch.full_like(patterns, int(uniform.sum()))
    found[uniform] = torch.arange(int(uniform.sum()))
    return found


def neighbours(image: Tensor, points: int, radius: float) -> Tensor:
    """What stands on a circle around each pixel that is far enough from the edges.

    Args:
        image: (rows, height, width).
        points: the first is to the right, the next ones counter-clockwise.
        radius: in pixels; between pixels the image is bilinear.

    Returns:
        (rows, points, height − 2⌈radius⌉, width − 2⌈radius⌉).
    """
    edge = math.ceil(radius)
    height, width = (side - 2 * edge for side in image.shape[-2:])
    found = []
    for point in range(points):
        angle = 2 * math.pi * point / points
        # Rounded, so that cos 90° is no pixel's part.
        down, right = (round(edge + radius * part, 6) for part in (-math.sin(angle), math.cos(angle)))
        top, left = min(int(down), 2 * edge - 1), min(int(right), 2 * edge - 1)
        around = image[:, top : top + height + 1, left : left + width + 1]
        # lerp gives two equal pixels' value exactly, so that plain areas are one pattern.
        rows = torch.lerp(around[..., :-1], around[..., 1:], right - left)
        found.append(torch.lerp(rows[:, :-1], rows[:, 1:], down - top))
    return torch.stack(found, 1)


class LBP(nn.Module):
    """(rows, channels, height, width) to (rows, radii · cells² · places): square roots of shares."""

    places: Tensor

    def __init__(self, options: LBPOptions) -> None:
        super().__init__()
        self.options = options
        points = options.points
        self.count = points + 2 if options.rotation_invariant else points * (points - 1) + 3
        self.register_buffer("places", places(points, options.rotation_invariant), persistent=False)

    @torch.no_grad()
    def forward(self, image: Tensor) -> Tensor:
        found = [self._histograms(grey(image), radius) for radius in self.options.radii]
        return torch.cat(found, 1).sqrt()

    def _histograms(self, image: Tensor, radius: float) -> Tensor:
        """The shares of a cell's patterns, cell by cell: (rows, cells² · places)."""
        edge, cells = math.ceil(radius), self.options.cells
        around = neighbours(image, self.options.points, radius)
        middle = image[:, None, edge:-edge, edge:-edge]
        weights = 2 ** torch.arange(self.options.points, device=image.device)
        pattern = ((around >= middle) * weights[:, None, None]).sum(1)
        rows, height, width = pattern.shape
        down, right = (torch.arange(side, device=image.device) * cells // side for side in (height, width))
        cell = (down[:, None] * cells + right).expand(rows, -1, -1)
        place = cell * self.count + self.places[pattern]
        counts = image.new_zeros(rows, cells * cells * self.count)
        counts.scatter_add_(1, place.flatten(1), image.new_ones(1).expand(rows, height * width))
        counts = counts.view(rows, cells * cells, self.count)
        return (counts / counts.sum(2, keepdim=True)).flatten(1)


class LBPSVM(LinearSVM):
    """Scores (rows, classes) of `image`.

    Raises:
        UsageError: images are so small that a cell has no pixel.
    """

    Options = LBPOptions
    card = CARD

    def features(self) -> nn.Module:
        if self.options.features == "raw":
            return Standardized()
        _, *sides = self.shape.row["image"]
        least = 2 * math.ceil(max(self.options.radii)) + self.options.cells
        if min(sides) < least:
            raise UsageError(
                f"model.radii: circles and cells take {least} pixels a side, and images have "
                f"{' × '.join(map(str, sides))}: choose smaller radii, fewer cells, or larger images"
            )
        return LBP(self.options)
