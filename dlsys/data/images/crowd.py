"""One set of boxes from those that several people have drawn around the same objects.

Who draws well is told by agreement alone, over and over (after Dawid and Skene 1979, doi:10.2307/2346806):
the better somebody's boxes fit what the others say together, the more they count the next time.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from dlsys.data.images.coco import Annotations
from dlsys.errors import DataError

# Boxes that overlap so much are of one object.
_SAME = 0.5
_ROUNDS = 5


@dataclass(frozen=True)
class Boxes:
    """What somebody drew in an image.

    Attributes:
        places: left, top, right, bottom in pixels, float64 (n, 4).
        labels: the class of each, int64 (n,).
    """

    places: np.ndarray
    labels: np.ndarray


def iou(first: np.ndarray, second: np.ndarray) -> np.ndarray:
    """Intersection over union of boxes (n, 4) and (m, 4), each with each: (n, m)."""
    low = np.maximum(first[:, None, :2], second[None, :, :2])
    high = np.minimum(first[:, None, 2:], second[None, :, 2:])
    shared = (high - low).clip(0).prod(-1)
    areas = [(boxes[:, 2:] - boxes[:, :2]).prod(-1) for boxes in (first, second)]
    union = areas[0][:, None] + areas[1][None] - shared
    found: np.ndarray = np.divide(shared, union, out=np.zeros_like(shared), where=union > 0)
    return found


def merged(images: Sequence[Sequence[Boxes]]) -> tuple[list[Boxes], np.ndarray]:
    """The boxes of each image, and how well each person's fit them.

    A person's quality is the agreement with what all the others say together. An object is there where people
    of more than half of all quality have drawn it; each of its edges is their weighted median, its class what
    most of their quality says.

    Args:
        images: of each, what each person drew, in the same order of people.

    Returns:
        The boxes, and of each person the agreement with these.
    """
    people = len(images[0])
    quality = np.ones(people)
    for _ in range(_ROUNDS):
        # Held against the others alone: whoever is in the middle of three would agree with himself.
        quality = np.array([_quality(images, one, quality) for one in range(people)])
        if not quality.any():  # nobody agrees with anybody
            quality = np.ones(people)
    found = [_together(drawn, quality) for drawn in images]
    fits = [agreement([drawn[one] for drawn in images], found) for one in range(people)]
    return found, np.array(fits)


def _quality(images: Sequence[Sequence[Boxes]], one: int, quality: np.ndarray) -> float:
    """How well somebody's boxes fit those of all the others."""
    others = np.arange(len(quality)) != one
    found = [
        _together([boxes for boxes, other in zip(drawn, others, strict=True) if other], quality[others])
        for drawn in images
    ]
    return agreement([drawn[one] for drawn in images], found)


def agreement(some: Sequence[Boxes], others: Sequence[Boxes]) -> float:
    """Twice the IoU of boxes that fit each other best, of the same class, over the number of both: 1 where
    all are the same."""
    shared = count = 0.0
    for one, other in zip(some, others, strict=True):
        overlap = iou(one.places, other.places) * (one.labels[:, None] == other.labels[None])
        count += len(one.labels) + len(other.labels)
        for _ in range(min(overlap.shape)):
            first, second = np.unravel_index(overlap.argmax(), overlap.shape)
            shared += overlap[first, second]
            overlap[first], overlap[:, second] = 0, 0
    return float(2 * shared / count) if count else 1.0


def _together(drawn: Sequence[Boxes], quality: np.ndarray) -> Boxes:
    """One image's boxes."""
    groups: list[list[tuple[int, np.ndarray, int]]] = []
    # The best begin: what they draw is what others are held against.
    for one in np.argsort(-quality, kind="stable"):
        taken: set[int] = set()
        places = drawn[one].places
        middles = np.array([np.median([box for _, box, _ in group], axis=0) for group in groups])
        overlap = iou(places, middles.reshape(-1, 4))
        for flat in np.argsort(-overlap, axis=None, kind="stable"):
            box, group = np.unravel_index(flat, overlap.shape)
            if overlap[box, group] < _SAME:
                break
            if box not in taken and not any(who == one for who, _, _ in groups[group]):
                groups[group].append((one, places[box], int(drawn[one].labels[box])))
                taken.add(int(box))
        for box in range(len(places)):
            if box not in taken:
                groups.append([(one, places[box], int(drawn[one].labels[box]))])
    kept = [group for group in groups if 2 * sum(quality[one] for one, _, _ in group) > quality.sum()]
    boxes = [_median(group, quality) for group in kept]
    labels = [_vote(group, quality) for group in kept]
    return Boxes(np.array(boxes, dtype=np.float64).reshape(-1, 4), np.array(labels, dtype=np.int64))


