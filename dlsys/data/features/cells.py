"""The cells of a table as its file has them, before anything is made of them."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import accumulate

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from dlsys.data.features.arrays import arrow_of, texts_of
from dlsys.data.features.columns import Column, Kind
from dlsys.errors import DataError
from dlsys.registry import known


@dataclass(frozen=True)
class Cells:
    """A table as it was read.

    Attributes:
        path: the file, as messages say it.
        header: the columns' names; no two need differ.
        columns: their cells, in the same order.
        head: the place of the header, for messages.
        at: the place of a row, from 0, for messages.
        typed: whether the columns have types of their own; else all are text.
        decimal, thousands: how numbers are written in text.
        loose: whether text is as it was read into memory, maybe with blanks around.
        parts: which part each row is for, where there is a file for each.
    """

    path: str
    header: Sequence[str]
    columns: Sequence[pa.ChunkedArray]
    head: str
    at: Callable[[int], str]
    typed: bool
    decimal: str = "."
    thousands: str | None = None
    loose: bool = False
    parts: pa.ChunkedArray | None = None

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0

    def column(self, name: str, said: Kind | None = None) -> Column:
        """A column, which a job may say something of.

        Raises:
            DataError: there is none of this name, or nothing can be made of its type.
        """
        if name not in self.header:
            raise DataError(f"{self.path}: no column {name!r}.{known(name, self.header)}")
        cells = self.columns[list(self.header).index(name)]
        if self.typed:
            return Column(name, _plain(cells, self.path, name), self.at, typed=True, said=said)
        return Column(name, cells, self.at, self.decimal, self.thousands, said=said, loose=self.loose)


def joined(files: Mapping[str, Cells]) -> Cells:
    """The rows of several files as one table, in their order, each with its part.

    Args:
        files: by part, those to train on first; all have that one's columns, maybe others too.

    Raises:
        DataError: a column is not there, or of another type.
    """
    first, *others = files.values()
    for other in others:
        if gone := [name for name in first.header if name not in other.header]:
            raise DataError(
                f"{other.head}: no column {gone[0]!r}, which {first.path} has.{known(gone[0], other.header)}"
            )
    names = [str(place) for place in range(len(first.header))]  # two may have one name, which others refuse
    tables = [
        pa.table([file.columns[list(file.header).index(name)] for name in first.header], names)
        for file in files.values()
    ]
    paths = ", ".join(file.path for file in files.values())
    if any(other.typed != first.typed for other in others):
        raise DataError(f"{paths}: are files of different kinds, of which one knows its columns' types")
    try:
        table = pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{paths}: have columns of different types: {error}") from error
    sizes = [len(file) for file in files.values()]
    starts = list(accumulate(sizes[:-1], initial=0))

    def at(row: int) -> str:
        place = bisect_right(starts, row) - 1
        return list(files.values())[place].at(row - starts[place])

    parts = pa.chunked_array([texts_of(list(files)).take(arrow_of(np.repeat(np.arange(len(files)), sizes)))])
    return replace(first, columns=table.columns, at=at, parts=parts)


def _plain(cells: pa.ChunkedArray, place: str, name: str) -> pa.ChunkedArray:
    """A column of text, numbers, booleans or moments, without dictionaries."""
    kind = cells.type
    if pa.types.is_dictionary(kind):
        return _plain(pc.cast(cells, kind.value_type), place, name)
    if pa.types.is_null(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind):
        return pc.cast(cells, pa.string())
    number = pa.types.is_integer(kind) or pa.types.is_floating(kind) or pa.types.is_decimal(kind)
    moment = pa.types.is_timestamp(kind) or pa.types.is_date(kind)
    if not (number or moment or pa.types.is_boolean(kind) or pa.types.is_string(kind)):
        raise DataError(
            f"{place}: column {name!r} is of {kind}, from which no feature is made: "
            f"say columns: {{{name}: skip}}"
        )
    return cells
