"""k-means (Lloyd 1982), or in mini-batches (Sculley 2010, doi:10.1145/1772690.1772862).

Both begin as k-means++ does (Arthur and Vassilvitskii 2007, "The Advantages of Careful Seeding").
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from dlsys.data import rowwise
from dlsys.spec.rows import Shape
from dlsys.zoo.foundation.k_means.card import CARD, KMeansOptions
from dlsys.zoo.solved import Solved
from dlsys.zoo.tasks.cluster import Cluster
from dlsys.zoo.workload import Batch

# A row's random numbers that are this file's own.
_CHOICE = 40


class Means(nn.Module):
    """Squared distances (rows, clusters) of rows, flattened, to the means of the best start.

    Attributes:
        means: (starts, clusters, numbers).
        rows: how many each mean is of, (starts, clusters).
        chosen: how many means of each start there are yet; to the others every row is infinitely far.
        best: the start whose rows were nearest to their means when that was last measured.
    """

    chosen: Tensor
    best: Tensor

    def __init__(self, starts: int, clusters: int, numbers: int) -> None:
        super().__init__()
        self.means = nn.Parameter(torch.zeros(starts, clusters, numbers), requires_grad=False)
        self.rows = nn.Parameter(torch.zeros(starts, clusters), requires_grad=False)
        self.register_buffer("chosen", torch.zeros((), dtype=torch.int64))
        self.register_buffer("best", torch.zeros((), dtype=torch.int64))

    def forward(self, rows: Tensor) -> Tensor:
        best = self.means.index_select(0, self.best[None])[0]
        return self._distances(rows.flatten(1), best)

    def of_all_starts(self, rows: Tensor) -> Tensor:
        """The same to the means of all starts, (rows, starts, clusters)."""
        found = self._distances(rows.flatten(1), self.means.flatten(0, 1))
        return found.view(-1, *self.rows.shape)

    def _distances(self, rows: Tensor, means: Tensor) -> Tensor:
        # Near 0, or |x|² − 2x·m + |m|² would be a small difference of large numbers.
        middle = means.mean(0)
        rows, means = rows - middle, means - middle
        distances = (rows**2).sum(1, keepdim=True) - 2 * rows @ means.T + (means**2).sum(1)
        place = torch.arange(len(means), device=rows.device) % self.rows.shape[1]
        return distances.clamp(min=0).masked_fill(place >= self.chosen.clamp(min=1), math.inf)


class KMeans(Solved, Cluster):
    """
    Args:
        options: the checked `model:` section.
        shape: what the data source hands out.
    """

    Options = KMeansOptions
    card = CARD
    gathered = frozenset({"candidate"})

    def __init__(self, options: Any, shape: Shape) -> None:
        super().__init__(options, shape)
        self.clusters: int = options.clusters

    def build(self) -> Means:
        return Means(self.options.starts, self.clusters, math.prod(self.shape.row[self.input]))

    def statistics(self, model: nn.Module, batch: Batch) -> dict[str, Tensor]:
        assert isinstance(model, Means)
        rows = batch[self.input].flatten(1)
        nearest = model.of_all_starts(rows).min(2)
        losses = nearest.values.double().sum(0)
        sums = {"loss": losses.index_select(0, model.best[None])[0], "losses": losses}
        # Where it is only counted (the meta device), the steps that move means are the usual ones.
        if not model.chosen.is_meta and model.chosen < self.clusters:
            weights = nearest.values if model.chosen else torch.ones_like(nearest.values)
            return {**sums, "candidate": _candidates(rows, batch["key"], weights)}
        belongs = F.one_hot(nearest.indices, self.clusters).double()
        return {**sums, "rows": belongs.sum(0), "sum": torch.einsum("nsk,nd->skd", belongs, rows.double())}

    def solve(self, model: nn.Module, sums: Mapping[str, Tensor]) -> Mapping[str, float]:
        assert isinstance(model, Means)
        model.best.copy_(sums["losses"].argmin())
        if (candidates := sums.get("candidate")) is not None:
            winners = candidates[candidates[:, :, 0].argmin(0), torch.arange(len(model.means))]
            model.means[:, model.chosen] = winners[:, 1:].to(model.means)
            model.chosen.add_(1)
            return {"moved": math.inf}
        rows = sums["rows"]
        total = rows.clone()
        if self.options.update == "mini-batch":
            total += model.rows.double()
        # The mean of all rows moves towards that of the new ones; without a new one it stays.
        towards = sums["sum"] / rows.clamp(min=1)[..., None] - model.means.double()
        step = (rows / total.clamp(min=1))[..., None] * towards * (rows > 0)[..., None]
        model.means.add_(step.to(model.means))
        model.rows.copy_(total)
        return {"moved": float(step.norm(dim=2).max())}


def _candidates(rows: Tensor, keys: Tensor, weights: Tensor) -> Tensor:
    """For each start, the row that wins a race among all of these, behind its time in it:
    float64 (1, starts, 1 + numbers).

    Times are exponential, of rates `weights` (rows, starts): so the first of any rows is one of them with a
    probability in proportion to its weight (k-means++: the squared distance to the nearest mean), whoever
    runs the race.
    """
    chance = rowwise.uniform(keys, weights.shape[1], stream=_CHOICE).double()
    times = (-torch.log1p(-chance) / weights.double()).nan_to_num(nan=math.inf)
    first = times.min(0)
    return torch.cat([first.values[:, None], rows[first.indices].double()], 1)[None]
