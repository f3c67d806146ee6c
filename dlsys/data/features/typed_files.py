"""Reading tables whose columns have types: Parquet, Arrow and JSON lines."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from pathlib import Path

import pyarrow as pa
import pyarrow.json
import pyarrow.parquet

from dlsys.data.features.cells import Cells
from dlsys.data.files import reading
from dlsys.errors import DataError

_BLOCK = 16 * 2**20


def read_parquet(path: str, folder: Path, wanted: list[str] | None = None) -> Cells:
    """A Parquet file, or a folder of such files with the same columns, in the order of their names.

    Args:
        wanted: the columns to read; None reads all.

    Raises:
        DataError: it cannot be read, or is none.
    """
    with reading(path, folder) as full:
        files = sorted(full.rglob("*.parquet")) if full.is_dir() else [full]
        if not files:
            raise DataError(f"{path}: no file *.parquet in this folder")
        tables = []
        for file in files:
            shown = path if file == full else f"{path}/{file.relative_to(full)}"
            try:
                # read_table, which reads one file or many, imports pandas for it.
                with pa.parquet.ParquetFile(file, memory_map=True) as content:
                    names = content.schema_arrow.names
                    columns = None if wanted is None else [name for name in wanted if name in names]
                    tables.append(content.read(columns))
            except (pa.ArrowInvalid, pa.ArrowNotImplementedError, OSError) as error:
                raise _not(shown, "Parquet", error) from error
            if set(tables[-1].column_names) != set(tables[0].column_names):
                raise DataError(f"{shown}: has other columns than {files[0].relative_to(full)}")
        return _cells(path, _joined(path, tables))


def read_arrow(path: str, folder: Path) -> Cells:
    """A file of Arrow's (also called Feather), or of its streaming format; mapped, not read.

    Raises:
        DataError: it cannot be read, or is none.
    """
    with reading(path, folder) as full:
        try:
            source = pa.memory_map(str(full))
            try:
                table = pa.ipc.open_file(source).read_all()
            except pa.ArrowInvalid:
                source.seek(0)
                table = pa.ipc.open_stream(source).read_all()
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            raise _not(path, "Arrow", error) from error
        return _cells(path, table)


def read_jsonl(path: str, folder: Path) -> Cells:
    """A file with an object in each line.

    Raises:
        DataError: it cannot be read, or is none; names the line.
    """
    with reading(path, folder) as full:
        try:
            table = pa.json.read_json(full, pa.json.ReadOptions(block_size=_BLOCK))
        except (pa.ArrowInvalid, pa.ArrowNotImplementedError) as error:
            _refuse_line(path, full)
            raise _not(path, "JSON lines", error) from error
        return _cells(path, table)


def _refuse_line(path: str, full: Path) -> None:
    """Raises:
    DataError: a line is no object; or its values are of other types than those before it.
    """
    kinds: dict[str, tuple[str, int]] = {}
    with open(full, "rb") as file:
        for number, line in enumerate(file, start=1):
            if not line.strip():
                continue
            try:
                found = json.loads(line)
            except ValueError as error:
                raise DataError(f"{path}:{number}: not JSON: {error}") from error
            if not isinstance(found, dict):
                raise DataError(f'{path}:{number}: is no object such as {{"x": 1}}')
            for name, value in found.items():
                kind = "number" if isinstance(value, float) else type(value).__name__
                kind = "number" if kind == "int" else kind
                if value is None:
                    continue
                before, at = kinds.setdefault(name, (kind, number))
                if before != kind:
                    raise DataError(f"{path}:{number}: {name!r} is a {kind}, and a {before} in line {at}")


def _not(path: str, what: str, error: Exception) -> DataError:
    return DataError(f"{path}: cannot be read as {what}: {str(error).splitlines()[0]}")


def _joined(path: str, tables: list[pa.Table]) -> pa.Table:
    try:
        return pa.concat_tables(tables, promote_options="permissive")
    except (pa.ArrowInvalid, pa.ArrowTypeError) as error:
        raise DataError(f"{path}: its files have columns of different types: {error}") from error


def _cells(path: str, table: pa.Table) -> Cells:
    return Cells(path, table.column_names, table.columns, path, partial(_row, path), typed=True)


def _row(path: str, row: int) -> str:
    return f"{path}: row {row + 1}"


# By what files are called.
READERS: Mapping[str, Callable[[str, Path], Cells]] = {
    ".parquet": read_parquet,
    ".arrow": read_arrow,
    ".feather": read_arrow,
    ".jsonl": read_jsonl,
}
