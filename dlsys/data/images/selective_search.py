"""Selective search (Uijlings et al. 2013, IJCV 104): boxes that may hold an object, of any size, without
learning.

An image falls into many small regions (Felzenszwalb and Huttenlocher 2004, IJCV 59), and of all neighbours
the two most alike grow together, again and again, until one is left: the box of whatever was a region on the
way is proposed.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
from scipy import ndimage

# How unlike neighbouring pixels of a region may be: the larger, the larger are regions. Each makes a search
# of its own, as the paper has it.
_SCALES = (50.0, 150.0)
# A region to begin with has so many pixels at least; in a large image more, which leaves no more regions than
# these to be compared with each other.
_SMALLEST, _REGIONS = 12, 1000
_BLUR = 0.8
_COLOURS, _SLOPES, _DIRECTIONS = 25, 10, 8
# Proposals that are narrower show nothing.
_NARROWEST = 4


def selective_search(image: np.ndarray, most: int) -> np.ndarray:
    """The boxes that an image proposes, those that grew last first, none twice.

    Args:
        image: uint8 (H, W, C).
        most: how many at most.

    Returns:
        float32 (n, 4): left, top, right, bottom in pixels.
    """
    pixels = image.astype(np.float64)
    searches = [_grown(pixels, _oversegmented(pixels, scale)) for scale in _SCALES]
    # In turns, so that a limit cuts all searches alike.
    ranked = [
        (place, number, box) for number, boxes in enumerate(searches) for place, box in enumerate(boxes)
    ]
    found: dict[tuple[int, ...], None] = {}
    for _, _, box in sorted(ranked, key=lambda one: one[:2]):
        if min(box[2] - box[0], box[3] - box[1]) >= _NARROWEST:
            found.setdefault(tuple(box))
    return np.array(list(found)[:most], dtype=np.float32).reshape(-1, 4)


def _oversegmented(pixels: np.ndarray, scale: float) -> np.ndarray:
    """Felzenszwalb and Huttenlocher's regions: a number for each pixel, from 0: int64 (H, W).

    Two regions join where the least difference across their border is no more than, for each of them, the
    greatest one that holds it together and `scale` by its pixels.
    """
    height, width = pixels.shape[:2]
    smooth = ndimage.gaussian_filter(pixels, (_BLUR, _BLUR, 0))
    number = np.arange(height * width).reshape(height, width)
    across = np.linalg.norm(smooth[:, 1:] - smooth[:, :-1], axis=2).ravel()
    down = np.linalg.norm(smooth[1:] - smooth[:-1], axis=2).ravel()
    weights = np.concatenate([across, down])
    first = np.concatenate([number[:, :-1].ravel(), number[:-1].ravel()])
    second = np.concatenate([number[:, 1:].ravel(), number[1:].ravel()])
    order = np.argsort(weights, kind="stable")
    edges = list(zip(weights[order].tolist(), first[order].tolist(), second[order].tolist(), strict=True))
    parent, size = list(range(height * width)), [1] * (height * width)
    limit = [scale] * (height * width)

    def root(pixel: int) -> int:
        while parent[pixel] != pixel:
            parent[pixel] = pixel = parent[parent[pixel]]
        return pixel

    for weight, one, other in edges:
        a, b = root(one), root(other)
        if a != b and weight <= limit[a] and weight <= limit[b]:
            parent[b] = a
            size[a] += size[b]
            limit[a] = weight + scale / size[a]
    smallest = max(_SMALLEST, height * width // _REGIONS)
    for _, one, other in edges:
        a, b = root(one), root(other)
        if a != b and min(size[a], size[b]) < smallest:
            parent[b] = a
            size[a] += size[b]
    roots = np.array([root(pixel) for pixel in range(height * width)])
    return np.unique(roots, return_inverse=True)[1].reshape(height, width)


def _grown(pixels: np.ndarray, labels: np.ndarray) -> Iterator[np.ndarray]:
    """The boxes of all regions as they grow together, the last one first.

    How alike two are is the sum of the paper's four: colour, texture, smallness and how well they fill their
    common box, each 1 at most.
    """
    count, whole = int(labels.max()) + 1, labels.size
    total = 2 * count - 1
    size = np.zeros(total)
    size[:count] = np.bincount(labels.ravel(), minlength=count)
    boxes = np.zeros((total, 4))
    for place, (rows, columns) in enumerate(ndimage.find_objects(labels + 1)):
        boxes[place] = columns.start, rows.start, columns.stop, rows.stop
    colours, textures = _colours(pixels, labels, count), _textures(pixels, labels, count)
    looks = np.zeros((total, colours.shape[1] + textures.shape[1]))
    # Each histogram adds up to 1.
    looks[:count] = np.concatenate([colours, textures], 1) / size[:count, None]
    near = np.zeros((total, total), dtype=bool)
    for one, other in ((labels[:, 1:], labels[:, :-1]), (labels[1:], labels[:-1])):
        near[one, other] = near[other, one] = True
    np.fill_diagonal(near, val=False)
    alike = np.full((total, total), -np.inf)

    def compare(region: int) -> None:
        others = np.flatnonzero(near[region])
        shared = np.minimum(looks[region], looks[others]).sum(1)
        joint = size[region] + size[others]
        begin = np.minimum(boxes[region, :2], boxes[others, :2])
        end = np.maximum(boxes[region, 2:], boxes[others, 2:])
        box = (end - begin).prod(1)
        alike[region, others] = alike[others, region] = shared + 2 - joint / whole - (box - joint) / whole

    for region in range(count):
        compare(region)
    for new in range(count, total):
        a, b = divmod(int(alike.argmax()), total)
        size[new] = size[a] + size[b]
        looks[new] = (size[a] * looks[a] + size[b] * looks[b]) / size[new]
        boxes[new, :2] = np.minimum(boxes[a, :2], boxes[b, :2])
        boxes[new, 2:] = np.maximum(boxes[a, 2:], boxes[b, 2:])
        near[new] = near[a] | near[b]
        near[:, new] = near[new]
        for gone in (a, b):
            near[gone] = near[:, gone] = False
            alike[gone] = alike[:, gone] = -np.inf
        compare(new)
    return iter(boxes[::-1].astype(int))


def _colours(pixels: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """How many pixels of a region have which value in each channel, by channels: (count, channels × 25)."""
    bins = (pixels * (_COLOURS / 256)).astype(int)
    shares: np.ndarray = _counted(bins, labels, count, _COLOURS) / pixels.shape[2]
    return shares


def _textures(pixels: np.ndarray, labels: np.ndarray, count: int) -> np.ndarray:
    """Likewise of slopes in each direction: (count, channels × 8 × 10)."""
    slopes = [ndimage.gaussian_filter(pixels, (1, 1, 0), order=order) for order in ((0, 1, 0), (1, 0, 0))]
    angles = np.arange(_DIRECTIONS) * (2 * np.pi / _DIRECTIONS)
    each = np.concatenate([np.cos(angle) * slopes[0] + np.sin(angle) * slopes[1] for angle in angles], 2)
    # Of a step from black to white, a slope is 102.
    bins = (each.clip(0, 101) * (_SLOPES / 102)).astype(int)
    shares: np.ndarray = _counted(bins, labels, count, _SLOPES) / each.shape[2]
    return shares


def _counted(bins: np.ndarray, labels: np.ndarray, count: int, many: int) -> np.ndarray:
    """How often each of `many` values stands in a region, plane by plane of (H, W, planes)."""
    planes = bins.shape[2]
    index = (labels[..., None] * planes + np.arange(planes)) * many + bins
    return np.bincount(index.ravel(), minlength=count * planes * many).reshape(count, -1).astype(np.float64)
