"""Tables that users' functions return."""

from __future__ import annotations

from functools import partial
from typing import Any

import pyarrow as pa

from dlsys.data.features.cells import Cells


def is_table(found: Any) -> bool:
    """Whether it is a table of Arrow's, pandas' or Ray's, or of anyone who hands out Arrow's streams."""
    return isinstance(found, pa.Table | pa.RecordBatch) or _module(found) in ("pandas", "polars", "ray")


def as_arrow(found: Any) -> pa.Table:
    """The table; a Ray data set is read whole."""
    if isinstance(found, pa.Table):
        return found
    if isinstance(found, pa.RecordBatch):
        return pa.Table.from_batches([found])
    if _module(found) == "ray":
        return pa.concat_tables(found.iter_batches(batch_size=None, batch_format="pyarrow"))
    if _module(found) == "pandas":
        return pa.Table.from_pandas(found, preserve_index=False)
    return pa.table(found)


def as_cells(found: Any, name: str) -> Cells:
    """Its cells, as a file's."""
    table = as_arrow(found)
    return Cells(name, table.column_names, table.columns, name, partial(_row, name), typed=True)


def _row(name: str, row: int) -> str:
    return f"{name}: row {row + 1}"


def _module(found: Any) -> str:
    return type(found).__module__.partition(".")[0]
