"""What all segmenters share: the loss of a row's pixels, overlaps of classes, and pictures of both."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.errors import UsageError
from dlsys.spec.rows import Shape
from dlsys.spec.task import SEGMENT
from dlsys.zoo.confusion import TABLE, counted
from dlsys.zoo.objective import cross_entropy
from dlsys.zoo.workload import Batch, Carry, Loss, Sample, Workload, rows_of


class Segment(Workload):
    """One of `shape.classes` classes for each pixel (voxel, point of a scan) in `mask`, int64 (rows, …); −1
    where a pixel does not count. The model gives logits (rows, classes, …) of the other field.

    The loss of a row is the mean over its pixels that count, and 0 if none does; that of a batch is the mean
    over rows: the same however they are shared out.

    Args:
        options: the checked `model:` section.
        shape: what the data source hands out.

    Raises:
        UsageError: the source has fewer than two classes.
    """

    task = SEGMENT

    def __init__(self, options: Any, shape: Shape) -> None:
        super().__init__(options, shape)
        self.input = next(name for name in shape.row if name in ("image", "volume", "scan"))
        if shape.classes < 2:
            raise UsageError(
                f"data: a segmenter needs pixels of at least 2 classes, this source has {shape.classes}"
            )

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch[self.input]), carry

    def learns_by(self, outputs: Tensor, mask: Tensor) -> Tensor:
        """The mean over rows of the loss, where the job says no `loss:`."""
        return cross_entropy(outputs, mask)

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss((self.loss or self.learns_by)(outputs, batch["mask"]))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        loss = self.objective(outputs, batch).value * rows_of(batch)
        return {"loss": loss, TABLE: counted(outputs, batch["mask"])}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / float(sums["rows"]), **overlaps(sums[TABLE])}

    def pictures(self, model: nn.Module, batch: Batch, images: Tensor) -> Mapping[str, Sample]:
        from dlsys.zoo.drawing import beside  # every run imports this file, and few draw

        outputs, _ = self.forward(model, batch, None)
        truth, found = batch["mask"], outputs.argmax(1)
        if images.dim() == 5:
            images, truth, found = _slices(images, truth, found)
        if self.input == "scan":
            images = 1 / (1 + images[:, 4:])  # by range, which stands last: what is near is bright
        return {"segmentation": beside(images, truth, found)}


def overlaps(table: Tensor) -> dict[str, float]:
    """The figures of all pixels of a split together.

    A class that is nowhere and was found nowhere says nothing, and is in no mean; one that was found where
    there is none has 0. `dice` is left out where only the first class is left.

    Args:
        table: (classes, classes), pixels of each class down, what they were taken for across.
    """
    right, true, said = table.diagonal(), table.sum(1), table.sum(0)
    there = (true + said) > 0
    overlap = right[there] / (true + said - right)[there]
    dice = 2 * right[1:][there[1:]] / (true + said)[1:][there[1:]]
    figures = {
        "pixel_accuracy": float(right.sum() / table.sum()),
        "miou": float(overlap.mean()),
        "worst_iou": float(overlap.min()) if len(overlap) else float("nan"),
    }
    return {**figures, "dice": float(dice.mean())} if len(dice) else figures


def _slices(volumes: Tensor, truth: Tensor, found: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """The slice of each volume with the most of what is not ground: (N, 1, H, W) in 0…1, and of its masks."""
    rows = torch.arange(len(volumes))
    most = (truth > 0).sum((2, 3)).argmax(1)
    seen = volumes[:, :1].clamp(-2, 2) / 4 + 0.5
    return seen[rows, :, most], truth[rows, most], found[rows, most]
