"""COCO's figures: pycocotools' own, whatever is drawn, and however the images are shared out."""

from __future__ import annotations

import contextlib
import io
from typing import Any

import numpy as np
import pytest
import torch
from pycocotools import mask as coco_mask
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval
from torch import Tensor

from dlsys.zoo.average_precision import Detections, Objects, coco_results, figures, judged
from dlsys.zoo.layers.boxes import area

# In the order of COCOeval.stats.
NAMES = (
    *("map", "map50", "map75", "map_small", "map_medium", "map_large"),
    *("recall1", "recall10", "recall100", "recall_small", "recall_medium", "recall_large"),
)
CLASSES = 3


def drawn(seed: int, *, masks: bool = False) -> tuple[Detections, Objects]:
    """Objects of all sizes, crowds among them, and detections near them, beside them and of other classes;
    scores are so coarse that many are equal."""
    generator = np.random.default_rng(seed)
    rows, most, found = (6, 5, 12) if masks else (12, 9, 30)

    def boxes(*shape: int) -> np.ndarray:
        begin, size = (
            generator.uniform(0, 60 if masks else 200, (*shape, 2)),
            generator.uniform(5, 130, (*shape, 2)),
        )
        return np.concatenate([begin, begin + size], -1)

    truth = boxes(rows, most)
    labels = generator.integers(CLASSES, size=(rows, most))
    labels[np.arange(most) >= generator.integers(0, most + 1, size=(rows, 1))] = -1
    crowd = (generator.random((rows, most)) < 0.15) & (labels >= 0)
    near = generator.integers(most, size=(rows, found))
    guesses = np.take_along_axis(truth, near[..., None], 1) + generator.normal(0, 5, (rows, found, 4))
    guesses[..., 2:] = np.maximum(guesses[..., 2:], guesses[..., :2] + 1)
    guesses = np.where(generator.random((rows, found, 1)) < 0.7, guesses, boxes(rows, found))
    kinds = np.take_along_axis(labels, near, 1)
    kinds = np.where(
        generator.random((rows, found)) < 0.8, kinds, generator.integers(CLASSES, size=(rows, found))
    )
    scores = generator.random((rows, found)).round(2)
    tensor = torch.tensor
    boxes_there = tensor(truth, dtype=torch.float32)
    objects = Objects(
        boxes=boxes_there,
        labels=tensor(labels),
        crowd=tensor(crowd),
        area=area(boxes_there.double()) * tensor(generator.uniform(0.5, 1, (rows, most))),
        scale=torch.ones(rows).double(),
        number=torch.arange(rows),
        masks=filled(truth) if masks else None,
    )
    guessed = tensor(guesses, dtype=torch.float32)
    return Detections(
        guessed, tensor(scores).float(), tensor(kinds), filled(guesses) if masks else None
    ), objects


def filled(boxes: np.ndarray) -> Tensor:
    y, x = np.mgrid[:200, :200] + 0.5
    left, top, right, bottom = (boxes[..., side, None, None] for side in range(4))
    # No rectangle: a slanting corner is missing.
    return torch.tensor((x > left) & (x < right) & (y > top) & (y < bottom) & (x + y > left + top + 6))


def box_of(box: Tensor) -> list[float]:
    left, top, right, bottom = box.double().tolist()
    return [left, top, right - left, bottom - top]


def run_lengths(mask: Tensor) -> Any:
    return coco_mask.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))


def by_pycocotools(found: Detections, there: Objects, kind: str) -> list[float]:
    rows = range(len(there.labels))
    annotations, results = [], []
    for row in rows:
        for place in range(there.labels.shape[1]):
            if there.labels[row, place] >= 0:
                entry = {
                    "id": len(annotations) + 1,
                    "image_id": row,
                    "category_id": int(there.labels[row, place]),
                    "bbox": box_of(there.boxes[row, place]),
                    "iscrowd": int(there.crowd[row, place]),
                    "area": float(there.area[row, place]),
                }
                if there.masks is not None:
                    entry["segmentation"] = run_lengths(there.masks[row, place])
                annotations.append(entry)
        for place in range(found.labels.shape[1]):
            if found.labels[row, place] >= 0:
                result = {
                    "image_id": row,
                    "category_id": int(found.labels[row, place]),
                    "score": float(found.scores[row, place]),
                }
                if found.masks is None:
                    result["bbox"] = box_of(found.boxes[row, place])
                else:
                    result["segmentation"] = run_lengths(found.masks[row, place])
                results.append(result)
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO()
        truth.dataset = {
            "images": [{"id": row, "height": 200, "width": 200} for row in rows],
            "categories": [{"id": number} for number in range(CLASSES)],
            "annotations": annotations,
        }
        truth.createIndex()
        told = COCOeval(truth, truth.loadRes(results), kind)
        told.evaluate()
        told.accumulate()
        told.summarize()
    return [float(value) for value in told.stats]


