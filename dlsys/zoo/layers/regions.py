"""Regions that may hold an object: which of them a row learns from, and what a head's answers amount to."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers.boxes import best, clip, decode, iou

# Of intersection over union, from which on a region shows an object.
SHOWS = 0.5
# At most so much of what a row learns from shows an object.
_SHARE = 0.25
# What counts as a detection, and how much two of a class may overlap; how many are looked at, and told.
_SCORE, _OVERLAP = 0.02, 0.5
_CANDIDATES, _MOST = 300, 100


@dataclass(frozen=True)
class Proposals:
    """Regions of images, of which some may hold an object.

    Attributes:
        boxes: (rows, n, 4), in pixels.
        valid: bool (rows, n); where a row has fewer than others, none.
    """

    boxes: Tensor
    valid: Tensor


@dataclass(frozen=True)
class Truth:
    """What a row is to learn.

    Attributes:
        boxes: (rows, m, 4), in pixels.
        labels: int64 (rows, m); -1 where a row has fewer.
        chance: numbers in 0…1 that the row alone decides: (rows, n), of which the last m are the objects' and
            the first ones those of what is proposed; n is that much at least.
    """

    boxes: Tensor
    labels: Tensor
    chance: Tensor


@dataclass(frozen=True)
class Regions:
    """What a head says of regions.

    Attributes:
        boxes: (rows, n, 4), in pixels.
        valid: bool (rows, n): those that count.
        classes: logits (rows, n, 1 + classes), the ground's first.
        offsets: (rows, n, classes, 4), as `boxes.encode` makes them: a box for each class.
    """

    boxes: Tensor
    valid: Tensor
    classes: Tensor
    offsets: Tensor


def answering(regions: Tensor, boxes: Tensor, labels: Tensor) -> tuple[Tensor, Tensor]:
    """The object that each region overlaps most, and by how much: int64 (rows, n) and (rows, n).

    Args:
        regions: (rows, n, 4).
        boxes: (rows, m, 4), m ≥ 1.
        labels: (rows, m); -1 where a row has fewer objects.
    """
    overlap = iou(regions, boxes).masked_fill((labels < 0)[:, None], -1.0)
    most, number = overlap.max(2)
    return number, most.clamp(min=0)


def most_shown(count: int) -> int:
    """How many of `count` regions that a row learns from show an object at most."""
    return int(count * _SHARE)


def sample(
    positive: Tensor, negative: Tensor, chance: Tensor, count: int, share: float
) -> tuple[Tensor, Tensor]:
    """Draws so many of a row's candidates, as far as it has them: positive ones first, the rest negative.

    Args:
        positive, negative: bool (rows, n); what is neither is not drawn.
        chance: (rows, n) in 0…1; the lowest are drawn.
        count: how many of a row.
        share: the largest share of positive ones.

    Returns:
        int64 (rows, k), k ≤ `count`, and bool (rows, k): those drawn. The positive ones stand first.
    """
    # Sorted by chance within their kind; positive ones beyond their share stand behind all.
    most = int(count * share)
    among = torch.where(positive, chance, 2.0).argsort(dim=1, stable=True).argsort(dim=1)
    taken = positive & (among < most)
    order = torch.where(taken, chance, torch.where(negative, 1 + chance, 3.0))
    index = order.argsort(dim=1, stable=True)[:, :count]
    return index, (taken | negative).gather(1, index)


def learnt_from(proposed: Proposals, truth: Truth, *, count: int) -> Proposals:
    """The regions that a row learns from: of those proposed and of its objects themselves, so that there are
    good ones from the start."""
    boxes = torch.cat([proposed.boxes, truth.boxes.to(proposed.boxes.dtype)], 1)
    valid = torch.cat([proposed.valid, truth.labels >= 0], 1)
    _, overlap = answering(boxes, truth.boxes, truth.labels)
    shows = overlap >= SHOWS
    # A region's is the same whatever the other rows of the batch have.
    chance = truth.chance
    objects = chance[:, chance.shape[1] - truth.labels.shape[1] :]
    chance = torch.cat([chance[:, : proposed.boxes.shape[1]], objects], 1)
    index, drawn = sample(valid & shows, valid & ~shows, chance, count, _SHARE)
    return Proposals(boxes.gather(1, index[..., None].expand(-1, -1, 4)), drawn)


class Head(nn.Module):
    """Two layers, and what they say of a region: logits (rows, n, 1 + classes), the ground's first, and
    the offsets of a box for each class (rows, n, classes, 4).

    Args:
        inputs: numbers of a region.
        hidden: units of each layer.
        classes: without the ground.
    """

    def __init__(self, inputs: int, hidden: int, classes: int) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Linear(inputs, hidden), nn.ReLU(), nn.Linear(hidden, hidden), nn.ReLU()
        )
        self.classes = nn.Linear(hidden, 1 + classes)
        self.offsets = nn.Linear(hidden, classes * 4)

    def forward(self, features: Tensor) -> tuple[Tensor, Tensor]:
        x = self.layers(features.flatten(2))
        return self.classes(x), self.offsets(x).unflatten(2, (-1, 4))


def told(regions: Regions, height: int, width: int) -> Detections:
    """The detections that a head's answers amount to, in an image of this many pixels."""
    moved = clip(decode(regions.offsets.float(), regions.boxes.float()[:, :, None]), height, width)
    scores = regions.classes.float().softmax(2)[..., 1:] * regions.valid[..., None]
    found = best(moved, scores, score=_SCORE, overlap=_OVERLAP, candidates=_CANDIDATES, most=_MOST)
    return Detections(*found)
