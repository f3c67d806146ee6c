"""Boxes: how much they overlap, how one is told relative to another, and which of many that overlap stay.

A box is left, top, right, bottom in pixels, with right and bottom behind its last ones, so that its width is
right less left.
"""

from __future__ import annotations

import torch
from torch import Tensor


def area(boxes: Tensor) -> Tensor:
    """Of boxes (…, 4), in square pixels: (…)."""
    return (boxes[..., 2] - boxes[..., 0]) * (boxes[..., 3] - boxes[..., 1])


def intersection(first: Tensor, second: Tensor) -> Tensor:
    """What boxes (…, n, 4) and (…, m, 4) share, each with each, in square pixels: (…, n, m)."""
    begin = torch.maximum(first[..., :, None, :2], second[..., None, :, :2])
    end = torch.minimum(first[..., :, None, 2:], second[..., None, :, 2:])
    return (end - begin).clamp(min=0).prod(-1)


def iou(first: Tensor, second: Tensor) -> Tensor:
    """Intersection over union of boxes (…, n, 4) and (…, m, 4), each with each: (…, n, m), 0 for empty
    ones."""
    shared = intersection(first, second)
    union = area(first)[..., :, None] + area(second)[..., None, :] - shared
    return shared / union.clamp(min=torch.finfo(union.dtype).tiny)


def centred(boxes: Tensor) -> Tensor:
    """Centre x, centre y, width, height of boxes; any shape (…, 4)."""
    size = boxes[..., 2:] - boxes[..., :2]
    return torch.cat([boxes[..., :2] + size / 2, size], -1)


def cornered(boxes: Tensor) -> Tensor:
    """Left, top, right, bottom of what `centred` gave."""
    half = boxes[..., 2:] / 2
    return torch.cat([boxes[..., :2] - half, boxes[..., :2] + half], -1)


# Offsets are divided by these, so that those of matched anchors have a deviation near 1 (SSD's).
_SCALE = (0.1, 0.1, 0.2, 0.2)
# Widths and heights grow by e³ at most: more than that an untrained net says, and it would overflow.
MOST_GROWN = 3.0


def encode(boxes: Tensor, anchors: Tensor) -> Tensor:
    """Boxes as offsets from anchors (Girshick et al. 2014): of the centre in widths and heights of the
    anchor, and the logarithm of the size's ratio, scaled.

    Args:
        boxes: (…, 4); an empty one becomes a finite number of no meaning.
        anchors: (…, 4), none of them empty.
    """
    wanted, given = centred(boxes), centred(anchors)
    size = torch.log(wanted[..., 2:].clamp(min=1e-3) / given[..., 2:])
    place = (wanted[..., :2] - given[..., :2]) / given[..., 2:]
    return torch.cat([place, size], -1) / boxes.new_tensor(_SCALE)


def decode(offsets: Tensor, anchors: Tensor) -> Tensor:
    """The boxes that `encode` made offsets of."""
    given = centred(anchors)
    place, size = (offsets * offsets.new_tensor(_SCALE)).tensor_split(2, -1)
    centre = given[..., :2] + place * given[..., 2:]
    return cornered(torch.cat([centre, given[..., 2:] * size.clamp(max=MOST_GROWN).exp()], -1))


def clip(boxes: Tensor, height: int, width: int) -> Tensor:
    """What of boxes (…, 4) lies in an image of this many pixels."""
    return torch.minimum(boxes.clamp(min=0), boxes.new_tensor([width, height, width, height]))


def suppress(boxes: Tensor, threshold: float, valid: Tensor | None = None) -> Tensor:
    """Non-maximum suppression: which boxes stay when each takes away those behind it that overlap it too
    much.

    A box stays if no box before it that stays overlaps it more. Deciding all boxes at once, again and again
    until nothing changes, ends there: the first is right at once, and each next one a round later at most.

    Args:
        boxes: (…, n, 4), the best first.
        threshold: of intersection over union; one that overlaps more goes.
        valid: bool (…, n): those that count; all unless given.

    Returns:
        bool (…, n).
    """
    count = boxes.shape[-2]
    over = (iou(boxes, boxes) > threshold).to(boxes.dtype).triu(1).mT
    valid = boxes.new_ones(boxes.shape[:-1], dtype=torch.bool) if valid is None else valid
    kept = valid
    for _ in range(count):
        # How many that stay overlap each, as a product of matrices: quicker than to ask for any.
        before = (over @ kept.to(over.dtype)[..., None])[..., 0]
        last, kept = kept, valid & (before == 0)
        if torch.equal(kept, last):
            break
    return kept


def best(
    boxes: Tensor,
    scores: Tensor,
    *,
    score: float,
    overlap: float,
    candidates: int,
    most: int,
    apart: bool = True,
) -> tuple[Tensor, Tensor, Tensor]:
    """The detections that a net's boxes and scores amount to: those of a high score that none suppresses.

    Args:
        boxes: (rows, n, 4), or a box for each class (rows, n, classes, 4).
        scores: (rows, n, classes), from 0 to 1.
        score: the least that counts.
        overlap: intersection over union from which the lower score goes.
        candidates: how many of a row are looked at, those with the highest scores.
        most: detections of a row.
        apart: whether only boxes of the same class suppress each other.

    Returns:
        Boxes (rows, k, 4), scores (rows, k) falling, and int64 labels (rows, k), of k ≤ `most`; where a row
        has fewer, the label is -1 and the rest 0.
    """
    classes = scores.shape[2]
    # In a fixed order where scores are equal, so that any batch gives the same.
    top, index = scores.flatten(1).sort(dim=1, descending=True, stable=True)
    kept = min(candidates, int((top > score).sum(1).max()))
    if not kept:
        nothing = top[:, :0]
        return nothing[..., None].expand(-1, -1, 4), nothing, index[:, :0]
    top, index = top[:, :kept], index[:, :kept]
    labels = index % classes
    flat = boxes.flatten(1, 2) if boxes.ndim == 4 else boxes
    taken = index if boxes.ndim == 4 else index // classes
    found = flat.gather(1, taken[..., None].expand(-1, -1, 4))
    # Moved apart by class, boxes of different classes never overlap.
    span = found.detach().abs().amax(dim=(1, 2), keepdim=True) * 2 + 1
    stays = suppress(found + labels[..., None] * span * apart, overlap, top > score)
    order = (~stays).to(torch.uint8).sort(dim=1, stable=True).indices[:, :most]
    stays, top, labels = (t.gather(1, order) for t in (stays, top, labels))
    found = found.gather(1, order[..., None].expand(-1, -1, 4))
    return found * stays[..., None], top * stays, torch.where(stays, labels, -1)
