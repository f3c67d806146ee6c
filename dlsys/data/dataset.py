"""The protocol between a data source and the engine."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from torch import Tensor

from dlsys.registry import SOURCES
from dlsys.spec.rows import Shape

# One batch: field name to tensor, rows first. Besides the source's own fields, what the loader
# hands out always has `key`, int64 of shape (rows,): a number that only (seed, epoch, row)
# decide, for randomness that must not depend on how rows are spread over workers (`rowwise`).
Batch = dict[str, Tensor]


class Dataset(Protocol):
    """Rows that are fetched a batch at a time."""

    def __len__(self) -> int: ...

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        """The rows with these numbers (int64, shape (n,)), in this order, as CPU tensors of
        shape (n, …). Called from a background thread or in forked processes where the job says so."""
        ...


class TensorDataset:
    """Rows held in memory."""

    def __init__(self, fields: Mapping[str, Tensor]) -> None:
        lengths = {name: len(tensor) for name, tensor in fields.items()}
        assert len(set(lengths.values())) == 1, f"fields of unequal length: {lengths}"
        self.fields = dict(fields)

    def __len__(self) -> int:
        return len(next(iter(self.fields.values())))

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        index = torch.from_numpy(rows)
        return {name: tensor[index] for name, tensor in self.fields.items()}


class Chosen:
    """Some rows of a data set.

    Args:
        rows: the data set.
        chosen: numbers of its rows, int64.
    """

    def __init__(self, rows: Dataset, chosen: np.ndarray) -> None:
        self._rows, self.chosen = rows, chosen

    def __len__(self) -> int:
        return len(self.chosen)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        return self._rows.batch(self.chosen[rows])


@dataclass(frozen=True)
class Splits:
    """A source's rows. The test set is touched once, when training is over.

    Attributes:
        train, valid: never empty.
        test: None where the source has none.
        shape: what a row looks like.
        scaling: what is done last to each batch, of any part; None leaves it.
        notes: sentences for the log (skipped files, say).
        learnt: what was learnt from the training rows that other rows need before a model can read them,
            as JSON: means, categories, the names of classes.
    """

    train: Dataset
    valid: Dataset
    test: Dataset | None
    shape: Shape
    notes: tuple[str, ...] = ()
    learnt: Mapping[str, Any] = field(default_factory=dict)
    scaling: Callable[[Batch], Batch] | None = None


def load(options: Any, folder: Path) -> Splits:
    """Loads the source that a job's `data:` section names.

    Args:
        options: a section of `dlsys.spec.data`.
        folder: where relative paths start: the job file's folder.

    Raises:
        DataError: a file is missing or damaged; the message names file, place and rule.
    """
    source = SOURCES.load(options.registered)
    splits: Splits = source(options, folder)
    return splits
