"""Images with objects: one row, and many as a batch."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dlsys.data.images.decoding import as_floats
from dlsys.data.images.proposals import proposals
from dlsys.spec.rows import Shape

# What `mask` says of a pixel that does not count.
UNCOUNTED = -1


@dataclass(frozen=True)
class ObjectRow:
    """An image with its objects, as a model gets it.

    Attributes:
        image: uint8 (H, W, C).
        boxes: float32 (n, 4): left, top, right, bottom in the image's pixels.
        labels: int64 (n,).
        area: float32 (n,) in square pixels of the original image: the object's own, not its box's.
        crowd: bool (n,): groups of objects, which nobody counted.
        masks: bool (n, H, W); None where only boxes are known.
        proposals: float32 (k, 4): boxes that may hold an object, where they were asked for.
        scale: original pixels in one of the image's.
        number: the image's own, as its data set counts.
    """

    image: np.ndarray
    boxes: np.ndarray
    labels: np.ndarray
    area: np.ndarray
    crowd: np.ndarray
    masks: np.ndarray | None = None
    proposals: np.ndarray | None = None
    scale: float = 1.0
    number: int = 0

    @classmethod
    def of_masks(cls, image: np.ndarray, labels: np.ndarray, masks: np.ndarray) -> ObjectRow:
        """That of objects whose pixels are known, of one at least each; boxes are as tight as can be."""
        boxes = np.zeros((len(masks), 4), dtype=np.float32)
        for place, mask in enumerate(masks):
            rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
            boxes[place] = columns[0], rows[0], columns[-1] + 1, rows[-1] + 1
        areas = masks.sum((1, 2)).astype(np.float32)
        return cls(image, boxes, labels, areas, np.zeros(len(labels), dtype=bool), masks)

    def mask(self) -> np.ndarray:
        """The class of each pixel, 0 for the ground and an object's class and one for it: int64 (H, W).

        Later objects lie over earlier ones; a crowd's pixels do not count.
        """
        assert self.masks is not None
        found = np.zeros(self.image.shape[:2], dtype=np.int64)
        for label, crowd, mask in zip(self.labels, self.crowd, self.masks, strict=True):
            found[mask] = UNCOUNTED if crowd else label + 1
        return found


def batched(rows: Sequence[ObjectRow], wanted: str) -> dict[str, Tensor]:
    """Rows as a batch, with as many boxes as the row with the most has, and one at least.

    Args:
        rows: of images of one size.
        wanted: `boxes`, `proposals`, `instances` or `mask`.
    """
    batch = {"image": as_floats(np.stack([row.image for row in rows]))}
    if wanted == "mask":
        return {**batch, "mask": torch.from_numpy(np.stack([row.mask() for row in rows]))}

    def filled(name: str, blank: Any, *more: int) -> Tensor:
        values = [getattr(row, name) for row in rows]
        most = max(1, *(len(value) for value in values))
        found = np.full((len(rows), most, *more), blank, dtype=values[0].dtype)
        for place, value in enumerate(values):
            found[place, : len(value)] = value
        return torch.from_numpy(found)

    batch |= {
        "boxes": filled("boxes", 0, 4),
        "labels": filled("labels", -1),
        "crowd": filled("crowd", False),
        "area": filled("area", 0),
        "scale": torch.tensor([row.scale for row in rows]),
    }
    if wanted == "instances":
        batch["masks"] = filled("masks", False, *rows[0].image.shape[:2])
    if wanted == "proposals":
        batch["proposals"] = filled("proposals", 0, 4)
    return {**batch, "image_id": torch.tensor([row.number for row in rows])}


def of_classes(
    names: Sequence[str],
    wanted: str,
    *,
    image: tuple[int, int, int],
    most: int,
    counts: Sequence[int],
    proposals: int = 0,
) -> tuple[Shape, dict[str, Any]]:
    """What rows of objects look like, and what was learnt from them.

    Args:
        names: of the classes.
        wanted: `boxes`, `proposals`, `instances` or `mask`, whose first class is the ground.
        image: channels, height and width.
        most: objects of an image.
        counts: of objects of each class in the training rows.
        proposals: of an image, where they are wanted.
    """
    size, most = image[1:], max(1, most)
    told = {"size": list(size), "channels": image[0], "values": "0 to 1"}
    if wanted == "mask":
        shape = Shape(row={"image": image, "mask": size}, classes=len(names) + 1)
        return shape, {"image": told, "pixels": {"classes": ["ground", *names]}}
    row = {"image": image, "boxes": (most, 4), "labels": (most,)}
    if wanted == "instances":
        row["masks"] = (most, *size)
    if wanted == "proposals":
        row["proposals"] = (max(1, proposals), 4)
    return Shape(row=row, classes=len(names)), {
        "image": told,
        "objects": {"classes": [*names], "counts": [*map(int, counts)]},
    }


class Labelled(Protocol):
    """What is known of an image's objects, wherever its pixels are."""

    @property
    def labels(self) -> np.ndarray: ...
    @property
    def crowd(self) -> np.ndarray: ...


def counted(rows: Iterable[Labelled], classes: int) -> list[int]:
    """How many objects of each class there are, crowds aside."""
    labels = [row.labels[~row.crowd] for row in rows]
    counts = np.bincount(np.concatenate([np.zeros(0, dtype=np.int64), *labels]), minlength=classes)
    return [int(count) for count in counts]


def with_proposals(rows: Sequence[ObjectRow], most: int) -> list[ObjectRow]:
    """The same rows, with what selective search proposes of each, at most so many."""
    found = proposals([row.image for row in rows], most)
    return [replace(row, proposals=boxes) for row, boxes in zip(rows, found, strict=True)]
