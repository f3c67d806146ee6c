"""The cells of a table as its file has them, before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc

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
