"""Naive Bayes (Maron 1961): P(class | row) from counts, means and variances; as scikit-learn has it."""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.errors import DataError
from dlsys.zoo.foundation.naive_bayes.card import CARD, NaiveBayesOptions
from dlsys.zoo.solved import Solved
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.workload import Batch


class Bayes(nn.Module):
    """Logarithms of P(row, class), (rows, classes), of rows, flattened.

    What is kept are sums over all rows so far, in float64, by class.

    Attributes:
        count: rows, (classes,).
        first: sums of each number, or of what it counts as, (classes, numbers).
        second: sums of its square; of `gaussian` alone.
    """

    def __init__(self, options: NaiveBayesOptions, classes: int, numbers: int) -> None:
        super().__init__()
        self.options = options
        # Without any, what never occurred would be impossible.
        self.smoothing = max(options.smoothing, 1e-10)

        def sums(*shape: int) -> nn.Parameter:
            return nn.Parameter(torch.zeros(shape, dtype=torch.float64), requires_grad=False)

        self.count = sums(classes)
        self.first = sums(classes, numbers)
        if options.kind == "gaussian":
            self.second = sums(classes, numbers)

    def observed(self, rows: Tensor) -> Tensor:
        """What rows count as: float64 (rows, numbers)."""
        rows = rows.flatten(1).double()
        return (rows > self.options.threshold).double() if self.options.kind == "bernoulli" else rows

    def forward(self, rows: Tensor) -> Tensor:
        seen = self.observed(rows)
        # A class without rows has a probability of next to nothing, and before the first row all are alike.
        prior = (self.count / self.count.sum().clamp(min=1)).clamp(min=torch.finfo(torch.float64).tiny).log()
        evidence: Tensor = getattr(self, f"_{self.options.kind}")(seen)
        return (prior + evidence).to(rows.dtype)

    def _gaussian(self, seen: Tensor) -> Tensor:
        count = self.count.clamp(min=1)[:, None]
        mean = self.first / count
        variance = (self.second / count - mean**2).clamp(min=0)
        total = self.count.sum().clamp(min=1)
        overall = self.second.sum(0) / total - (self.first.sum(0) / total) ** 2
        largest = overall.max().clamp(min=0)
        # Numbers that are all the same have no variance to take a share of.
        variance = variance + self.options.least_variance * torch.where(largest > 0, largest, 1.0)
        precision = 1 / variance
        # Σ (x − m)² / v, as three products: nothing of (rows, classes, numbers) is held.
        squares = seen**2 @ precision.T - 2 * seen @ (mean * precision).T + (mean**2 * precision).sum(1)
        return -0.5 * (squares + (2 * math.pi * variance).log().sum(1))

    def _bernoulli(self, seen: Tensor) -> Tensor:
        yes = self.first + self.smoothing
        no = self.count[:, None] - self.first + self.smoothing
        both = (yes + no).log()
        return seen @ (yes.log() - both).T + (1 - seen) @ (no.log() - both).T

    def _multinomial(self, seen: Tensor) -> Tensor:
        smoothed = self.first + self.smoothing
        return seen @ (smoothed.log() - smoothed.sum(1, keepdim=True).log()).T


class NaiveBayes(Solved, Classify):
    """Logits (rows, classes) from `image` or `features`, flattened."""

    Options = NaiveBayesOptions
    card = CARD

    def build(self) -> Bayes:
        return Bayes(self.options, self.shape.classes, math.prod(self.shape.row[self.input]))

    def statistics(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        """
        Raises:
            DataError: `multinomial`, and a number is negative.
        """
        assert isinstance(model, Bayes)
        rows, label = batch[self.input], batch["label"]
        seen = model.observed(rows)
        if self.options.kind == "multinomial" and not seen.is_meta and bool((seen < 0).any()):
            raise DataError(
                f"{self.input}: kind: multinomial counts what occurs, and a row has {float(seen.min()):g}",
                hint="say kind: gaussian, or give counts: tables are standardised",
            )
        classes = F.one_hot(label, self.shape.classes).double()
        sums = {"count": classes.sum(0), "first": classes.T @ seen}
        if self.options.kind == "gaussian":
            sums["second"] = classes.T @ seen**2
        loss = self.objective(model(rows), batch).value * len(label)
        return {"loss": loss, **sums}

    def solve(self, model: nn.Module, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
        for name, total in model.named_parameters():
            total.add_(sums[name])
        return {}
