"""Deep learning recommendation model (Naumov et al. 2019, arXiv:1906.00091)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.spec.card import Shape
from dlsys.zoo import metrics
from dlsys.zoo.recommend.cards import DLRM as CARD
from dlsys.zoo.recommend.cards import DLRMOptions, dlrm_widths
from dlsys.zoo.workload import Batch, Carry, Loss, Workload, rows_of


def _perceptron(widths: Sequence[int]) -> list[nn.Module]:
    """Affine layers with a ReLU behind each."""
    return [part for i, o in pairwise(widths) for part in (nn.Linear(i, o), nn.ReLU())]


def _table(values: int, dim: int) -> nn.Embedding:
    table = nn.Embedding(values, dim)
    # As in the paper's code; torch's N(0, 1) would drown the dense part in the products.
    nn.init.uniform_(table.weight, -(values**-0.5), values**-0.5)
    return table


class DLRMModel(nn.Module):
    """Logits (rows,) from numbers (rows, numbers) and categories (rows, columns)."""

    pairs: Tensor

    def __init__(self, options: DLRMOptions, shape: Shape) -> None:
        super().__init__()
        bottom, top = dlrm_widths(options, shape)
        self.bottom = nn.Sequential(*_perceptron(bottom))
        self.tables = nn.ModuleList(_table(values, options.embedding_dim) for values in shape.cardinalities)
        self.top = nn.Sequential(*_perceptron(top)[:-1])
        vectors = len(shape.cardinalities) + 1
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, -1), persistent=False)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        number = self.bottom(dense)
        vectors = [number, *(table(sparse[:, i]) for i, table in enumerate(self.tables))]
        stacked = torch.stack(vectors, dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        pairs = products[:, self.pairs[0], self.pairs[1]]
        logits: Tensor = self.top(torch.cat([number, pairs], dim=1))
        return logits.squeeze(1)


class DLRM(Workload):
    """Clicks: `dense` float32 (rows, numbers), `sparse` int64 (rows, columns), `label` float32."""

    Options = DLRMOptions
    card = CARD

    def build(self) -> nn.Module:
        return DLRMModel(self.options, self.shape)

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch["dense"], batch["sparse"]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(F.binary_cross_entropy_with_logits(outputs, batch["label"]))

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        loss = self.objective(outputs, batch).value * rows_of(batch)
        return {"loss": loss, "auc": metrics.auc_histogram(outputs, batch["label"])}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        return {"loss": float(sums["loss"]) / float(sums["rows"]), "auc": metrics.auc(sums["auc"])}
