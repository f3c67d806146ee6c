"""Features of regions of a map, each brought to one size; and back, a region's mask laid over its image.

All regions of a row are read at once, by one `grid_sample` or one gather: shapes are the same whatever the
boxes are.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor
from torch.nn import functional as F

# Points of a bin, each way, whose values RoIAlign takes the mean of.
_POINTS = 2


def roi_align(features: Tensor, boxes: Tensor, side: int, stride: float) -> Tensor:
    """RoIAlign (He et al. 2017, arXiv:1703.06870): nothing is rounded; values between cells are interpolated.

    A cell's value stands at its centre, and goes on as it is beyond the outermost centres.

    Args:
        features: (rows, channels, height, width).
        boxes: (rows, n, 4), in pixels of the image.
        side: bins of a region, each way.
        stride: pixels of the image in a cell.

    Returns:
        (rows, n, channels, side, side).
    """
    rows, count = boxes.shape[:2]
    height, width = features.shape[-2:]
    points = side * _POINTS
    steps = (torch.arange(points, device=boxes.device, dtype=boxes.dtype) + 0.5) / points
    boxes = boxes / stride
    # Of each point, its place in the map, of which grid_sample has the edges at −1 and 1.
    x = boxes[..., 0, None] + (boxes[..., 2] - boxes[..., 0])[..., None] * steps
    y = boxes[..., 1, None] + (boxes[..., 3] - boxes[..., 1])[..., None] * steps
    places = torch.stack(
        [
            (2 * x / width - 1)[..., None, :].expand(-1, -1, points, -1),
            (2 * y / height - 1)[..., :, None].expand(-1, -1, -1, points),
        ],
        -1,
    )
    # Places of few bits would be wrong by whole cells: the map takes their type, or they the map's double.
    exact = torch.promote_types(features.dtype, places.dtype)
    found = F.grid_sample(
        features.to(exact), places.flatten(1, 2).to(exact), padding_mode="border", align_corners=False
    )
    means = F.avg_pool2d(found, _POINTS)
    return means.reshape(rows, features.shape[1], count, side, side).transpose(1, 2)


def roi_pool(features: Tensor, boxes: Tensor, side: int, stride: float) -> Tensor:
    """RoI pooling (Girshick 2015, arXiv:1504.08083): edges are rounded to cells, and each bin is the largest
    value of the cells that it meets.

    Args and result are those of `roi_align`.
    """
    rows, count = boxes.shape[:2]
    height, width = features.shape[-2:]
    columns, across = _bins(boxes[..., 0], boxes[..., 2], side, stride, width)
    lines, down = _bins(boxes[..., 1], boxes[..., 3], side, stride, height)
    # All cells of a region's bins, some of them more than once: (rows, n, side × down, side × across).
    cells = lines[..., :, None] * width + columns[..., None, :]
    index = cells.flatten(1)[:, None].expand(-1, features.shape[1], -1)
    channels = features.shape[1]
    found = features.flatten(2).gather(2, index).view(rows, channels, count * side * down, side * across)
    most = F.max_pool2d(found, (down, across))
    return most.reshape(rows, channels, count, side, side).transpose(1, 2)


def _bins(begin: Tensor, end: Tensor, side: int, stride: float, cells: int) -> tuple[Tensor, int]:
    """The cells of each bin along one way: int64 (rows, n, side × k), and k; a bin with fewer has its last
    one again."""
    first = (begin / stride).round()
    size = ((end / stride).round() - first + 1).clamp(min=1) / side
    numbers = torch.arange(side, device=begin.device)
    start = (first[..., None] + (numbers * size[..., None]).floor()).clamp(0, cells - 1)
    stop = (first[..., None] + ((numbers + 1) * size[..., None]).ceil()).clamp(1, cells)
    most = math.ceil((cells + 1) / side) + 1
    each = start[..., None] + torch.arange(most, device=begin.device)
    return torch.minimum(each, torch.maximum(stop - 1, start)[..., None]).long().flatten(2), most


def pasted(masks: Tensor, boxes: Tensor, height: int, width: int) -> Tensor:
    """Masks of regions, laid over the image: how likely each pixel is the object's, 0 outside of the box.

    Args:
        masks: (rows, n, side, side) in 0…1.
        boxes: (rows, n, 4), in pixels.
        height, width: of the image.

    Returns:
        (rows, n, height, width).
    """
    rows, count = boxes.shape[:2]
    size = (boxes[..., 2:] - boxes[..., :2]).clamp(min=1e-3)
    left, top, wide, high = torch.cat([boxes[..., :2], size], -1)[..., None].unbind(2)
    x = (torch.arange(width, device=boxes.device) + 0.5 - left) / wide
    y = (torch.arange(height, device=boxes.device) + 0.5 - top) / high
    places = torch.stack(
        [
            (2 * x - 1)[..., None, :].expand(-1, -1, height, -1),
            (2 * y - 1)[..., :, None].expand(-1, -1, -1, width),
        ],
        -1,
    )
    found = F.grid_sample(
        masks.flatten(0, 1)[:, None],
        places.flatten(0, 1).to(masks.dtype),
        padding_mode="border",
        align_corners=False,
    ).view(rows, count, height, width)
    inside = ((x >= 0) & (x <= 1))[..., None, :] & ((y >= 0) & (y <= 1))[..., :, None]
    return found * inside
