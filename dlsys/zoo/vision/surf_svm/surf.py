"""Speeded-up robust features (Bay et al. 2008, doi:10.1016/j.cviu.2007.09.014): blobs of images, found,
turned and described by sums over boxes, which an integral image gives in constant time.

All images of a batch are treated at once. Two things are finer than in the paper: a box may begin and end
between pixels, which then count in part, so that a turned or scaled image has nearly the same sums; and every
octave has a response at each pixel. One is coarser: a blob's place and scale are refined one by one.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import torch
from torch import Tensor
from torch.nn import functional as F

# Sizes of the box filters: the first octave's from 9 by 6, each further one's by twice as much.
_FIRST, _STEP, _LAYERS = 9, 6, 4
# The Gaussian's deviation that the smallest filter stands for.
_SIGMA = 1.2
# What makes the boxes' mixed derivative comparable with the pure ones.
_MIXED = 0.9
# Positions of the window that looks for a direction, which is 60 degrees wide.
_WINDOWS = 36
# Of a square's nine corners in the integral image, row by row: what is to the right less what is to the left,
# and what is below less what is above.
_STEPS = [(-1, -1), (2, 0), (-1, 1), (0, 2), (0, 0), (0, -2), (1, -1), (-2, 0), (1, 1)]


class Keypoints(NamedTuple):
    """The blobs of each image, the strongest first; where it has fewer than asked for, `there` is False.

    Attributes:
        place: x and y of their middles in pixels, (rows, most, 2); a pixel's middle is at whole numbers.
        scale: the deviation in pixels of the Gaussian that they are like, (rows, most).
        bright: 1 for a bright blob on dark ground, −1 for a dark one, (rows, most).
        there: bool (rows, most).
    """

    place: Tensor
    scale: Tensor
    bright: Tensor
    there: Tensor


def integral(image: Tensor) -> Tensor:
    """Sums over all that is above and to the left: (rows, height, width) to float64 (rows, height + 1,
    width + 1). Each image's mean is taken away first, which changes no feature and keeps sums small."""
    centred = image.double() - image.double().mean((1, 2), keepdim=True)
    return F.pad(centred.cumsum(1).cumsum(2), (1, 0, 1, 0))


def detect(sums: Tensor, most: int, *, octaves: int, threshold: float) -> Keypoints:
    """The places where the determinant of the Hessian is largest among its neighbours, in scale too.

    Args:
        sums: what `integral` gives.
        most: how many of an image, at the most.
        octaves: how many; filters that are larger than the image find nothing.
        threshold: the least determinant.
    """
    height, width = (side - 1 for side in sums.shape[1:])
    every, refined, signs = [], [], []
    for octave in range(octaves):
        sizes = [_FIRST + _STEP * (2**octave * (1 + layer) - 1) for layer in range(_LAYERS)]
        maps, traces = zip(*(_hessian(sums, size) for size in sizes), strict=True)
        layers = torch.stack(maps, 1)
        around = F.max_pool3d(layers[:, None], 3, stride=1, padding=1)[:, 0]
        peak = (layers == around) & (layers > threshold)
        every.append(layers.where(peak, 0.0)[:, 1:-1].flatten(1))
        refined.append(_refined(layers, sizes).flatten(1, 3))
        signs.append(torch.stack(traces, 1)[:, 1:-1].flatten(1).sign())
    response = torch.cat(every, 1)
    strength, index = response.topk(min(most, response.shape[1]), dim=1)
    blobs = torch.cat(refined, 1).gather(1, index[..., None].expand(-1, -1, 3))
    limits = blobs.new_tensor([width - 1, height - 1])
    return Keypoints(
        place=torch.minimum(blobs[..., :2].clamp(min=0), limits).float(),
        scale=(blobs[..., 2] * (_SIGMA / _FIRST)).float(),
        bright=-torch.cat(signs, 1).gather(1, index).float(),
        there=strength > 0,
    )


def orient(sums: Tensor, found: Keypoints) -> Tensor:
    """The direction of each blob, in which its surroundings become brighter: radians (rows, most), from the x
    axis towards the y axis."""
    y, x = torch.meshgrid(torch.arange(-6.0, 7), torch.arange(-6.0, 7), indexing="ij")
    near = x.square() + y.square() < 36
    offsets = torch.stack([x[near], y[near]], 1).to(found.place)
    places = found.place[:, :, None] + offsets * found.scale[..., None, None]
    weights = torch.exp(-offsets.square().sum(1) / (2 * 2.0**2))
    steps = _haar(sums, places, 2 * found.scale[..., None]) * weights[:, None]
    middles = torch.arange(_WINDOWS).to(steps) * (2 * math.pi / _WINDOWS)
    along = torch.stack([middles.cos(), middles.sin()], 1) @ steps.mT
    inside = along > math.cos(math.pi / 6) * steps.norm(dim=-1)[..., None, :]
    vectors = inside.to(steps) @ steps
    longest = vectors.square().sum(-1).argmax(-1)
    chosen = vectors.gather(2, longest[..., None, None].expand(-1, -1, 1, 2))[:, :, 0]
    return torch.atan2(chosen[..., 1], chosen[..., 0])


