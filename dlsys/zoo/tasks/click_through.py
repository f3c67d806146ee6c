"""What all models of clicks share: binary cross-entropy, and the area under the ROC curve."""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.spec.task import CLICK_THROUGH
from dlsys.zoo import metrics
from dlsys.zoo.workload import Batch, Carry, Loss, Workload, rows_of


class ClickThrough(Workload):
    """Logits (rows,) from `dense` float32 (rows, numbers) and `sparse` int64 (rows, columns).

    `label` is float32 (rows,), 1 for a click.
    """

    task = CLICK_THROUGH

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch["dense"], batch["sparse"]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(F.binary_cross_entropy_with_logits(outputs, batch["label"]))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        loss = self.objective(outputs, batch).value * rows_of(batch)
        return {"loss": loss, "auc": metrics.auc_histogram(outputs, batch["label"])}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / float(sums["rows"]), "auc": metrics.auc(sums["auc"])}