def _median(group: Sequence[tuple[int, np.ndarray, int]], quality: np.ndarray) -> np.ndarray:
    """Each edge's weighted median: the mean of the two in the middle where they weigh the same. Of two alone,
    of whom the median would be one, it is the weighted mean."""
    places = np.stack([box for _, box, _ in group])
    weights = np.array([quality[one] for one, _, _ in group])
    if len(group) == 2:
        found: np.ndarray = np.average(places, axis=0, weights=weights)
        return found
    order = places.argsort(axis=0, kind="stable")
    found = np.empty(4)
    for edge in range(4):
        values, of = places[order[:, edge], edge], weights[order[:, edge]]
        below = of.cumsum() / of.sum()
        first = int(np.searchsorted(below, 0.5 - 1e-9))
        last = int(np.searchsorted(below, 0.5 + 1e-9))
        found[edge] = (values[first] + values[last]) / 2
    return found


def _vote(group: Sequence[tuple[int, np.ndarray, int]], quality: np.ndarray) -> int:
    said: dict[int, float] = {}
    for one, _, label in group:
        said[label] = said.get(label, 0.0) + quality[one]
    return max(said, key=lambda label: (said[label], -label))


def _drawn(objects: Sequence[dict[str, Any]]) -> Boxes:
    places = np.array([entry["bbox"] for entry in objects], dtype=np.float64).reshape(-1, 4)
    places[:, 2:] += places[:, :2]
    return Boxes(places, np.array([entry["category_id"] for entry in objects], dtype=np.int64))


def merged_files(paths: Sequence[Path]) -> tuple[dict[str, Any], list[tuple[int, float]]]:
    """Several people's annotations of the same images, in COCO's format, as one file's.

    Returns:
        What the file holds, and of each person how many boxes there were, and their agreement with it.

    Raises:
        DataError: a file is missing or not of the format, or has other images or categories than the first.
    """
    files = [Annotations(str(path), Path(), Path(), False) for path in paths]
    images = [{entry["id"]: entry["file_name"] for entry in file.images()} for file in files]
    for path, file, own in zip(paths[1:], files[1:], images[1:], strict=True):
        if file.classes != files[0].classes:
            raise DataError(f"{path}: has other categories than {paths[0]}: all files need the same")
        if own != images[0]:
            raise DataError(f"{path}: has other images than {paths[0]}: all files need the same")
    drawn = [{number: _drawn(objects) for number, objects in file.objects().items()} for file in files]
    empty = Boxes(np.zeros((0, 4)), np.zeros(0, dtype=np.int64))
    numbers = list(images[0])
    found, quality = merged([[boxes.get(number, empty) for boxes in drawn] for number in numbers])
    annotations: list[dict[str, Any]] = []
    for number, boxes in zip(numbers, found, strict=True):
        for (left, top, right, bottom), label in zip(boxes.places, boxes.labels, strict=True):
            box = [round(float(value), 2) for value in (left, top, right - left, bottom - top)]
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": int(label),
                    "bbox": box,
                    "area": round(box[2] * box[3], 2),
                    "iscrowd": 0,
                }
            )
    categories = [{"id": number, "name": name} for number, name in files[0].classes.items()]
    told = {"images": files[0].images(), "annotations": annotations, "categories": categories}
    counts = [sum(len(boxes.labels) for boxes in own.values()) for own in drawn]
    return told, list(zip(counts, quality.tolist(), strict=True))
