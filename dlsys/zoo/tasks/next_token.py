"""What all models of the next token share: cross-entropy over all places of a row, and bits."""

from __future__ import annotations

import math
from collections.abc import Sequence

from torch import Tensor
from torch.nn import functional as F

from dlsys.spec.task import NEXT_TOKEN
from dlsys.zoo.workload import Batch, Loss, Workload, log_mean_probability


class NextToken(Workload):
    """Logits (rows, tokens, vocabulary) of `targets`, int64 (rows, tokens), from `tokens` alike.

    The loss is in nats a token, the mean over a row's tokens and over rows.
    """

    task = NEXT_TOKEN

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        # All rows have as many tokens, so the mean over both is the mean of rows' means.
        return Loss(F.cross_entropy(outputs.flatten(0, 1), batch["targets"].flatten()))

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        loss = float(sums["loss"]) / float(sums["rows"])
        return {"loss": loss, "bits_per_char": loss / math.log(2)}

    def average(self, outputs: Sequence[Tensor]) -> Tensor:
        return log_mean_probability(outputs)
