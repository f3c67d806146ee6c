"""Average precision of detections as COCO's evaluation has it (Lin et al. 2014, arXiv:1405.0312).

A detection is right if it overlaps an object of its class that no better detection has found; which are right
is decided image by image, for ten least overlaps and four ranges of areas. Precision then needs the
detections of a
whole split in the order of their scores, which no sum tells: they are listed. The figures are pycocotools'
    own.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import Tensor

from dlsys.zoo.layers.boxes import area, intersection

# Least intersections over unions.
THRESHOLDS = tuple(np.linspace(0.5, 0.95, 10).tolist())
# Areas in square pixels of the original image, both ends included: all, small, medium, large.
_RANGES = ((0.0, 1e10), (0.0, 32.0**2), (32.0**2, 96.0**2), (96.0**2, 1e10))
_RECALLS = np.linspace(0.0, 1.0, 101)
# The best detections of an image and class that recall is told of.
_MOST = (1, 10, 100)
_WRONG, _RIGHT, _IGNORED = 0, 1, 2


@dataclass(frozen=True)
class Detections:
    """What was found in images; where an image has fewer than others, labels are -1.

    Attributes:
        boxes: (rows, n, 4), in pixels of the image.
        scores: (rows, n).
        labels: int64 (rows, n).
        masks: bool (rows, n, height, width), where they were asked for.
    """

    boxes: Tensor
    scores: Tensor
    labels: Tensor
    masks: Tensor | None = None


@dataclass(frozen=True)
class Objects:
    """What there is in images; where an image has fewer than others, labels are -1.

    Attributes:
        boxes: (rows, m, 4), in pixels of the image.
        labels: int64 (rows, m).
        crowd: bool (rows, m): a group of objects, which takes any number of detections and counts as none.
        area: (rows, m) in square pixels of the original image, which is the object's and not its box's.
        scale: (rows,) original pixels in one of the image's.
        number: (rows,) the image's; where scores are equal, the lower number comes first.
        masks: bool (rows, m, height, width), where masks were asked for.
    """

    boxes: Tensor
    labels: Tensor
    crowd: Tensor
    area: Tensor
    scale: Tensor
    number: Tensor
    masks: Tensor | None = None

    @classmethod
    def of(cls, batch: Mapping[str, Tensor]) -> Objects:
        """Those of a batch; what its source leaves out is as it mostly is: no crowds, areas of boxes, scale
        1."""
        boxes, labels, key = batch["boxes"], batch["labels"], batch["key"]
        scale = batch.get("scale", torch.ones_like(key, dtype=boxes.dtype)).double()
        return cls(
            boxes=boxes,
            labels=labels,
            crowd=batch.get("crowd", torch.zeros_like(labels)).bool(),
            area=batch["area"].double() if "area" in batch else area(boxes.double()) * scale[:, None] ** 2,
            scale=scale,
            number=batch.get("image_id", key),
            masks=batch.get("masks"),
        )


def judged(found: Detections, there: Objects, classes: int, *, masks: bool = False) -> tuple[Tensor, Tensor]:
    """What a batch adds to the figures.

    Args:
        found: at most 100 of a class and image count.
        there: the objects of the same images.
        classes: the number of classes.
        masks: whether masks must overlap, rather than boxes.

    Returns:
        The detections one by one, float64 (n, 12): image, class, score, place among those of its class and
        image from 0, for each range of areas the ten verdicts as one number, and the box in original pixels;
        and the objects that count, float64 (classes, 4), for each range of areas.
    """
    order = (
        found.scores.masked_fill(found.labels < 0, -torch.inf)
        .sort(dim=1, descending=True, stable=True)
        .indices
    )
    labels, scores = found.labels.gather(1, order), found.scores.gather(1, order)
    boxes = found.boxes.gather(1, order[..., None].expand(-1, -1, 4)).double()
    scale = there.scale[:, None]
    if masks:
        assert found.masks is not None
        assert there.masks is not None
        own = (
            found.masks.flatten(2)
            .float()
            .gather(1, order[..., None].expand(-1, -1, found.masks[0, 0].numel()))
        )
        other = there.masks.flatten(2).float()
        shared, sizes, others = (own @ other.mT).double(), own.sum(2).double(), other.sum(2).double()
    else:
        truth = there.boxes.double()
        shared, sizes, others = intersection(boxes, truth), area(boxes), area(truth)
    union = torch.where(there.crowd[:, None], sizes[..., None], sizes[..., None] + others[:, None] - shared)
    overlap = torch.where(
        (labels[..., None] == there.labels[:, None]) & (labels >= 0)[..., None],
        shared / union.clamp(min=1e-12),
        -1.0,
    )
    low, high = torch.tensor(_RANGES, dtype=torch.float64, device=boxes.device).unbind(1)
    outside = _outside(there.area, low, high)
    uncounted = outside | there.crowd[:, None] | (there.labels < 0)[:, None]
    verdicts = _verdicts(overlap, uncounted, there.crowd)
    # What found nothing and is of another size is not held against a net that was asked for this one.
    strange = _outside(sizes * scale**2, low, high)[:, :, None] & (verdicts == _WRONG)
    verdicts = verdicts.masked_fill(strange, _IGNORED)
    digits = 3.0 ** torch.arange(len(THRESHOLDS), device=boxes.device, dtype=torch.float64)
    codes = (verdicts.double() * digits[:, None]).sum(2)
    earlier = (labels[..., None] == labels[:, None]).tril(-1).sum(2)
    number = there.number.double()[:, None].expand_as(scores)
    columns = [number, labels, scores, earlier, *codes.unbind(1), *(boxes * scale[..., None]).unbind(2)]
    entries = torch.stack([column.double() for column in columns], 2)[labels >= 0]
    counted = torch.nn.functional.one_hot(there.labels.clamp(min=0), classes).double()
    return entries, torch.einsum("ram,rmc->ca", (~uncounted).double(), counted)


def _outside(areas: Tensor, low: Tensor, high: Tensor) -> Tensor:
    """Of areas (rows, n), which lie outside of each range: bool (rows, ranges, n)."""
    return (areas[:, None] < low[:, None]) | (areas[:, None] > high[:, None])


def _verdicts(overlap: Tensor, uncounted: Tensor, crowd: Tensor) -> Tensor:
    """Which detections are right: int64 (rows, ranges, thresholds, detections).

    Each detection, the best first, takes the object that it overlaps most among those that are left; one that
    does not count only if it overlaps none that does.

    Args:
        overlap: (rows, detections, objects), -1 where classes differ.
        uncounted: bool (rows, ranges, objects).
        crowd: bool (rows, objects): those that can be taken again.
    """
    rows, found, objects = overlap.shape
    ranges, thresholds = uncounted.shape[1], len(THRESHOLDS)
    verdicts = torch.zeros(rows, ranges, thresholds, found, dtype=torch.int64, device=overlap.device)
    if not objects:
        return verdicts
    least = torch.tensor(THRESHOLDS, dtype=torch.float64, device=overlap.device)[:, None]
    free = torch.ones(rows, ranges, thresholds, objects, dtype=torch.bool, device=overlap.device)
    ignored = uncounted[:, :, None]
    for place in range(found):
        own = overlap[:, place, None, None]
        candidates = free & (own >= least)
        counted = candidates & ~ignored
        some = counted.any(3, keepdim=True)
        candidates = torch.where(some, counted, candidates)
        # Of several that are overlapped alike the last one, as pycocotools has it.
        chosen = objects - 1 - torch.where(candidates, own, -1.0).flip(3).argmax(3)
        taken = candidates.any(3)
        verdicts[..., place] = torch.where(taken, torch.where(some[..., 0], _RIGHT, _IGNORED), _WRONG)
        hit = torch.nn.functional.one_hot(chosen, objects).bool() & taken[..., None]
        free &= ~(hit & ~crowd[:, None, None])
    return verdicts


def figures(entries: Tensor, objects: Tensor) -> dict[str, float]:
    """COCO's twelve figures of a whole split; those of sizes only where there are such objects.

    Args:
        entries: of `judged`, of all images in any order.
        objects: likewise, their sum.
    """
    rows = entries.cpu().numpy()
    # By image, and within it by place, as pycocotools meets them; then a stable sort by scores.
    rows = rows[np.lexsort((rows[:, 3], rows[:, 1], rows[:, 0]))]
    rows = rows[np.argsort(-rows[:, 2], kind="mergesort")]
    counts = objects.cpu().numpy()
    classes = [rows[rows[:, 1] == number] for number in range(len(counts))]
    found: dict[str, float] = {}
    for place, size in enumerate(("", "_small", "_medium", "_large")):
        there = [(kind, count) for kind, count in zip(classes, counts[:, place], strict=True) if count]
        if size and not there:
            continue
        precision, recall = _means([_curves(kind, place, count, _MOST[-1]) for kind, count in there])
        if size:
            found[f"map{size}"], found[f"recall{size}"] = float(precision.mean()), float(recall.mean())
            continue
        found |= {"map": float(precision.mean()), "map50": float(precision[0]), "map75": float(precision[5])}
        for most in _MOST:
            _, recall = _means([_curves(kind, place, count, most) for kind, count in there])
            found[f"recall{most}"] = float(recall.mean())
    return found


def coco_results(entries: Tensor, ids: Sequence[int]) -> list[dict[str, Any]]:
    """Detections in the format of COCO's results files, image by image, the best first.

    Args:
        entries: of `judged`.
        ids: of the categories, in the order of the classes.
    """
    rows = entries.cpu().numpy()
    rows = rows[np.lexsort((-rows[:, 2], rows[:, 0]))]
    return [
        {
            "image_id": int(row[0]),
            "category_id": int(ids[int(row[1])]),
            "bbox": [float(row[8]), float(row[9]), float(row[10] - row[8]), float(row[11] - row[9])],
            "score": float(row[2]),
        }
        for row in rows
    ]


def _means(curves: Sequence[tuple[np.ndarray, np.ndarray]]) -> tuple[np.ndarray, np.ndarray]:
    """Mean precision and recall of each threshold over classes: (10,) twice; 0 where there is no object."""
    if not curves:
        return np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    precision, recall = zip(*curves, strict=True)
    return np.mean(precision, axis=0), np.mean(recall, axis=0)


def _curves(rows: np.ndarray, place: int, objects: float, most: int) -> tuple[np.ndarray, np.ndarray]:
    """Of one class and range of areas: the mean precision over 101 recalls, and the recall: (10,) twice.

    Args:
        rows: its detections, the best first.
        place: the range's.
        objects: how many count.
        most: detections of an image that count.
    """
    rows = rows[rows[:, 3] < most]
    powers = 3 ** np.arange(len(THRESHOLDS))
    verdicts = rows[:, 4 + place].astype(np.int64)[None] // powers[:, None] % 3
    right = np.cumsum(verdicts == _RIGHT, axis=1, dtype=np.float64)
    wrong = np.cumsum(verdicts == _WRONG, axis=1, dtype=np.float64)
    recalls = right / objects
    precisions = right / (right + wrong + np.spacing(1))
    # A precision that a higher recall reaches too counts for the lower one.
    precisions = np.maximum.accumulate(precisions[:, ::-1], axis=1)[:, ::-1]
    means, ends = np.zeros(len(THRESHOLDS)), np.zeros(len(THRESHOLDS))
    for index in range(len(THRESHOLDS)):
        at = np.searchsorted(recalls[index], _RECALLS, side="left")
        reached = at < len(rows)
        means[index] = precisions[index][at[reached]].sum() / len(_RECALLS)
        ends[index] = recalls[index][-1] if len(rows) else 0.0
    return means, ends
