"""The cells of a table as its file has them, before anything is made of them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

import pyarrow as pa
import pyarrow.compute as pc


@dataclass(frozen=True)
class Cells:
    """A table as it was read.

    Attributes:
        path: the file, as messages say it.
        header: the columns' names; no two need differ.
        columns: their cells, in the same order.
        head: the place of the header, for messages.
        at: the place of a row, from 0, for messages.
        typed: whether the columns have types of their own; else all are text without blanks around.
    """

    path: str
    header: Sequence[str]
    columns: Sequence[pa.ChunkedArray]
    head: str
    at: Callable[[int], str]
    typed: bool

    def __len__(self) -> int:
        return len(self.columns[0]) if self.columns else 0


def trimmed(column: pa.ChunkedArray) -> pa.ChunkedArray:
    """Text without blanks around."""
    return pc.utf8_trim_whitespace(column)
