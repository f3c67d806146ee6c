"""Which rows are for training, for validation and for the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits, TensorDataset
from dlsys.errors import DataError
from dlsys.zoo.card import Shape


class RowSplit(NamedTuple):
    """Row numbers, int64 and rising; disjoint, and together all rows. `test` may be empty."""

    train: np.ndarray
    valid: np.ndarray
    test: np.ndarray


def split_rows(
    rows: int, *, valid: float, test: float, seed: int, name: str, labels: np.ndarray | None = None
) -> RowSplit:
    """Splits rows at random, the same way for the same arguments.

    Args:
        rows: how many there are.
        valid: the share for validation; at least one row is taken.
        test: the share for the test; at least one row unless it is 0.
        seed: which rows go where.
        name: the source, as messages say it.
        labels: class of each row, shape (rows,); each part then gets every class's share of
            rows, give or take one.

    Raises:
        DataError: no row is left to train on.
    """
    n_valid = max(1, round(valid * rows))
    n_test = max(1, round(test * rows)) if test else 0
    if n_valid + n_test >= rows:
        raise DataError(
            f"{name}: {rows} rows are too few: {n_valid} for validation and {n_test} for the test "
            "leave none to train on",
            hint="give more rows, or lower data.valid and data.test",
        )
    order = np.random.default_rng(seed).permutation(rows)
    if labels is not None:
        # Systematic sampling: spread each class evenly over 0…1 and cut that line. Unlike
        # scikit-learn's train_test_split it takes classes of one row, and more classes than
        # validation rows.
        order = order[np.argsort(_place_in_class(labels[order]), kind="stable")]
    first, second = n_valid, n_valid + n_test
    return RowSplit(
        train=np.sort(order[second:]), valid=np.sort(order[:first]), test=np.sort(order[first:second])
    )


def _place_in_class(labels: np.ndarray) -> np.ndarray:
    """(i + ½) / n for the i-th of a class's n rows: float64, shape of `labels`."""
    _, classes, counts = np.unique(labels, return_inverse=True, return_counts=True)
    starts = np.cumsum(counts) - counts
    by_class = np.argsort(classes, kind="stable")
    nth = np.empty(len(labels))
    nth[by_class] = np.arange(len(labels)) - starts[classes[by_class]]
    return (nth + 0.5) / counts[classes]


def tensor_splits(fields: Mapping[str, Tensor], parts: RowSplit, shape: Shape) -> Splits:
    """The splits of rows held in memory."""

    def part(rows: np.ndarray) -> TensorDataset:
        index = torch.from_numpy(rows)
        return TensorDataset({name: tensor[index] for name, tensor in fields.items()})

    return Splits(
        train=part(parts.train),
        valid=part(parts.valid),
        test=part(parts.test) if len(parts.test) else None,
        shape=shape,
    )
