"""Encoded tables on disk: a large one is read and encoded once, and mapped into memory from then on.

A file of Arrow's with one batch, so that each column lies in one piece: rows are taken from it without
reading it, and all workers of a machine share its pages. It is made beside its place and renamed into it.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import shutil
from collections.abc import Callable, Iterator
from dataclasses import asdict
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dlsys.data.features.arrays import arrow_of, numpy_of
from dlsys.data.features.encoding import Allocate, Encoded, learnt_of
from dlsys.data.once import made_once
from dlsys.errors import DataError
from dlsys.paths import cache

# Of what is encoded, or of the file's own form: it rises when the same file and options come to mean others.
_VERSION = 1


def kept(name: str, facts: Any, make: Callable[[Path, Allocate], Encoded]) -> Encoded:
    """The encoded table, made if it is not there yet. Others that need the same one wait.

    Args:
        name: the table's file, for messages.
        facts: what decides it, as JSON.
        make: makes it, given a folder for what is needed meanwhile, and arrays in files.

    Raises:
        DataError: `make`'s own; or there is no room for it.
    """
    digest = hashlib.sha256(json.dumps([_VERSION, facts], sort_keys=True).encode()).hexdigest()
    place = cache() / "tables" / f"{digest[:32]}.arrow"
    try:
        made_once(place, lambda: _make(place, make))
        return _read(place)
    except OSError as error:
        raise DataError(
            f"{name}: cannot be kept in {place.parent}: {error.strerror or error}",
            hint="make room there, or set XDG_CACHE_HOME to another folder",
        ) from error


def _make(place: Path, make: Callable[[Path, Allocate], Encoded]) -> None:
    with _folder(place.with_suffix(".making")) as folder:

        def allocate(name: str, shape: tuple[int, ...], kind: Any) -> np.ndarray:
            if not all(shape):
                return np.empty(shape, dtype=kind)
            return np.memmap(folder / name, dtype=kind, mode="w+", shape=shape)

        _write(folder / "table.arrow", make(folder, allocate))
        (folder / "table.arrow").replace(place)


@contextlib.contextmanager
def _folder(path: Path) -> Iterator[Path]:
    shutil.rmtree(path, ignore_errors=True)  # of one that was killed
    path.mkdir()
    try:
        yield path
    finally:
        shutil.rmtree(path, ignore_errors=True)


def _write(path: Path, table: Encoded) -> None:
    told = {
        "columns": [asdict(column) for column in table.columns],
        "classes": table.classes,
        "predicts": table.predicts,
        "counts": table.counts,
        "notes": table.notes,
    }
    columns = {
        "numbers": _wide(table.numbers),
        "codes": _wide(table.codes),
        "target": arrow_of(table.target),
    }
    batch = pa.RecordBatch.from_pydict(columns).replace_schema_metadata({"dlsys": json.dumps(told)})
    with pa.OSFile(str(path), "wb") as file, pa.ipc.new_file(file, batch.schema) as writer:
        writer.write_batch(batch)


def _wide(array: np.ndarray) -> pa.Array:
    """A matrix as a column of rows."""
    rows, width = array.shape
    if not width:
        return pa.nulls(rows)
    return pa.FixedSizeListArray.from_arrays(arrow_of(array.reshape(-1)), width)


def _read(path: Path) -> Encoded:
    batch = pa.ipc.open_file(pa.memory_map(str(path))).get_batch(0)
    told = json.loads(batch.schema.metadata[b"dlsys"])

    def matrix(name: str, kind: Any) -> np.ndarray:
        column = batch.column(name)
        if pa.types.is_null(column.type):
            return np.empty((len(column), 0), dtype=kind)
        found: np.ndarray = numpy_of(column.values).reshape(len(column), -1)
        return found

    return Encoded(
        numbers=matrix("numbers", np.float32),
        codes=matrix("codes", np.int32),
        target=numpy_of(batch.column("target")),
        columns=tuple(learnt_of(column) for column in told["columns"]),
        classes=tuple(told["classes"]),
        predicts=told["predicts"],
        counts=tuple(told["counts"]),
        notes=tuple(told["notes"]),
    )
