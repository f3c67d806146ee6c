"""What classes are taken for: counts, and the figures that they give where classes are uneven."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from dlsys.zoo.metrics import auc, auc_histogram
from dlsys.zoo.workload import Batch

# With more, nobody reads the table.
MOST = 50
# Classes are uneven when the largest has this times as many training rows as the mean one.
_UNEVEN = 1.5
# The name of the table among a split's sums.
TABLE = "confusion"


def counted(outputs: Tensor, labels: Tensor) -> Tensor:
    """Labels of each class by what they were taken for: float64 (classes, classes).

    Args:
        outputs: logits (rows, classes, …).
        labels: int64 (rows, …); negative ones do not count.
    """
    classes = outputs.shape[1]
    counts = labels >= 0
    places = labels[counts] * classes + outputs.detach().argmax(1)[counts]
    return torch.bincount(places, minlength=classes**2).to(torch.float64).view(classes, classes)


class Confusion:
    """How many rows of each class were taken for which, as sums over rows.

    Where the training rows' classes are uneven, so that accuracy says little: `balanced_accuracy`, the
    mean of the classes' recalls; `macro_f1`, the mean of their F1; of two classes `auc`. As scikit-learn's
    `balanced_accuracy_score`, `f1_score(average="macro")` and `roc_auc_score` have them.

    Args:
        counts: training rows of each class.
        taken: names that others have.
    """

    def __init__(self, counts: Sequence[int], taken: Collection[str] = ()) -> None:
        self._classes = len(counts)
        uneven = max(counts) * len(counts) >= _UNEVEN * sum(counts)
        names = ["balanced_accuracy", "macro_f1", *(["auc"] if len(counts) == 2 else [])] if uneven else []
        self.modes: dict[str, Literal["max", "min"]] = {name: "max" for name in names if name not in taken}

    def sums(self, outputs: Tensor, batch: Batch) -> dict[str, Tensor]:
        """Of one batch: float64 (classes, classes), of true ones and of what they were taken for.

        Args:
            outputs: logits (rows, classes, …).
            batch: with a `label`, int64 (rows, …).
        """
        labels = batch["label"]
        found = {TABLE: counted(outputs, labels)}
        if "auc" in self.modes and outputs.dim() == 2:
            found[f"{TABLE}:auc"] = auc_histogram(outputs[:, 1] - outputs[:, 0], labels)
        return found

    def owns(self, name: str) -> bool:
        """Whether a sum is of these."""
        return name.partition(":")[0] == TABLE

    def results(self, sums: Mapping[str, Tensor]) -> dict[str, float]:
        """The figures, from the sums over a whole split."""
        table = sums[TABLE]
        right, true, said = table.diagonal(), table.sum(1), table.sum(0)
        there, seen = true > 0, (true + said) > 0
        known = {
            "balanced_accuracy": float((right[there] / true[there]).mean()),
            "macro_f1": float((2 * right[seen] / (true + said)[seen]).mean()),
        }
        if (histogram := sums.get(f"{TABLE}:auc")) is not None:
            known["auc"] = auc(histogram)
        return {name: known[name] for name in self.modes if name in known}


def of_classes(learnt: Mapping[str, Any], taken: Collection[str] = ()) -> Confusion | None:
    """That of a job whose data say how many rows their classes have; None where they are too many.

    Args:
        learnt: what was learnt from the data.
    """
    counts = learnt.get("target", {}).get("counts")
    return Confusion(counts, taken) if counts and len(counts) <= MOST else None


def table_of(sums: Mapping[str, Tensor]) -> Tensor | None:
    """The table among a split's sums; None where it was not counted, or is of more classes than anyone
    reads."""
    table = sums.get(TABLE)
    return table if table is not None and len(table) <= MOST else None
