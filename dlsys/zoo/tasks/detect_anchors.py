"""What one-stage detectors share: a class and an offset for each anchor, and the loss of both."""

from __future__ import annotations

from abc import abstractmethod
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers import anchors
from dlsys.zoo.layers.boxes import best, clip, decode, encode
from dlsys.zoo.tasks.detect import Detect
from dlsys.zoo.workload import Batch, Loss


@dataclass(frozen=True)
class Answers:
    """What a net says of each anchor.

    Attributes:
        classes: logits (rows, anchors, c).
        offsets: (rows, anchors, 4), as `boxes.encode` makes them.
        anchors: (anchors, 4), in pixels.
    """

    classes: Tensor
    offsets: Tensor
    anchors: Tensor


class DetectAnchors(Detect):
    """A detector whose model gives `Answers` of `image`.

    The loss of a row is the sum of its anchors' losses by how many anchors answer for an object, 1 at least.
    """

    # The least intersection over union of an anchor that answers for an object, and below which it is ground.
    high, low = 0.5, 0.4
    # What counts as a detection, and how much two of a class may overlap.
    score, overlap = 0.02, 0.5
    candidates, most = 300, 100

    @abstractmethod
    def class_loss(self, logits: Tensor, answers: Tensor) -> Tensor:
        """The loss of each anchor's class: (rows, anchors).

        Args:
            logits: (rows, anchors, c).
            answers: int64 (rows, anchors): a class, or `anchors.BACKGROUND`, or `anchors.BETWEEN`, which
                counts for nothing.
        """

    @abstractmethod
    def scores(self, logits: Tensor) -> Tensor:
        """How likely each anchor shows each class: (rows, anchors, classes), in 0…1."""

    def objective(self, outputs: Answers, batch: Batch) -> Loss:
        boxes, labels = self.targets(batch)
        taken = anchors.match(boxes, labels, outputs.anchors, high=self.high, low=self.low)
        answers = taken >= 0
        number = taken.clamp(min=0)
        kinds = torch.where(answers, labels.gather(1, number), taken)
        wanted = encode(boxes.gather(1, number[..., None].expand(-1, -1, 4)), outputs.anchors)
        missed = F.smooth_l1_loss(outputs.offsets, wanted, reduction="none").sum(2)
        count = answers.sum(1).clamp(min=1)
        place = torch.where(answers, missed, 0.0).sum(1) / count
        kind = self.class_loss(outputs.classes, kinds).sum(1) / count
        metrics = {"loss_place": place.mean(), "loss_class": kind.mean()}
        return Loss((place + kind).mean(), metrics)

    def detections(self, outputs: Answers, batch: Batch) -> Detections:
        height, width = batch["image"].shape[-2:]
        boxes = clip(decode(outputs.offsets.float(), outputs.anchors), height, width)
        found = best(
            boxes,
            self.scores(outputs.classes.float()),
            score=self.score,
            overlap=self.overlap,
            candidates=self.candidates,
            most=self.most,
        )
        return Detections(*found)
