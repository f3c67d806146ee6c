"""Anchors: boxes laid over an image, which a detector moves and classifies; and which of them answer for an
object."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from dlsys.zoo.layers.boxes import cornered, iou


def shapes(sizes: Sequence[float], ratios: Sequence[float]) -> list[tuple[float, float]]:
    """Widths and heights of the anchors of a place, as SSD has them (Liu et al. 2016): every size as a square
    of the first ratio, and the first size in every other ratio: sizes + ratios − 1 of them.

    Args:
        sizes: square roots of areas, in pixels.
        ratios: width by height.
    """
    pairs = [(size, ratios[0]) for size in sizes] + [(sizes[0], ratio) for ratio in ratios[1:]]
    return [(size * ratio**0.5, size / ratio**0.5) for size, ratio in pairs]


def grid(
    rows: int, columns: int, image: tuple[int, int], sizes: Sequence[tuple[float, float]], like: Tensor
) -> Tensor:
    """Anchors around the centre of every cell of a map: (rows × columns × sizes, 4), row by row, in each cell
    in the order of `sizes`.

    Args:
        rows, columns: of the map.
        image: height and width of the image that the map covers, in pixels.
        sizes: width and height of each anchor of a place, in pixels.
        like: a tensor of the wanted type and place.
    """
    y = (torch.arange(rows, device=like.device) + 0.5) * (image[0] / rows)
    x = (torch.arange(columns, device=like.device) + 0.5) * (image[1] / columns)
    centre = torch.stack(torch.meshgrid(y, x, indexing="ij")[::-1], -1)[:, :, None].expand(
        -1, -1, len(sizes), -1
    )
    size = torch.tensor(sizes, device=like.device).expand(rows, columns, -1, -1)
    return cornered(torch.cat([centre, size], -1)).flatten(0, 2).to(like.dtype)


def pyramid(
    maps: Sequence[Tensor], image: tuple[int, int], sizes: Sequence[Sequence[tuple[float, float]]]
) -> Tensor:
    """The anchors of several maps one after another, each map's as `grid` has them: (anchors, 4).

    Args:
        maps: (…, rows, columns), of the type and place that the anchors are to have.
        image: height and width of the image that each map covers, in pixels.
        sizes: of each map, width and height of each anchor of a place, in pixels.
    """
    return torch.cat(
        [
            grid(map.shape[-2], map.shape[-1], image, pairs, map)
            for map, pairs in zip(maps, sizes, strict=True)
        ]
    )


def flat(map: Tensor, anchors: int) -> Tensor:
    """What a map says of each anchor, in the order of `grid`: (rows, height × width × anchors, outputs).

    Args:
        map: (rows, anchors × outputs, height, width).
        anchors: of a place.
    """
    rows, channels = map.shape[:2]
    return map.permute(0, 2, 3, 1).reshape(rows, -1, channels // anchors)


# What `match` says of an anchor that answers for no object.
BACKGROUND, BETWEEN = -1, -2


def match(boxes: Tensor, labels: Tensor, anchors: Tensor, *, high: float, low: float | None = None) -> Tensor:
    """Which object each anchor answers for: the one that it overlaps most, if by `high` at least.

    Whatever it overlaps, each object has an anchor of its own besides: of all pairs of an object and an
    anchor that are both without, those that overlap most are joined first (Liu et al. 2016).

    Args:
        boxes: of objects (rows, n, 4).
        labels: (rows, n); -1 where a row has fewer objects.
        anchors: (anchors, 4), more than objects.
        high: the least intersection over union of an anchor that answers.
        low: an anchor that overlaps less is background; between the two it counts for nothing. `high` unless
            given.

    Returns:
        int64 (rows, anchors): an object's number, `BACKGROUND` or `BETWEEN`.
    """
    if not boxes.shape[1]:
        return torch.full((len(boxes), len(anchors)), BACKGROUND, device=boxes.device)
    there = labels >= 0
    overlap = torch.where(there[..., None], iou(boxes, anchors), -1.0)
    most, found = overlap.max(1)
    least = high if low is None else low
    found = torch.where(most >= high, found, torch.where(most < least, BACKGROUND, BETWEEN))
    rows = torch.arange(len(boxes), device=boxes.device)
    for _ in range(int(there.sum(1).max())):
        pair = overlap.flatten(1).argmax(1)
        number, anchor = pair // len(anchors), pair % len(anchors)
        # A row that has fewer objects has none left to give.
        left = overlap[rows, number, anchor] >= 0
        found[rows, anchor] = torch.where(left, number, found[rows, anchor])
        overlap[rows, number] = -1.0
        overlap[rows, :, anchor] = -1.0
    return found
