"""What YOLO has shared since its second version: anchors in cells, each of which says a box around its cell's
centre, how sure it is, and classes."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor

from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers import anchors
from dlsys.zoo.layers.boxes import MOST_GROWN, best, centred, clip, cornered, iou
from dlsys.zoo.tasks.detect import Detect
from dlsys.zoo.workload import Batch, Loss


@dataclass(frozen=True)
class Cells:
    """What a net says of each anchor of its cells.

    Attributes:
        said: (rows, anchors, 5 + classes): where in the cell the centre is, from 0 to 1 after a sigmoid;
            the logarithms of width and height by the anchor's; how sure it is, as a logit; and the classes.
        anchors: (anchors, 4) around the centres of their cells, in pixels.
        cells: (anchors, 2), width and height of their cells in pixels.
    """

    said: Tensor
    anchors: Tensor
    cells: Tensor

    def boxes(self) -> Tensor:
        """What is said as boxes (rows, anchors, 4), in pixels."""
        given = centred(self.anchors)
        centre = given[:, :2] + (self.said[..., :2].sigmoid() - 0.5) * self.cells
        return cornered(
            torch.cat([centre, given[:, 2:] * self.said[..., 2:4].clamp(max=MOST_GROWN).exp()], -1)
        )

    def told(self, boxes: Tensor) -> Tensor:
        """Boxes (rows, anchors, 4) as they should be said: the first two after their sigmoid."""
        wanted, given = centred(boxes), centred(self.anchors)
        centre = ((wanted[..., :2] - given[:, :2]) / self.cells + 0.5).clamp(0, 1)
        return torch.cat([centre, torch.log(wanted[..., 2:].clamp(min=1e-3) / given[:, 2:])], -1)

    def answering(self, boxes: Tensor, labels: Tensor) -> Tensor:
        """Which object each anchor answers for: of the anchors in whose cell its centre lies, an object has
        the one whose shape is most like its own; of several objects of an anchor, it is the last one.

        Args:
            boxes: (rows, n, 4).
            labels: (rows, n); -1 where a row has fewer objects.

        Returns:
            int64 (rows, anchors): an object's number, or -1.
        """
        rows, objects = labels.shape
        wanted, given = centred(boxes), centred(self.anchors)
        away = ((wanted[:, :, None, :2] - given[:, :2]) / self.cells).abs().amax(3)
        alike = iou(_around_0(wanted[..., 2:]), _around_0(given[:, 2:]))
        # Where rounding puts a centre in no cell, the nearest one's.
        chosen = torch.where(away <= 0.5, alike, -away).argmax(2)
        numbers = torch.arange(objects, device=labels.device).expand_as(labels)
        found = torch.full((rows, len(self.anchors)), -1, device=labels.device)
        return found.scatter_reduce(1, chosen, torch.where(labels >= 0, numbers, -1), "amax")


def _around_0(sizes: Tensor) -> Tensor:
    """Boxes (…, 4) of these widths and heights (…, 2) around 0."""
    return torch.cat([-sizes / 2, sizes / 2], -1)


class DetectCells(Detect):
    """A detector whose model gives `Cells` of `image`.

    The loss of a row is the sum of its anchors' losses by how many answer for an object, 1 at least.
    """

    # The weight of a place, and of a box that is to be sure of nothing.
    place, nothing = 5.0, 0.5
    # A box that overlaps an object more is not blamed for being sure, though another answers for the object.
    near = 0.6
    score, overlap = 0.02, 0.5
    candidates, most = 300, 100

    @abstractmethod
    def sure_loss(self, logits: Tensor, answers: Tensor, overlap: Tensor) -> Tensor:
        """The loss of how sure each anchor is: (rows, anchors).

        Args:
            logits: (rows, anchors).
            answers: bool likewise: whether it answers for an object.
            overlap: likewise: how much its box overlaps that object, 0 where there is none.
        """

    @abstractmethod
    def class_loss(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The loss of each anchor's class, (rows, anchors), of logits (rows, anchors, classes) and labels."""

    @abstractmethod
    def scores(self, classes: Tensor) -> Tensor:
        """How likely each class is if there is an object, of logits (rows, anchors, classes)."""

    def objective(self, outputs: Cells, batch: Batch) -> Loss:
        boxes, labels = self.targets(batch)
        number = outputs.answering(boxes, labels)
        answers, number = number >= 0, number.clamp(min=0)
        wanted = boxes.gather(1, number[..., None].expand(-1, -1, 4))
        overlaps = iou(outputs.boxes().detach(), boxes) * (labels >= 0)[:, None]
        own = overlaps.gather(2, number[..., None])[..., 0]
        said, told = outputs.said, outputs.told(wanted)
        missed = (said[..., :2].sigmoid() - told[..., :2]).square().sum(2)
        missed = missed + (said[..., 2:4] - told[..., 2:]).square().sum(2)
        sure = self.sure_loss(said[..., 4], answers, torch.where(answers, own, 0.0))
        blamed = torch.where(overlaps.amax(2) > self.near, 0.0, self.nothing)
        kinds = self.class_loss(said[..., 5:], labels.gather(1, number).clamp(min=0))
        count = answers.sum(1).clamp(min=1)
        place = torch.where(answers, self.place * missed, 0.0).sum(1) / count
        kind = torch.where(answers, kinds, 0.0).sum(1) / count
        sureness = torch.where(answers, sure, blamed * sure).sum(1) / count
        metrics = {"loss_place": place.mean(), "loss_class": kind.mean(), "loss_sure": sureness.mean()}
        return Loss((place + kind + sureness).mean(), metrics)

    def detections(self, outputs: Cells, batch: Batch) -> Detections:
        height, width = batch["image"].shape[-2:]
        said = outputs.said.float()
        found = best(
            clip(outputs.boxes().float(), height, width),
            said[..., 4:5].sigmoid() * self.scores(said[..., 5:]),
            score=self.score,
            overlap=self.overlap,
            candidates=self.candidates,
            most=self.most,
        )
        return Detections(*found)


def cells_of(maps: Sequence[Tensor], image: Tensor, sizes: Sequence[Sequence[tuple[float, float]]]) -> Cells:
    """What maps of a net say of an image.

    Args:
        maps: of each scale (rows, anchors of a cell × (5 + classes), height, width).
        image: (rows, channels, height, width).
        sizes: of each map, width and height of a cell's anchors as shares of the image's.
    """
    height, width = image.shape[-2:]
    pixels = [[(w * width, h * height) for w, h in pairs] for pairs in sizes]
    cells = [
        image.new_tensor([width / map.shape[3], height / map.shape[2]]).expand(
            map.shape[2] * map.shape[3] * len(pairs), 2
        )
        for map, pairs in zip(maps, sizes, strict=True)
    ]
    said = [anchors.flat(map, len(pairs)) for map, pairs in zip(maps, sizes, strict=True)]
    return Cells(torch.cat(said, 1), anchors.pyramid(maps, (height, width), pixels), torch.cat(cells))
