"""What detectors of instances share: COCO's figures over masks, besides those over boxes."""

from __future__ import annotations

from typing import Any

from torch import Tensor

from dlsys.spec.task import DETECT_INSTANCES
from dlsys.zoo.average_precision import Objects, figures, judged
from dlsys.zoo.tasks.detect import Detect
from dlsys.zoo.workload import Batch


class DetectInstances(Detect):
    """A detector whose detections have masks; a batch has `masks` bool (rows, m, height, width) besides."""

    task = DETECT_INSTANCES
    listed = frozenset({"found", "found_masks"})

    def measure(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        found, there = self.detections(outputs, batch), Objects.of(batch)
        entries, _ = judged(found, there, self.shape.classes, masks=True)
        return {**super().measure(outputs, batch), "found_masks": entries}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        masks = figures(sums["found_masks"], sums["objects"])
        return {**super().summarize(sums), **{f"mask_{name}": value for name, value in masks.items()}}
