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
    n_valid, n_test = _counts(rows, valid, test, name)
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


def _counts(rows: int, valid: float, test: float, name: str) -> tuple[int, int]:
    """How many rows are for validation and for the test."""
    n_valid = max(1, round(valid * rows))
    n_test = max(1, round(test * rows)) if test else 0
    if n_valid + n_test >= rows:
        raise DataError(
            f"{name}: {rows} rows are too few: {n_valid} for validation and {n_test} for the test "
            "leave none to train on",
            hint="give more rows, or lower data.valid and data.test",
        )
    return n_valid, n_test


def split_groups(groups: np.ndarray, *, valid: float, test: float, seed: int, name: str) -> RowSplit:
    """Splits rows at random so that all rows of a group lie in one part.

    Groups are taken in a random order. Each goes to validation if it still fits into that share of rows, else
    to the test, else to training; where none fits, a part gets the smallest group that is left.

    Args:
        groups: the group of each row, int64 (rows,), each of 0 … its maximum at least once.
        valid, test, seed, name: as `split_rows` has them.

    Raises:
        DataError: there are fewer groups than parts.
    """
    sizes = np.bincount(groups)
    wanted = _counts(len(groups), valid, test, name)
    parts = 1 + sum(count > 0 for count in wanted)
    if len(sizes) < parts:
        raise DataError(
            f"{name}: {len(sizes)} group{'s' * (len(sizes) != 1)} cannot be shared by {parts} parts",
            hint="give rows of more groups, or say data.test: 0",
        )
    part_of = np.zeros(len(sizes), dtype=np.int64)
    order = np.random.default_rng(seed).permutation(len(sizes)).tolist()
    for part, room in enumerate(wanted, start=1):
        if not room:
            continue
        most = len(order) - (parts - part)  # each later part, and training, needs one
        taken: list[int] = []
        for group in order:
            if sizes[group] <= room and len(taken) < most:
                taken.append(group)
                room -= sizes[group]
            if not room:
                break
        taken = taken or [min(order, key=lambda group: sizes[group])]
        part_of[taken] = part
        order = [group for group in order if not part_of[group]]
    return RowSplit(*(np.flatnonzero(part_of[groups] == part) for part in range(3)))


def split_times(times: np.ndarray, *, valid: float, test: float, name: str) -> RowSplit:
    """The earliest rows for training, later ones for validation, the last ones for the test.

    Rows of one moment stay together: where a boundary falls into a moment, all of it belongs to the later
    part, so that nothing is trained on that is as late as what it is measured on.

    Args:
        times: the time of each row, float64 (rows,).
        valid, test, name: as `split_rows` has them; what they leave is the most that is trained on.

    Raises:
        DataError: a part would be empty.
    """
    rows = len(times)
    n_valid, n_test = _counts(rows, valid, test, name)
    order = np.argsort(times, kind="stable")
    ordered = times[order]
    first_valid = int(np.searchsorted(ordered, ordered[rows - n_valid - n_test]))
    first_test = int(np.searchsorted(ordered, ordered[rows - n_test])) if n_test else rows
    if not 0 < first_valid < first_test:
        raise DataError(
            f"{name}: {'training' if not first_valid else 'validation'} would be empty: rows of one moment "
            f"stay together, and {rows} rows have {len(np.unique(times))} different moments",
            hint="change data.valid and data.test, or split by another column",
        )
    parts = np.split(order, [first_valid, first_test])
    return RowSplit(*map(np.sort, parts))


def split_given(
    given: np.ndarray, *, valid: float, seed: int, name: str, labels: np.ndarray | None
) -> RowSplit:
    """Rows whose part is known. Where none is for validation, some of those to train on are.

    Args:
        given: the place of each row's part in `RowSplit`, int64 (rows,).
        valid, seed, name, labels: as `split_rows` has them.

    Raises:
        DataError: none is to train on.
    """
    parts = RowSplit(*(np.flatnonzero(given == part) for part in range(3)))
    if not len(parts.train):
        raise DataError(f"{name}: no row is for training")
    if len(parts.valid):
        return parts
    train = parts.train
    inner = None if labels is None else labels[train]
    cut = split_rows(len(train), valid=valid, test=0, seed=seed, name=name, labels=inner)
    return RowSplit(train[cut.train], train[cut.valid], parts.test)


def few_of_each(parts: RowSplit, labels: np.ndarray, count: int, *, seed: int, name: str) -> RowSplit:
    """The split with `count` random rows of each class to train on, and all others' parts as they are.

    Args:
        labels: class of each row, int64 (rows,).
        seed, name: as `split_rows` has them.

    Raises:
        DataError: a class has fewer.
    """
    order = np.random.default_rng(seed).permutation(parts.train)
    kept = []
    for label in np.unique(labels):
        of_class = order[labels[order] == label]
        if len(of_class) < count:
            raise DataError(
                f"{name}: data.per_class: {count} rows of each class are wanted, and class {label} has "
                f"{len(of_class)} to train on",
                hint="ask for fewer, or lower data.valid and data.test",
            )
        kept.append(of_class[:count])
    return parts._replace(train=np.sort(np.concatenate(kept)))


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
