"""Anchors found from boxes: k-means whose distance is 1 − IoU (Redmon and Farhadi 2016, arXiv:1612.08242)."""

from __future__ import annotations

import numpy as np

from dlsys.data.dataset import Dataset
from dlsys.errors import DataError

_ROWS = 256
_ROUNDS = 1000


def sizes_of(rows: Dataset) -> np.ndarray:
    """Width and height of all objects of images, crowds aside, as shares of the image's: (n, 2).

    Args:
        rows: with `image`, `boxes` and `labels`.
    """
    found = [np.zeros((0, 2))]
    for start in range(0, len(rows), _ROWS):
        batch = rows.batch(np.arange(start, min(start + _ROWS, len(rows))))
        boxes, counts = batch["boxes"].double(), batch["labels"] >= 0
        if "crowd" in batch:
            counts &= ~batch["crowd"].bool()
        height, width = batch["image"].shape[-2:]
        sizes = (boxes[..., 2:] - boxes[..., :2]) / boxes.new_tensor([width, height])
        found.append(sizes[counts].numpy())
    return np.concatenate(found)


def likeness(sizes: np.ndarray, anchors: np.ndarray) -> np.ndarray:
    """Intersection over union of sizes (n, 2) and (m, 2), each with each, around one centre: (n, m)."""
    shared = np.minimum(sizes[:, None], anchors).prod(2)
    return np.asarray(shared / (sizes.prod(1)[:, None] + anchors.prod(1) - shared))


def representative(sizes: np.ndarray, count: int) -> np.ndarray:
    """The anchors that sizes are most like: (count, 2), the smallest area first.

    It begins with sizes of evenly spread areas, so that the same boxes always give the same anchors.

    Args:
        sizes: (n, 2), positive.
        count: of anchors, no more than there are different sizes.

    Raises:
        DataError: there are fewer different sizes than anchors.
    """
    different = np.unique(sizes, axis=0)
    if len(different) < count:
        raise DataError(
            f"the training rows have boxes of {len(different)} different sizes: too few for {count} anchors",
            hint="ask for fewer",
        )
    different = different[np.argsort(different.prod(1), kind="stable")]
    anchors = different[((np.arange(count) + 0.5) / count * len(different)).astype(int)]
    nearest = np.zeros(0)
    for _ in range(_ROUNDS):
        last, nearest = nearest, likeness(sizes, anchors).argmax(1)
        if np.array_equal(nearest, last):
            break
        # One that no size is nearest to any more stays where it is.
        anchors = np.array(
            [
                sizes[nearest == place].mean(0) if (nearest == place).any() else anchors[place]
                for place in range(count)
            ]
        )
    return np.asarray(anchors[np.argsort(anchors.prod(1), kind="stable")])
