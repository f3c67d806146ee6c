"""Tables that users' functions return."""

from __future__ import annotations

import logging
import tempfile
from contextlib import ExitStack
from functools import partial
from typing import Any

import numpy as np
import pyarrow as pa

from dlsys.data.features.cells import Cells
from dlsys.errors import DataError
from dlsys.paths import cache


def is_table(found: Any) -> bool:
    """Whether it is a table of Arrow's, pandas' or Ray's, or of anyone who hands out Arrow's streams."""
    return isinstance(found, pa.Table | pa.RecordBatch) or _module(found) in ("pandas", "polars", "ray")


def as_arrow(found: Any) -> pa.Table:
    """The table; a Ray data set is read whole, into a file that is mapped."""
    if isinstance(found, pa.Table):
        return found
    if isinstance(found, pa.RecordBatch):
        return pa.Table.from_batches([found])
    if _module(found) == "ray":
        return _of_ray(found)
    if _module(found) == "pandas":
        return pa.Table.from_pandas(found, preserve_index=False)
    return pa.table(found)


def _of_ray(found: Any) -> pa.Table:
    """Block by block, so that it need not fit into memory. The file is nameless, and goes with the process.

    Raises:
        DataError: it has no rows, or nobody could compute them.
    """
    if _free_cpus() < 1:
        raise DataError(
            "a Ray data set is computed by CPUs that are free, and workers have taken all of them",
            hint="Leave one: lower resources.cpus or resources.workers; or return a table, an array, a file.",
        )
    context = found.context
    # Else blocks come as they are done, and every worker that reads them has another order.
    context.execution_options.preserve_order = True
    context.enable_progress_bars = context.print_on_execution_start = False
    logging.getLogger("ray.data").setLevel(logging.ERROR)
    folder = cache() / "tables"
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    with tempfile.NamedTemporaryFile(dir=folder, suffix=".ray") as file, ExitStack() as stack:
        writer: Any = None
        for block in found.iter_batches(batch_size=None, batch_format="pyarrow"):
            if writer is None:
                schema = block.schema
                writer = stack.enter_context(pa.ipc.new_file(file.name, schema))
            writer.write_table(block.cast(schema))
        if writer is None:
            raise DataError("a Ray data set without rows")
        stack.close()
        return pa.ipc.open_file(pa.memory_map(file.name)).read_all()


def _free_cpus() -> float:
    import ray  # whose data set it is

    return float(ray.available_resources().get("CPU", 0))  # type: ignore[no-untyped-call]


def values(column: pa.ChunkedArray) -> np.ndarray:
    """A column's values, rows first: of lists of one length, and of Ray's tensors, with their own dims."""
    kind = column.type
    if pa.types.is_fixed_size_list(kind) and len(column):
        found: np.ndarray = column.combine_chunks().flatten().to_numpy(zero_copy_only=False)
        return found.reshape(len(column), -1)
    if isinstance(kind, pa.BaseExtensionType) and len(column):
        return np.concatenate([chunk.to_numpy(zero_copy_only=False) for chunk in column.chunks])
    own: np.ndarray = column.to_numpy()
    return own


def as_cells(found: Any, name: str) -> Cells:
    """Its cells, as a file's."""
    table = as_arrow(found)
    return Cells(name, table.column_names, table.columns, name, partial(_row, name), typed=True)


def _row(name: str, row: int) -> str:
    return f"{name}: row {row + 1}"


def _module(found: Any) -> str:
    return type(found).__module__.partition(".")[0]