def describe(sums: Tensor, found: Keypoints, angle: Tensor) -> Tensor:
    """Descriptors of length 1, float32 (rows, most, 64): in each of 4 × 4 parts of a square of 20 scales a
    side, turned by `angle`, the sums of the steps dx and dy and of their sizes."""
    line = torch.arange(-9.5, 10).to(found.place)
    # By parts, from top to bottom and left to right, then by places in them.
    v, u = torch.meshgrid(line, line, indexing="ij")
    offsets = torch.stack([u, v], -1).view(4, 5, 4, 5, 2).transpose(1, 2).reshape(400, 2)
    cos, sin = angle.cos()[..., None], angle.sin()[..., None]
    turned = torch.stack(
        [cos * offsets[:, 0] - sin * offsets[:, 1], sin * offsets[:, 0] + cos * offsets[:, 1]], -1
    )
    places = found.place[:, :, None] + turned * found.scale[..., None, None]
    x, y = _haar(sums, places, found.scale[..., None]).unbind(-1)
    steps = torch.stack([cos * x + sin * y, cos * y - sin * x], -1)
    steps = steps * torch.exp(-offsets.square().sum(1) / (2 * 3.3**2))[:, None]
    parts = steps.view(*steps.shape[:2], 16, 25, 2)
    described = torch.cat([parts.sum(3), parts.abs().sum(3)], -1).flatten(2)
    return F.normalize(described, dim=-1, eps=1e-9)


def match(a: Tensor, b: Tensor, a_bright: Tensor, b_bright: Tensor, ratio: float = 0.7) -> Tensor:
    """Which of one image's blobs are another's.

    Args:
        a, b: descriptors (n, 64) and (m, 64), m of at least 2.
        a_bright, b_bright: whether blobs are bright, (n,) and (m,): bright ones are no dark ones.
        ratio: the nearest must be nearer than this times the second nearest.

    Returns:
        Pairs of places in `a` and in `b`, int64 (pairs, 2).
    """
    distance = torch.cdist(a, b).masked_fill(a_bright[:, None] != b_bright, torch.inf)
    nearest, index = distance.topk(2, dim=1, largest=False)
    sure = (nearest[:, 0] < ratio * nearest[:, 1]) & nearest[:, 0].isfinite()
    return torch.stack([sure.nonzero()[:, 0], index[sure, 0]], 1)


def _hessian(sums: Tensor, size: int) -> tuple[Tensor, Tensor]:
    """Determinant and trace of the Hessian at each pixel, by boxes of `size` pixels: each (rows, height,
    width); zero where the boxes do not lie within the image."""
    height, width = (side - 1 for side in sums.shape[1:])
    reach, lobe = size // 2, size // 3
    if min(height, width) < size:
        return sums.new_zeros(2, len(sums), height, width).unbind(0)  # type: ignore[return-value]

    def box(top: int, bottom: int, left: int, right: int) -> Tensor:
        """Sums from `top` up to `bottom`, less the last, and likewise across, around each inner pixel."""

        def corner(down: int, across: int) -> Tensor:
            down, across = down + reach, across + reach
            return sums[:, down : down + height - size + 1, across : across + width - size + 1]

        return corner(bottom, right) - corner(top, right) - corner(bottom, left) + corner(top, left)

    middle, wide = lobe // 2, lobe - 1
    yy = box(-reach, reach + 1, -wide, wide + 1) - 3 * box(-middle, middle + 1, -wide, wide + 1)
    xx = box(-wide, wide + 1, -reach, reach + 1) - 3 * box(-wide, wide + 1, -middle, middle + 1)
    xy = box(-lobe, 0, -lobe, 0) + box(1, lobe + 1, 1, lobe + 1)
    xy = xy - box(-lobe, 0, 1, lobe + 1) - box(1, lobe + 1, -lobe, 0)
    determinant = (xx * yy - (_MIXED * xy).square()) / size**4
    edges = (reach,) * 4
    return F.pad(determinant, edges), F.pad(xx + yy, edges)


def _refined(layers: Tensor, sizes: list[int]) -> Tensor:
    """Where a parabola through each response of the inner layers and its two neighbours has its top, along
    each axis: x, y and the filter's size, (rows, layers − 2, height, width, 3)."""
    rows, count, height, width = layers.shape
    padded = F.pad(layers, (1, 1, 1, 1))
    middle = layers[:, 1:-1]

    def top(before: Tensor, after: Tensor) -> Tensor:
        bend = (before - 2 * middle + after).clamp(max=-1e-30)
        return ((before - after) / (2 * bend)).clamp(-0.5, 0.5)

    inner = padded[:, 1:-1]
    x = top(inner[:, :, 1:-1, :-2], inner[:, :, 1:-1, 2:]) + torch.arange(width).to(layers)
    y = top(inner[:, :, :-2, 1:-1], inner[:, :, 2:, 1:-1]) + torch.arange(height).to(layers)[:, None]
    size = layers.new_tensor(sizes)[1:-1, None, None]
    size = size + (sizes[1] - sizes[0]) * top(layers[:, :-2], layers[:, 2:])
    return torch.stack([x, y, size.expand(rows, count - 2, height, width)], -1)


def _haar(sums: Tensor, places: Tensor, half: Tensor) -> Tensor:
    """Steps of brightness to the right and down, between the halves of a square.

    Args:
        sums: (rows, height + 1, width + 1).
        places: x and y of the squares' middles, (rows, most, squares, 2).
        half: half of their sides, (rows, most, 1).

    Returns:
        (rows, most, squares, 2), by area: steps of the mean.
    """
    height, width = sums.shape[1:]
    # From pixels to −1…1; a pixel's middle is at 0, and the integral image is of its edges, from −½ on.
    scale = 2 / places.new_tensor([width - 1, height - 1])
    middle = (places + 0.5) * scale - 1
    shifts = torch.tensor([(x, y) for y in (-1, 0, 1) for x in (-1, 0, 1)]).to(places) * scale
    corners = middle[..., None, :] + shifts * half[..., None, None]
    taken = F.grid_sample(
        sums[:, None].to(places), corners.flatten(1, 2), padding_mode="border", align_corners=True
    )
    steps: Tensor = taken.view(*places.shape[:3], 9) @ places.new_tensor(_STEPS)
    return steps / (2 * half[..., None].square())
