"""What all classifiers share: cross-entropy, accuracy, and the mean of predicted distributions."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import UsageError
from dlsys.spec.rows import Shape
from dlsys.spec.task import CLASSIFY
from dlsys.zoo.metrics import correct
from dlsys.zoo.workload import Batch, Carry, Loss, Workload, log_mean_probability, rows_of


class Classify(Workload):
    """One of `shape.classes` classes in `label`; the model gives logits (rows, classes) of `image`, `clip` or
    `features`.

    Args:
        options: the checked `model:` section.
        shape: what the data source hands out.

    Raises:
        UsageError: the source has no classes.
    """

    task = CLASSIFY

    def __init__(self, options: Any, shape: Shape) -> None:
        super().__init__(options, shape)
        self.input = next((name for name in ("image", "clip") if name in shape.row), "features")
        if shape.classes < 2:
            raise UsageError(
                f"data: a classifier needs labels of at least 2 classes, this source has {shape.classes}"
            )

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch[self.input]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss((self.loss or self.learns_by)(outputs, batch.get("mixed", batch["label"])))

    def learns_by(self, outputs: Tensor, label: Tensor) -> Tensor:
        """The mean loss over rows, where the job says no `loss:`."""
        return F.cross_entropy(outputs, label)

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        loss = self.objective(outputs, batch).value * rows_of(batch)
        return {"loss": loss, "accuracy": correct(outputs, batch["label"])}

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        return log_mean_probability(outputs)
