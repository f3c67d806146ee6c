"""What all that find clusters share: distances, and agreement with classes where rows have some."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor, nn

from dlsys.spec.rows import Shape
from dlsys.spec.task import CLUSTER
from dlsys.zoo.workload import Batch, Carry, Loss, Workload


class Cluster(Workload):
    """The model gives squared distances (rows, clusters) of `image` or `features`; a row belongs to the
    nearest cluster. The loss is the mean squared distance to it.

    Attributes:
        clusters: how many there are.
    """

    task = CLUSTER
    clusters: int

    def __init__(self, options: Any, shape: Shape) -> None:
        super().__init__(options, shape)
        self.input = "image" if "image" in shape.row else "features"

    @property
    def modes(self) -> dict[str, Literal["max", "min"]]:
        agreement = self.task.of_fields["label"] if "label" in self.shape.row else {}
        return super().modes | {name: metric.best for name, metric in agreement.items()}

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch[self.input]), carry

    def objective(self, outputs: Tensor, batch: Batch) -> Loss:
        return Loss(outputs.min(1).values.mean())

    def measure(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        nearest = outputs.min(1)
        sums = {"loss": nearest.values.double().sum()}
        if "label" in batch:
            classes = self.shape.classes
            places = nearest.indices * classes + batch["label"]
            counts = torch.bincount(places, minlength=self.clusters * classes)
            sums["together"] = counts.double().view(self.clusters, classes)
        return sums

    def summarize(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        found = {"loss": float(sums["loss"] / sums["rows"])}
        if (together := sums.get("together")) is not None:
            found |= {"ari": adjusted_rand(together), "nmi": normalized_information(together)}
        return found


def adjusted_rand(together: Tensor) -> float:
    """Hubert and Arabie 1985, as scikit-learn's `adjusted_rand_score`: 1 for the same partition, 0 for one by
    chance.

    Args:
        together: rows of each cluster and class, float64 (clusters, classes).
    """

    def pairs(counts: Tensor) -> Tensor:
        return (counts * (counts - 1) / 2).sum()

    both, first, second = pairs(together), pairs(together.sum(1)), pairs(together.sum(0))
    # Two partitions of one part, or of as many parts as rows, are the same.
    expected = first * second / pairs(together.sum()[None]).clamp(min=1)
    span = (first + second) / 2 - expected
    return 1.0 if span == 0 else float((both - expected) / span)


def normalized_information(together: Tensor) -> float:
    """Mutual information over the mean of both entropies, as scikit-learn's
    `normalized_mutual_info_score`; 1 where both are one part.

    Args:
        together: as `adjusted_rand` has it.
    """
    shares = together / together.sum()
    first, second = shares.sum(1), shares.sum(0)
    mutual = torch.special.xlogy(shares, shares).sum()
    mutual = mutual - torch.special.xlogy(first, first).sum() - torch.special.xlogy(second, second).sum()
    entropy = -(torch.special.xlogy(first, first).sum() + torch.special.xlogy(second, second).sum()) / 2
    return float((mutual / entropy).clamp(min=0)) if entropy > 0 else 1.0
