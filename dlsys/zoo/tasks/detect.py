"""What all detectors share: COCO's figures of what they find, and pictures of it."""

from __future__ import annotations

import json
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

from torch import Tensor, nn

from dlsys.spec.task import DETECT
from dlsys.zoo.average_precision import Detections, Objects, coco_results, figures, judged
from dlsys.zoo.drawing import outlined
from dlsys.zoo.workload import Batch, Carry, Sample, Workload, rows_of


class Detect(Workload):
    """Boxes of objects of `shape.classes` classes in `image` float32 (rows, channels, height, width).

    A batch has `boxes` float32 (rows, m, 4), left, top, right, bottom in pixels, and `labels` int64 (rows,
    m), -1 where a row has fewer objects; a source may add `crowd`, `area`, `scale` and `image_id`, as
    `dlsys.zoo.average_precision.Objects` tells them. Crowds are not learnt: see `targets`.

    The loss of a row is divided by its own objects or anchors, never by the batch's: so the mean over rows is
    the same however they are shared out.
    """

    task = DETECT
    listed = frozenset({"found"})
    # The least score of a detection that pictures show.
    shown = 0.5

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Any, Carry]:
        return model(batch["image"]), carry

    @abstractmethod
    def detections(self, outputs: Any, batch: Batch) -> Detections:
        """What outputs say: at most 100 detections of an image, in its pixels."""

    def targets(self, batch: Batch) -> tuple[Tensor, Tensor]:
        """Boxes (rows, m, 4) and labels (rows, m) to learn: crowds, which are no single objects, are left
        out."""
        boxes, labels = batch["boxes"], batch["labels"]
        return boxes, labels.masked_fill(batch["crowd"].bool(), -1) if "crowd" in batch else labels

    def measure(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        loss = self.objective(outputs, batch).value * rows_of(batch)
        entries, objects = judged(self.detections(outputs, batch), Objects.of(batch), self.shape.classes)
        return {"loss": loss, "found": entries, "objects": objects}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        loss = float(sums["loss"]) / float(sums["rows"])
        return {"loss": loss, **figures(sums["found"], sums["objects"])}

    def report(self, sums: Mapping[str, Tensor], learnt: Mapping[str, Any]) -> Mapping[str, Sample]:
        """All detections in COCO's results format, for its server and its tools."""
        ids = learnt.get("objects", {}).get("ids") or range(self.shape.classes)
        return {"detections.json": json.dumps(coco_results(sums["found"], ids))}

    def pictures(self, model: nn.Module, batch: Batch, images: Tensor) -> Mapping[str, Sample]:
        outputs, _ = self.forward(model, batch, None)
        found = self.detections(outputs, batch)
        return {"detections": outlined(images, found, self.shown, truth=Objects.of(batch))}
