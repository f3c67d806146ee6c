"""Which rows of a table are for training, validation and the test, by a column of it or by its files."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np

from dlsys.data.features.cells import Cells
from dlsys.data.features.columns import Column
from dlsys.data.files import SHOWN, listed
from dlsys.data.split import RowSplit, split_given, split_groups, split_rows, split_times
from dlsys.errors import DataError
from dlsys.spec.data import LabelledTexts
from dlsys.spec.data.tables import ColumnsSection

# What parts may be called, by people and by Hugging Face's data sets.
PARTS = {"train": "train", "valid": "valid", "validation": "valid", "val": "valid", "test": "test"}


def deciding(cells: Cells, options: ColumnsSection | LabelledTexts) -> Column | None:
    """The column that decides which rows go where; None where chance does.

    Raises:
        DataError: there is none of the name that the job says.
    """
    if cells.parts is not None:
        return Column("", cells.parts, cells.at, typed=True)
    if options.split_by is None:
        return None
    said = options.said.get(options.split_by.column) if isinstance(options, ColumnsSection) else None
    return cells.column(options.split_by.column, None if said == "skip" else said)


def parts_of(
    options: ColumnsSection | LabelledTexts,
    column: Column | None,
    *,
    rows: int,
    name: str,
    labels: np.ndarray | None,
) -> tuple[RowSplit, tuple[str, ...]]:
    """The parts, and a sentence for the log where a column decides them.

    Args:
        options: the shares, the seed, and the way.
        column: what decides; None leaves it to chance.
        rows: how many there are.
        name: the table, as messages say it.
        labels: the class of each row, int64 (rows,).

    Raises:
        DataError: the column has cells from which it cannot be seen, or a part would be empty.
    """
    shares = {"valid": options.valid, "test": options.test}
    seed, by = options.split_seed, options.split_by
    if column is None or by is None:
        return split_rows(rows, **shares, seed=seed, name=name, labels=labels), ()
    if (gone := np.flatnonzero(column.missing)).size:
        places = [
            f"{column.at(row)}: column {column.name!r} decides the row's part, and is empty: fill it, or "
            "leave the row out"
            for row in gone[:SHOWN].tolist()
        ]
        raise DataError(listed(places, "\n", of=len(gone)))
    where = f"{name}: column {column.name!r}" if column.name else name
    (way,) = by.ways
    if way == "group":
        groups = column.coded[1]
        parts = split_groups(groups, **shares, seed=seed, name=where)
        train, valid, test = (f"{len(np.unique(groups[part])):,}" for part in parts)
        return parts, (_told(where, parts, f"of {train}, {valid} and {test} values"),)
    if way == "time":
        column = _moments(column)
        times = column.numbers()
        parts = split_times(times, **shares, name=where)
        firsts = [column.text(int(part[np.argmin(times[part])])) for part in parts if len(part)]
        return parts, (_told(where, parts, f"from {', '.join(firsts)} on"),)
    if way == "strata":
        numbers = not len(column.odd) and not column.is_named
        strata = np.unique(column.numbers(), return_inverse=True)[1] if numbers else column.coded[1]
        if labels is not None:
            strata = strata.astype(np.int64) * (int(labels.max()) + 1) + labels
        return split_rows(rows, **shares, seed=seed, name=name, labels=strata), ()
    parts = split_given(_given(column), valid=options.valid, seed=seed, name=where, labels=labels)
    return parts, (_told(where, parts, "as given"),)


def _told(where: str, parts: Sequence[np.ndarray], how: str) -> str:
    train, valid, test = (f"{len(part):,}" for part in parts)
    return f"{where}: {train} rows for training, {valid} for validation, {test} for the test, {how}"


def _moments(column: Column) -> Column:
    """A column of dates or numbers.

    Raises:
        DataError: it has cells that are neither.
    """
    if len(column.odd) == column.present and column.said is None:
        column = replace(column, said="date")
    if len(column.odd):
        raise DataError(column.odd_cells())
    return column


def _given(column: Column) -> np.ndarray:
    """The place of each row's part in `RowSplit`, int64 (rows,)."""
    names, codes = column.coded
    places = []
    for code, name in enumerate(names):
        if name.lower() not in PARTS:
            row = int(np.flatnonzero(codes == code)[0])
            raise DataError(
                f"{column.at(row)}: column {column.name!r} names the row's part, and {name!r} is none of "
                f"{', '.join(PARTS)}"
            )
        places.append(RowSplit._fields.index(PARTS[name.lower()]))
    found: np.ndarray = np.array(places, dtype=np.int64)[codes]
    return found


def untrained(name: str, classes: Sequence[str], labels: np.ndarray, parts: RowSplit) -> list[str]:
    """What is to be known of classes that no training row has, where a column or a file decides."""
    seen = np.bincount(labels[parts.train], minlength=len(classes))
    alone = [f"{name!r}" for name, count in zip(classes, seen, strict=True) if not count]
    return [f"{name}: no training row is of class {listed(alone, ', ')}"] if alone else []
