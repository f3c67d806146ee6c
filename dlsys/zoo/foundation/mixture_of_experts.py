"""A mixture of experts (Shazeer et al. 2017, arXiv:1701.06538) that predicts a number."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.zoo.experts import MixtureOfExperts, Routing
from dlsys.zoo.foundation.cards import MIXTURE_OF_EXPERTS, MixtureOptions
from dlsys.zoo.workload import Batch, Carry, Loss, Workload


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


class Mixture(Workload):
    """Regression: `features` float32 (rows, features), `target` float32 (rows,).

    Trained is the squared error and `balance` times the gate's imbalance; measured, the error alone.
    """

    Options = MixtureOptions
    card = MIXTURE_OF_EXPERTS

    def build(self) -> nn.Module:
        return MixtureModel(self.options, self.shape.row["features"][0])

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[tuple[Tensor, Routing], Carry]:
        return model(batch["features"]), carry

    def objective(self, outputs: tuple[Tensor, Routing], batch: Batch) -> Loss:
        predicted, routing = outputs
        error = F.mse_loss(predicted, batch["target"])
        metrics = {"squared_error": error, "balance": routing.balance}
        return Loss(error + self.options.balance * routing.balance, metrics)

    def measure(self, outputs: tuple[Tensor, Routing], batch: Batch) -> dict[str, Tensor]:
        predicted, routing = outputs
        target = batch["target"]
        return {
            "loss": (predicted - target).square().sum(),
            "targets": target.sum(),
            "squares": target.square().sum(),
            "load": routing.load,
        }

    def summarize(self, sums: dict[str, Tensor]) -> dict[str, float]:
        rows, load = float(sums["rows"]), sums["load"].double()
        spread = float(sums["squares"]) - float(sums["targets"]) ** 2 / rows
        return {
            "loss": float(sums["loss"]) / rows,
            "r2": 1 - float(sums["loss"]) / spread if spread > 0 else 0.0,
            "load_cv": float(load.std(correction=0) / load.mean()),
            "dropped": 1 - float(load.sum()) / (rows * self.options.top),
        }

    def average(self, outputs: Sequence[tuple[Tensor, Routing]]) -> tuple[Tensor, Routing]:
        return torch.stack([predicted for predicted, _ in outputs]).mean(0), outputs[-1][1]
