"""Which rows are for training, for validation and for the test."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits, TensorDataset
from dlsys.errors import DataError
from dlsys.spec.rows import Shape


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
            rows, give or take two.

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
    generator = np.random.default_rng(seed)
    order = generator.permutation(rows)
    if labels is not None:
        order = order[np.argsort(labels[order], kind="stable")]
    valid_places = _spread(n_valid, rows, generator)
    rest = np.delete(order, valid_places)
    test_places = _spread(n_test, len(rest), generator)
    return RowSplit(
        train=np.sort(np.delete(rest, test_places)),
        valid=np.sort(order[valid_places]),
        test=np.sort(rest[test_places]),
    )


def _spread(count: int, places: int, generator: np.random.Generator) -> np.ndarray:
    """Evenly spread numbers of 0…places − 1, from a random start (systematic sampling).

    Over rows in the order of their classes this takes each class's share. scikit-learn's
    train_test_split does too, but refuses a class of one row and more classes than places.
    """
    return (np.arange(count) * places + generator.integers(places)) // max(count, 1)


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
