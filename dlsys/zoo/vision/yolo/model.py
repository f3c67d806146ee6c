"""YOLO (Redmon et al. 2015, arXiv:1506.02640): dense layers that see the whole image say of each cell of a
grid a few boxes, how sure they are, and a class.

The base is a small convolutional net rather than the paper's of 24 layers, with group norms; outputs, loss
and its weights are the paper's.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.average_precision import Detections
from dlsys.zoo.layers.blocks import Stages
from dlsys.zoo.layers.boxes import best, centred, clip, cornered, iou
from dlsys.zoo.tasks.detect import Detect
from dlsys.zoo.vision.yolo.card import CARD, YOLOOptions
from dlsys.zoo.workload import Batch, Loss

# Places count for more than classes, and what is sure of no object for less: most cells have none.
_PLACE, _NOTHING = 5.0, 0.5


class YOLO(Detect):
    """Boxes in `image`; the outputs are (rows, grid, grid, boxes × 5 + classes).

    A box is its centre in the cell from 0 to 1, the square roots of its width and height as shares of the
    image's, and how sure it is.
    """

    Options = YOLOOptions
    card = CARD

    def build(self) -> nn.Module:
        return YOLONet(self.shape.row["image"], self.shape.classes, self.options)

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        boxes, labels = self.targets(batch)
        said, sure, classes = self._parts(outputs)
        size = boxes.new_tensor([batch["image"].shape[3], batch["image"].shape[2]])
        wanted = centred(boxes / size.repeat(2))
        cell, inside = self._cells(wanted[..., :2])
        there = labels >= 0
        # Of each object, what its cell says: (rows, objects, boxes, 5) and (rows, objects, classes).
        rows = torch.arange(len(boxes), device=boxes.device)[:, None]
        own, own_classes = said[rows, cell], classes[rows, cell]
        overlap = iou(self._boxes(said)[rows, cell], (boxes / size.repeat(2))[:, :, None])[..., 0].detach()
        answering = overlap.argmax(2)
        own = own[rows, torch.arange(boxes.shape[1], device=boxes.device), answering]
        told = torch.cat([inside, wanted[..., 2:].clamp(min=0).sqrt()], -1)
        place = torch.where(there, (own - told).square().sum(2), 0.0).sum(1)
        kinds = F.one_hot(labels.clamp(min=0), self.shape.classes).to(classes.dtype)
        kind = torch.where(there, (own_classes - kinds).square().sum(2), 0.0).sum(1)
        # A box that answers for an object is to be as sure as it overlaps it, any other not at all. Where a
        # cell has several objects, for the one that it overlaps most.
        number = cell * self.options.boxes + answering
        best_overlap = torch.where(there, overlap.amax(2), -1.0)
        target = torch.full_like(sure.flatten(1), -1.0).scatter_reduce(1, number, best_overlap, "amax")
        missed = (sure.flatten(1) - target.clamp(min=0)).square()
        sureness = torch.where(target >= 0, missed, _NOTHING * missed).sum(1)
        metrics = {"loss_place": place.mean(), "loss_class": kind.mean(), "loss_sure": sureness.mean()}
        return Loss((_PLACE * place + kind + sureness).mean(), metrics)

    def detections(self, outputs: Tensor, batch: Batch) -> Detections:
        height, width = batch["image"].shape[-2:]
        said, sure, classes = self._parts(outputs.float())
        boxes = self._boxes(said).flatten(1, 2) * said.new_tensor([width, height, width, height])
        scores = (sure[..., None] * classes[:, :, None]).clamp(0, 1).flatten(1, 2)
        found = best(clip(boxes, height, width), scores, score=0.02, overlap=0.5, candidates=300, most=100)
        return Detections(*found)

    def _parts(self, outputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Boxes (rows, cells, boxes, 4), how sure they are (rows, cells, boxes), and (rows, cells,
        classes)."""
        outputs = outputs.flatten(1, 2)
        rows, cells, _ = outputs.shape
        boxes = outputs[..., : self.options.boxes * 5].reshape(rows, cells, -1, 5)
        return boxes[..., :4], boxes[..., 4], outputs[..., self.options.boxes * 5 :]

    def _cells(self, centre: Tensor) -> tuple[Tensor, Tensor]:
        """The number of the cell in which each centre (…, 2) lies, and where in it, from 0 to 1: (…, 2)."""
        grid = self.options.grid
        place = (centre * grid).clamp(min=0)
        corner = place.floor().clamp(max=grid - 1)
        number = corner[..., 1] * grid + corner[..., 0]
        return number.long(), place - corner

    def _boxes(self, said: Tensor) -> Tensor:
        """What cells say as corners, in shares of the image's sides; (rows, cells, boxes, 4)."""
        grid = self.options.grid
        number = torch.arange(grid * grid, device=said.device)
        corner = torch.stack([number % grid, number // grid], 1)[:, None]
        return cornered(torch.cat([(said[..., :2] + corner) / grid, said[..., 2:].square()], -1))


class YOLONet(nn.Module):
    """From images (rows, *shape) to (rows, grid, grid, boxes × 5 + classes)."""

    def __init__(self, shape: tuple[int, ...], classes: int, options: YOLOOptions) -> None:
        super().__init__()
        channels, height, width = shape
        self.outputs = (options.grid, options.grid, options.boxes * 5 + classes)
        self.stages = Stages((channels, *options.channels))
        for _ in options.channels:
            height, width = -(-height // 2), -(-width // 2)
        outputs = options.grid**2 * self.outputs[2]
        self.hidden = nn.Linear(options.channels[-1] * height * width, options.hidden)
        self.head = nn.Linear(options.hidden, outputs)

    def forward(self, image: Tensor) -> Tensor:
        x = self.stages(image)[-1].flatten(1)
        said: Tensor = self.head(F.leaky_relu(self.hidden(x), 0.1))
        return said.view(len(x), *self.outputs)
