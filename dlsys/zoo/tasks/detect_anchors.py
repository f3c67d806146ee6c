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
from dlsys.zoo.layers.focal import sigmoid_focal
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
    # What counts as a detection, how much two may overlap, and whether that is asked of a class alone.
    score, overlap, apart = 0.02, 0.5, True
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

    def answering(self, outputs: Answers, batch: Batch) -> tuple[Tensor, Tensor]:
        """The number of the object that each anchor answers for, as `anchors.match` has it, and its class
        likewise: int64 (rows, anchors) twice."""
        boxes, labels = self.targets(batch)
        number = anchors.match(boxes, labels, outputs.anchors, high=self.high, low=self.low)
        return number, torch.where(number >= 0, labels.gather(1, number.clamp(min=0)), number)

    def objective(self, outputs: Answers, batch: Batch) -> Loss:
        number, kinds = self.answering(outputs, batch)
        answers = number >= 0
        boxes = batch["boxes"].gather(1, number.clamp(min=0)[..., None].expand(-1, -1, 4))
        wanted = encode(boxes, outputs.anchors)
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
            apart=self.apart,
        )
        return Detections(*found)


def hard_negatives(losses: Tensor, positive: Tensor, ratio: float) -> Tensor:
    """Which anchors learn: those with an object, and of the ground those that are wrong by most, so many to
    each object's anchor; where a row has no object, as many as for one (Liu et al. 2016).

    Args:
        losses: (rows, anchors).
        positive: bool (rows, anchors): those that answer for an object.
        ratio: of the ground's to the objects' anchors.

    Returns:
        bool (rows, anchors).
    """
    ground = losses.detach().masked_fill(positive, -torch.inf)
    rank = ground.argsort(dim=1, descending=True, stable=True).argsort(dim=1)
    return positive | (rank < ratio * positive.sum(1, keepdim=True).clamp(min=1))


def focal_loss(logits: Tensor, answers: Tensor, *, gamma: float, alpha: float | None) -> Tensor:
    """The focal loss of each anchor's classes, each of which is a yes-or-no question: (rows, anchors).

    Args:
        logits: (rows, anchors, classes).
        answers: int64 (rows, anchors), as `DetectAnchors.class_loss` has them.
        gamma, alpha: see `dlsys.zoo.layers.focal`.
    """
    # Classes one more, so that what answers for none has a place in which to be none.
    wanted = F.one_hot(answers.clamp(min=-1) + 1, logits.shape[2] + 1)[..., 1:]
    losses = sigmoid_focal(logits, wanted.to(logits.dtype), gamma=gamma, alpha=alpha).sum(2)
    return torch.where(answers == anchors.BETWEEN, 0.0, losses)