def part(rows: Any, chosen: slice) -> Any:
    values = {name: value if value is None else value[chosen] for name, value in vars(rows).items()}
    return type(rows)(**values)


def ours(found: Detections, there: Objects, parts: list[slice], *, masks: bool = False) -> list[float]:
    judgements = [judged(part(found, p), part(there, p), CLASSES, masks=masks) for p in parts]
    told = figures(
        torch.cat([entries for entries, _ in judgements]), sum(objects for _, objects in judgements)
    )
    return [told.get(name, -1.0) for name in NAMES]


@pytest.mark.parametrize("seed", range(6))
def test_the_figures_of_boxes_are_pycocotools(seed: int) -> None:
    found, there = drawn(seed)
    wanted = by_pycocotools(found, there, "bbox")
    assert max(wanted) > 0.1
    assert ours(found, there, [slice(None)]) == pytest.approx(wanted, abs=1e-9)
    assert ours(found, there, [slice(7, None), slice(5), slice(5, 7)]) == pytest.approx(wanted, abs=1e-9)


@pytest.mark.parametrize("seed", range(2))
def test_the_figures_of_masks_are_pycocotools(seed: int) -> None:
    found, there = drawn(seed, masks=True)
    assert there.masks is not None
    there = Objects(**{**vars(there), "area": there.masks.sum((2, 3)).double()})
    wanted = by_pycocotools(found, there, "segm")
    assert max(wanted) > 0.1
    assert ours(found, there, [slice(4, None), slice(4)], masks=True) == pytest.approx(wanted, abs=1e-6)


def test_a_hand_worked_image() -> None:
    """Two objects. The better detection is right at an overlap of 0.8, the next one is wrong, the third,
    which found the second object, right."""
    boxes = torch.tensor([[[0.0, 0, 10, 10], [20, 20, 30, 30]]])
    there = Objects.of({"boxes": boxes, "labels": torch.zeros(1, 2).long(), "key": torch.zeros(1).long()})
    guesses = torch.tensor([[[0.0, 0, 10, 8], [40, 40, 50, 50], [20, 20, 30, 30]]])
    found = Detections(guesses, torch.tensor([[0.9, 0.8, 0.7]]), torch.zeros(1, 3).long())
    told = figures(*judged(found, there, 1))
    # Precision is 1 up to a recall of a half, 2/3 up to 1: 51 and 50 of 101 points.
    half = (51 * 1 + 50 * 2 / 3) / 101
    assert told["map50"] == pytest.approx(half)
    # From 0.85 on the first one is wrong too: 1/3 up to a recall of a half.
    assert told["map"] == pytest.approx((7 * half + 3 * (51 / 3) / 101) / 10)
    assert (told["recall1"], told["recall10"]) == pytest.approx(((7 * 0.5) / 10, (7 * 1 + 3 * 0.5) / 10))
    assert told["map_small"] == told["map"]
    assert "map_large" not in told


@pytest.mark.parametrize("objects", [0, 2])
def test_no_detection_and_no_object(objects: int) -> None:
    batch = {
        "boxes": torch.zeros(2, objects, 4),
        "labels": torch.full((2, objects), -1),
        "key": torch.arange(2),
    }
    nothing = Detections(torch.zeros(2, 1, 4), torch.zeros(2, 1), torch.full((2, 1), -1))
    entries, counts = judged(nothing, Objects.of(batch), CLASSES)
    assert entries.shape == (0, 12)
    assert figures(entries, counts) == dict.fromkeys(("map", "map50", "map75", *NAMES[6:9]), 0.0)


def test_results_are_in_original_pixels_and_ids() -> None:
    batch = {
        "boxes": torch.tensor([[[0.0, 0, 8, 8]]]),
        "labels": torch.tensor([[1]]),
        "key": torch.tensor([5]),
        "scale": torch.tensor([2.0]),
        "image_id": torch.tensor([77]),
    }
    found = Detections(torch.tensor([[[1.0, 2, 5, 4]]]), torch.tensor([[0.5]]), torch.tensor([[1]]))
    entries, counts = judged(found, Objects.of(batch), 2)
    assert coco_results(entries, [10, 20]) == [
        {"image_id": 77, "category_id": 20, "bbox": [2.0, 4.0, 8.0, 4.0], "score": 0.5}
    ]
    assert counts.tolist() == [[0, 0, 0, 0], [1, 1, 0, 0]]
