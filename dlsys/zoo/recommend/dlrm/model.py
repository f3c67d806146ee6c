"""Deep learning recommendation model (Naumov et al. 2019, arXiv:1906.00091)."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import torch
from torch import Tensor, nn

from dlsys.spec.rows import Shape
from dlsys.zoo.recommend.dlrm.card import CARD, DLRMOptions
from dlsys.zoo.tasks.click_through import ClickThrough


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
        vectors = len(shape.cardinalities) + 1
        bottom = (shape.row["dense"][0], *options.bottom, options.embedding_dim)
        top = (options.embedding_dim + vectors * (vectors - 1) // 2, *options.top, 1)
        self.bottom = nn.Sequential(*_perceptron(bottom))
        self.tables = nn.ModuleList(_table(values, options.embedding_dim) for values in shape.cardinalities)
        self.top = nn.Sequential(*_perceptron(top)[:-1])
        self.register_buffer("pairs", torch.tril_indices(vectors, vectors, -1), persistent=False)

    def forward(self, dense: Tensor, sparse: Tensor) -> Tensor:
        number = self.bottom(dense)
        vectors = [number, *(table(sparse[:, i]) for i, table in enumerate(self.tables))]
        stacked = torch.stack(vectors, dim=1)
        products = torch.bmm(stacked, stacked.transpose(1, 2))
        pairs = products[:, self.pairs[0], self.pairs[1]]
        logits: Tensor = self.top(torch.cat([number, pairs], dim=1))
        return logits.squeeze(1)


class DLRM(ClickThrough):
    Options = DLRMOptions
    card = CARD

    def build(self) -> nn.Module:
        return DLRMModel(self.options, self.shape)
