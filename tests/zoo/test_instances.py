"""Instances by their masks, and why classes of pixels alone do not tell those apart that touch."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from scipy import ndimage
from torch import Tensor

from dlsys.data import load
from dlsys.spec.data import Shapes
from dlsys.zoo.average_precision import Detections, Objects, figures, judged


def parts_of(batch: dict[str, Tensor], classes: int) -> Detections:
    """What can be told of instances by each pixel's true class: each connected part is one."""
    found = []
    for masks, labels in zip(batch["masks"], batch["labels"], strict=True):
        parts = []
        for label in range(classes):
            pixels = masks[labels == label].any(0)
            numbers, count = ndimage.label(pixels.numpy())
            parts += [(label, torch.from_numpy(numbers == number + 1)) for number in range(count)]
        found.append(parts)
    most = max(map(len, found))
    rows, size = len(found), batch["masks"].shape[-2:]
    labels, masks = torch.full((rows, most), -1), torch.zeros(rows, most, *size, dtype=torch.bool)
    for row, parts in enumerate(found):
        for place, (label, mask) in enumerate(parts):
            labels[row, place], masks[row, place] = label, mask
    return Detections(torch.zeros(rows, most, 4), torch.ones(rows, most), labels, masks)


def average_precision(touching: bool) -> float:
    options = Shapes(
        source="shapes",
        wanted="instances",
        rows=100,
        touching=touching,
        kinds=("circle",),
        objects=(2, 2),
        overlap=0.0,
        sides=(10, 20),
    )
    train = load(options, Path()).train
    batch = {**train.batch(np.arange(len(train))), "key": torch.arange(len(train))}
    return figures(*judged(parts_of(batch, 1), Objects.of(batch), 1, masks=True))["map75"]


def test_even_the_true_class_of_each_pixel_does_not_tell_touching_instances_apart() -> None:
    """What jobs/vision/instance_segmentation.yaml is held against."""
    assert average_precision(touching=False) > 0.9
    assert average_precision(touching=True) < 0.2
