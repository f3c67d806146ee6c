"""What all regressions share: the squared error, and the share of the targets' variance explained."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.spec.task import REGRESS
from dlsys.zoo.workload import Batch, Carry, Loss, Workload, rows_of


class Regress(Workload):
    """Predictions (rows,) of `target`, float32 (rows,), from `features`, float32 (rows, features).

    A model that gives more than predictions overrides `forward`, `objective` and `measure`, and calls
    these with its predictions.
    """

    task = REGRESS

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch["features"]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss((self.loss or F.mse_loss)(outputs, batch["target"]))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        target = batch["target"]
        errors = (outputs - target).square().sum()
        loss = errors if self.loss is None else self.loss(outputs, target) * rows_of(batch)
        return {"loss": loss, "errors": errors, "targets": target.sum(), "squares": target.square().sum()}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        rows, error = float(sums["rows"]), float(sums["errors"])
        spread = float(sums["squares"]) - float(sums["targets"]) ** 2 / rows
        return {"loss": float(sums["loss"]) / rows, "r2": 1 - error / spread if spread > 0 else 0.0}
