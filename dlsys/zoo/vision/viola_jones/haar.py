"""Integral images and Haar-like features (Viola and Jones 2001, sections 2 and 2.1)."""

from __future__ import annotations

import numpy as np
import torch
from torch import Tensor

# A window in whose pixels features are told.
BASE = 24
# What a feature is made of: rectangles, as rows and columns of a grid, each with its weight.
_KINDS: tuple[tuple[tuple[int, int], tuple[tuple[int, int, int, int, float], ...]], ...] = (
    ((1, 2), ((0, 0, 1, 1, 1.0), (0, 1, 1, 2, -1.0))),
    ((2, 1), ((0, 0, 1, 1, 1.0), (1, 0, 2, 1, -1.0))),
    ((1, 3), ((0, 0, 1, 3, 1.0), (0, 1, 1, 2, -1.0))),
    ((3, 1), ((0, 0, 3, 1, 1.0), (1, 0, 2, 1, -1.0))),
    ((2, 2), ((0, 0, 1, 1, 0.5), (1, 1, 2, 2, 0.5), (0, 0, 2, 2, -1.0))),
)
_RECTANGLES = 3
# Numbers of windows × features that are computed at once.
_AT_ONCE = 500_000
# Of a window that is all alike.
_LEAST_DEVIATION = 0.02


def integral(image: Tensor) -> Tensor:
    """Sums of all pixels above and to the left of each corner: float64 (rows, height + 1, width + 1).

    Args:
        image: (rows, height, width).
    """
    sums = image.double().cumsum(1).cumsum(2)
    return torch.nn.functional.pad(sums, (1, 0, 1, 0))


def drawn(count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
    """Features at random: the rectangles of each, float64 (count, 3, 4) of top, left, bottom and right as
    shares of a window, and their weights (count, 3), whose sum is 0: a feature is a difference of means."""
    generator = np.random.default_rng(seed)
    rectangles, weights = np.zeros((count, _RECTANGLES, 4)), np.zeros((count, _RECTANGLES))
    rectangles[:, :, 2:] = 1  # of no weight
    for number in range(count):
        (rows, columns), parts = _KINDS[generator.integers(len(_KINDS))]
        high = rows * generator.integers(2, BASE // rows + 1)
        wide = columns * generator.integers(2, BASE // columns + 1)
        top, left = generator.integers(BASE - high + 1), generator.integers(BASE - wide + 1)
        for place, (*corners, weight) in enumerate(parts):
            grid = np.array(corners) * np.array([high / rows, wide / columns] * 2)
            rectangles[number, place] = (grid + np.array([top, left, top, left])) / BASE
            weights[number, place] = weight
    return torch.from_numpy(rectangles), torch.from_numpy(weights)


def windows(height: int, width: int, side: int, growth: float, step: float) -> Tensor:
    """All windows of an image: int64 (n, 3) of top, left and side, the smallest first."""
    found = []
    size = float(side)
    while round(size) <= min(height, width):
        whole, apart = round(size), max(1, round(size * step))
        tops = torch.arange(0, height - whole + 1, apart)
        lefts = torch.arange(0, width - whole + 1, apart)
        grid = torch.cartesian_prod(tops, lefts)
        found.append(torch.cat([grid, torch.full((len(grid), 1), whole)], 1))
        size *= growth
    return torch.cat(found)


def values(image: Tensor, rows: Tensor, window: Tensor, rectangles: Tensor, weights: Tensor) -> Tensor:
    """Features of windows, in deviations of the window's pixels: float64 (n, features).

    Args:
        image: grey, (images, height, width).
        rows: of each window, which image it is of; int64 (n,).
        window: (n, 3), as `windows` gives them.
        rectangles, weights: as `drawn` gives them.
    """
    sums, squares = integral(image), integral(image**2)
    whole = torch.tensor([[0.0, 0.0, 1.0, 1.0]], dtype=torch.float64, device=image.device)
    found = []
    at_once = max(1, _AT_ONCE // max(1, len(rectangles)))
    for start in range(0, len(rows), at_once):
        some = slice(start, start + at_once)
        row, place = rows[some], window[some]
        mean = _means(sums, row, place, whole[None])[:, 0, 0]
        square = _means(squares, row, place, whole[None])[:, 0, 0]
        deviation = (square - mean**2).clamp(min=_LEAST_DEVIATION**2).sqrt()
        means = _means(sums, row, place, rectangles)
        found.append((means * weights).sum(-1) / deviation[:, None])
    return torch.cat(found) if found else sums.new_zeros(0, len(rectangles))


def _means(sums: Tensor, row: Tensor, window: Tensor, rectangles: Tensor) -> Tensor:
    """Means of rectangles (features, k, 4) within windows (n, 3): (n, features, k)."""
    side = window[:, 2, None, None, None]
    corners = (rectangles * side).round().long() + window[:, [0, 1, 0, 1]][:, None, None]
    top, left, bottom, right = corners.unbind(-1)
    of = row[:, None, None]
    total = sums[of, bottom, right] - sums[of, top, right] - sums[of, bottom, left] + sums[of, top, left]
    return total / ((bottom - top) * (right - left)).clamp(min=1)
