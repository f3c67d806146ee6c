"""Box regression (Szegedy, Toshev and Erhan 2013, Deep Neural Networks for Object Detection): where the one
object of an image is, as four numbers that are learnt by their squared error."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.spec.task import LOCATE
from dlsys.zoo.average_precision import Detections, Objects
from dlsys.zoo.drawing import outlined
from dlsys.zoo.layers.blocks import Stages
from dlsys.zoo.layers.boxes import centred, cornered, iou
from dlsys.zoo.vision.box_regression.card import CARD, BoxRegressionOptions
from dlsys.zoo.workload import Batch, Carry, Loss, Sample, Workload, rows_of


class BoxRegression(Workload):
    """The first object of each `image`: (rows, 4), its centre x and y, width and height as shares of the
    image's sides. What it is of is not asked; a row without an object counts for nothing.
    """

    Options = BoxRegressionOptions
    card = CARD
    task = LOCATE

    def build(self) -> nn.Module:
        channels, height, width = self.shape.row["image"]
        options = self.options
        for _ in options.channels:
            height, width = -(-height // 2), -(-width // 2)
        return BoxNet(channels, height * width, options)

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch["image"]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        boxes, there = _first(batch)
        missed = (outputs - centred(boxes / _sides(batch))).square().mean(1)
        return Loss(torch.where(there, missed, 0.0).mean())

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        boxes, there = _first(batch)
        found = cornered(outputs) * _sides(batch)
        overlap = iou(found[:, None], boxes[:, None])[:, 0, 0]
        return {
            "loss": self.objective(outputs, batch).value * rows_of(batch),
            "overlap": torch.where(there, overlap, 0.0).sum(),
            "objects": there.sum(),
        }

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {
            "loss": float(sums["loss"]) / float(sums["rows"]),
            "iou": float(sums["overlap"]) / max(1.0, float(sums["objects"])),
        }

    def pictures(self, model: nn.Module, batch: Batch, images: Tensor) -> Mapping[str, Sample]:
        boxes = (cornered(model(batch["image"])) * _sides(batch))[:, None]
        ones = torch.ones(boxes.shape[:2], device=boxes.device)
        found = Detections(boxes, ones, torch.zeros_like(ones, dtype=torch.int64))
        return {"boxes": outlined(images, found, 0.0, truth=Objects.of(batch))}


def _first(batch: Batch) -> tuple[Tensor, Tensor]:
    """The box of each row's first object, (rows, 4), and whether there is one: bool (rows,)."""
    return batch["boxes"][:, 0], batch["labels"][:, 0] >= 0


def _sides(batch: Batch) -> Tensor:
    """Width, height, width and height of the images."""
    height, width = batch["image"].shape[-2:]
    return batch["boxes"].new_tensor([width, height, width, height])


class BoxNet(nn.Module):
    """From images (rows, channels, height, width) to (rows, 4)."""

    def __init__(self, channels: int, places: int, options: BoxRegressionOptions) -> None:
        super().__init__()
        self.stages = Stages((channels, *options.channels))
        self.hidden = nn.Linear(options.channels[-1] * places, options.hidden)
        self.head = nn.Linear(options.hidden, 4)
        # Before it has seen anything, it says the middle of the image.
        nn.init.constant_(self.head.bias, 0.5)

    def forward(self, image: Tensor) -> Tensor:
        hidden = self.hidden(self.stages(image)[-1].flatten(1))
        box: Tensor = self.head(F.leaky_relu(hidden, 0.1))
        return box
