"""A table's columns as a job names them: what is learnt from, what it is, and which rows are left out."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
import pyarrow.compute as pc

from dlsys.data.features.arrays import arrow_of, texts_of
from dlsys.data.features.cells import Cells
from dlsys.data.features.columns import Column, Kind
from dlsys.data.features.parts import deciding
from dlsys.data.files import SHOWN, listed
from dlsys.errors import DataError
from dlsys.spec.data.tables import ColumnsSection

# What pandas' index is called in the header that it writes, and in one written from what it read.
_INDEX = ("", "Unnamed: 0", "__index_level_0__")


@dataclass(frozen=True)
class Table:
    """The columns of a table that a job names.

    Attributes:
        path: the file, as messages say it.
        columns: those to learn from, by name.
        target: the one to predict.
        deciding: what says which part each row is for; None where chance does.
        notes: what was left out, and why.
    """

    path: str
    columns: dict[str, Column]
    target: Column
    deciding: Column | None
    notes: tuple[str, ...]

    def __len__(self) -> int:
        return len(self.target)


def choose(cells: Cells, options: ColumnsSection) -> Table:
    """Keeps what a job names, without the rows that `missing` drops.

    Raises:
        DataError: names that the header has not, and cells that are missing where none may be.
    """
    names = _names(cells, options)
    chosen = {name: cells.column(name, options.said.get(name)).parsed() for name in names}
    chosen[options.target] = cells.column(options.target, options.said.get(options.target))
    notes = []
    for name in [name for name in names if name in _INDEX and name not in options.columns]:
        if _first_file(cells, chosen[name]).counts_rows:
            notes.append(
                f"{cells.path}: column {name!r} counts the rows, as pandas writes its index: left out"
            )
            del chosen[name]
    chosen, decides = _without_gaps(cells, chosen, deciding(cells, options), options)
    target = chosen.pop(options.target)
    return Table(cells.path, chosen, target, decides, tuple(notes))


def _first_file(cells: Cells, column: Column) -> Column:
    """A column without the rows of other files, where a running number starts anew."""
    if cells.parts is None:
        return column
    return replace(column, given=column.given.filter(pc.is_in(cells.parts, texts_of(["train"]))))


def _names(cells: Cells, options: ColumnsSection) -> list[str]:
    """The names of the feature columns."""
    problems = [
        f"{cells.head}: {text}" if option == "path" else f"{cells.head}: data.{option}: {text}"
        for option, text in options.misnamed(cells.header)
    ]
    if not len(cells) and not problems:
        raise DataError(f"{cells.path}: no rows under the header")
    skipped = {options.target, *(name for name, kind in options.said.items() if kind == "skip")}
    aside = options.split_by.set_aside if options.split_by else ""
    if aside and aside not in options.columns:
        skipped.add(aside)
    names = list(options.chosen) or [name for name in cells.header if name not in skipped]
    if not names:
        problems.append(f"{cells.head}: no column besides the target {options.target!r}")
    if problems:
        raise DataError("\n".join(problems))
    return names


def _without_gaps(
    cells: Cells, chosen: dict[str, Column], decides: Column | None, options: ColumnsSection
) -> tuple[dict[str, Column], Column | None]:
    gaps = np.zeros(len(cells), dtype=bool)
    if options.missing != "mean":
        for column in chosen.values():
            gaps |= column.missing
    elif (gone := chosen[options.target].missing).any():
        gaps = gone
    if options.missing != "drop":
        if gaps.any():
            raise DataError(_gaps(np.flatnonzero(gaps), chosen, options.target))
        return chosen, decides
    if decides is not None:
        gaps |= decides.missing
    if gaps.all():
        raise DataError(f"{cells.path}: every row has a missing cell: say missing: mean, or skip columns")
    if not gaps.any():
        return chosen, decides
    kept = {name: _kept(column, ~gaps) for name, column in chosen.items()}
    return kept, None if decides is None else _kept(decides, ~gaps)


def _kept(column: Column, mask: np.ndarray) -> Column:
    rows = np.flatnonzero(mask)

    def at(row: int) -> str:
        return column.at(int(rows[row]))

    return replace(column, given=column.given.filter(arrow_of(mask)), at=at)


def _gaps(rows: np.ndarray, chosen: dict[str, Column], target: str) -> str:
    """The first rows that lack a cell, and how many more there are."""
    problems = []
    for row in rows[:SHOWN].tolist():
        column = next(column for column in chosen.values() if column.missing[row])
        place, cell = column.at(row), column.cells[row].as_py()
        if column.name == target and not any(c.missing[row] for c in chosen.values() if c is not column):
            what, mend = f"the target {target!r}", "say missing: drop"
        else:
            what, mend = f"column {column.name!r}", "say missing: mean or drop"
        odd = f"is {cell!r}, which counts as missing" if cell else "is empty"
        problems.append(f"{place}: {what} {odd}; fill it, or {mend}")
    return listed(problems, "\n", of=len(rows))


def taken_for(table: Table, kinds: dict[str, Kind], classes: Sequence[str]) -> str:
    """A sentence about what was read."""
    said = []
    for kind, plural in (("number", "numbers"), ("date", "dates")):
        if names := [name for name, found in kinds.items() if found == kind]:
            said.append(f"{plural}: {listed(names, ', ')}")
    codes = [
        f"{name} ({len(table.columns[name].coded[0])})" for name, kind in kinds.items() if kind == "category"
    ]
    said += [f"categories: {listed(codes, ', ')}"] if codes else []
    said.append(f"target {table.target.name}: {f'{len(classes)} classes' if classes else 'a number'}")
    return f"{table.path}: {len(table):,} rows; {'; '.join(said)}"
