"""A plain torch model as a workload: a class or function that returns an `nn.Module`."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import WorkloadError
from dlsys.spec.rows import Shape
from dlsys.zoo.metrics import correct
from dlsys.zoo.workload import Batch, Carry, Loss, Workload, rows_of

# Fields that a model is not given.
_NO_INPUT = ("label", "target", "targets", "key")


class PlainModel(Workload):
    """Feeds the batch's first input field to a model and takes the loss that its labels call for.

    `label` of whole numbers: cross-entropy of logits (rows, classes), and accuracy. A float
    `label`: binary cross-entropy of logits (rows,) or (rows, 1), and accuracy. `target`: mean
    squared error.

    Args:
        factory: makes a new model.
        options: the factory's keyword arguments.
        shape: what the data source hands out.

    Raises:
        WorkloadError: the source has no input field, or neither `label` nor `target`.
    """

    def __init__(self, factory: Callable[..., nn.Module], options: Mapping[str, Any], shape: Shape) -> None:
        super().__init__(options, shape)
        inputs = [name for name in shape.row if name not in _NO_INPUT]
        if not inputs or not {"label", "target"} & set(shape.row):
            raise WorkloadError(
                "a plain model needs an input field and a label or target, this source has: "
                + ", ".join(shape.row),
                hint="write a dlsys.zoo.workload.Workload that says what to do with these fields",
            )
        self._factory = factory
        self._input = inputs[0]
        self.metrics = {"accuracy": "max"} if "label" in shape.row else {}  # type: ignore[misc]

    def build(self) -> nn.Module:
        model = self._factory(**self.options)
        if not isinstance(model, nn.Module):
            raise WorkloadError(f"{self._factory!r} must return an nn.Module, got {type(model).__name__}")
        return model

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch[self._input]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        if "label" not in batch:
            target = batch["target"]
            return Loss(F.mse_loss(outputs.reshape(target.shape), target))
        label = batch["label"]
        if label.is_floating_point():
            return Loss(F.binary_cross_entropy_with_logits(outputs.reshape(label.shape), label))
        return Loss(F.cross_entropy(outputs, label))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        sums = {"loss": self.objective(outputs, batch).value * rows_of(batch)}
        if "label" in batch:
            label = batch["label"]
            if label.is_floating_point():
                positive = outputs.reshape(label.shape) > 0
                sums["accuracy"] = (positive == (label > 0.5)).sum().to(torch.float64)
            else:
                sums["accuracy"] = correct(outputs, label)
        return sums
