"""A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538) that predicts a number."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn

from dlsys.zoo.foundation.mixture_of_experts.card import CARD, MixtureOptions
from dlsys.zoo.layers.experts import MixtureOfExperts, Routing
from dlsys.zoo.tasks.regress import Regress
from dlsys.zoo.workload import Batch, Loss


class MixtureModel(nn.Module):
    """Predictions (rows,) from features (rows, features); each row is a token."""

    def __init__(self, options: MixtureOptions, features: int) -> None:
        super().__init__()
        width = options.width
        self.embed = nn.Sequential(nn.Linear(features, width), nn.ReLU())
        self.mixture = MixtureOfExperts(
            options.experts,
            options.top,
            width,
            options.hidden,
            width,
            capacity=options.capacity,
            group=options.group,
        )
        self.head = nn.Linear(width, 1)

    def forward(self, features: Tensor) -> tuple[Tensor, Routing]:
        mixed, routing = self.mixture(self.embed(features))
        return self.head(mixed).squeeze(1), routing


class Mixture(Regress):
    """Regression by a model that also tells how rows were routed.

    Trained is the squared error and `balance` times the gate's imbalance; measured, the error alone.
    """

    Options = MixtureOptions
    card = CARD

    def build(self) -> nn.Module:
        return MixtureModel(self.options, self.shape.row["features"][0])

    def objective(self, outputs: Any, batch: Batch) -> Loss:
        predicted, routing = outputs
        error = super().objective(predicted, batch).value
        metrics = {"squared_error": error, "balance": routing.balance}
        return Loss(error + self.options.balance * routing.balance, metrics)

    def measure(self, outputs: Any, batch: Batch) -> dict[str, Tensor]:
        predicted, routing = outputs
        return {**super().measure(predicted, batch), "load": routing.load}

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        rows, load = float(sums["rows"]), sums["load"].double()
        return {
            **super().summarize(sums),
            "load_cv": float(load.std(correction=0) / load.mean()),
            "dropped": 1 - float(load.sum()) / (rows * self.options.top),
        }

    def average(self, outputs: Sequence[tuple[Tensor, Routing]]) -> tuple[Tensor, Routing]:
        return torch.stack([predicted for predicted, _ in outputs]).mean(0), outputs[-1][1]
