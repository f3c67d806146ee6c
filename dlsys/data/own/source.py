"""Calls a user's function for its rows, and makes splits of whatever it returns."""

from __future__ import annotations

import inspect
from collections.abc import Collection, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from dlsys.data.dataset import Chosen, Splits
from dlsys.data.features.columns import Column
from dlsys.data.features.encoding import encode
from dlsys.data.features.parts import PARTS, deciding, parts_of
from dlsys.data.features.table import choose
from dlsys.data.images.normalize import normalized
from dlsys.data.own.rows import Given, as_rows, is_column, shape_of
from dlsys.data.own.tables import as_arrow, as_cells, is_table
from dlsys.data.split import RowSplit, split_rows
from dlsys.errors import DataError, UsageError
from dlsys.own.imports import import_own
from dlsys.own.options import arguments
from dlsys.spec.data.own import OwnSource


def own_source(options: OwnSource, folder: Path) -> Splits:
    """The rows of a user's function or class.

    It is called with its own options from the job's `data:`, and with those of dlsys's that it also has
    parameters for: `folder` (where the job's relative paths start), `valid`, `test`, `split_seed` …

    It may return

    * a torch data set of the map style, or a Hugging Face `Dataset`: rows that are mappings, or tuples, whose
      parts `data.fields` names;
    * arrays or tensors: a mapping of them, or a tuple;
    * a table (Arrow, pandas, or a Ray `Dataset`), whose columns become features as a CSV file's do where
      `data.target` names one;
    * a `dlsys.data.Dataset` or `Splits`;
    * a mapping with `train`, and if it likes `valid` and `test`, of any of these: what is missing is taken
      from `train`, as `data.valid` and `data.test` say.

    Raises:
        DataError: what it returns is none of these.
        UsageError: wrong options.
        WorkloadError: its module cannot be imported.
    """
    name = options.source
    function = import_own(options.place, "data.source")
    found = _call(function, options, folder)
    if isinstance(found, Splits):
        return normalized(found, options.normalize, name)
    parts = _parts(found, options)
    if any(is_table(part) for part in parts.values()) and options.target:
        if len(parts) > 1:
            raise DataError(
                f"{name}: gives {', '.join(parts)} as tables, and one is wanted, which data.valid and "
                "data.test split"
            )
        (part,) = parts.values()
        splits = encode(choose(as_cells(part, name), options), options).splits()
        return normalized(splits, options.normalize, name)
    decides = None
    if options.split_by:
        if len(parts) > 1:
            raise DataError(
                f"{name}: gives {', '.join(parts)}, and data.split_by splits rows that have no parts yet: "
                "leave it out"
            )
        parts["train"], decides = _apart(parts["train"], options)
    splits = _splits({part: as_rows(rows, options) for part, rows in parts.items()}, options, decides)
    return normalized(splits, options.normalize, name)


def _apart(found: Any, options: OwnSource) -> tuple[Any, Column | None]:
    """The rows without the field that decides their part, and that field."""
    assert options.split_by is not None, "asked for"
    name = options.split_by.column
    table = as_arrow(found) if is_table(found) else None
    fields = table.column_names if table is not None else list(found) if isinstance(found, Mapping) else []
    if name not in fields or (table is None and np.ndim(found[name]) != 1):
        raise DataError(
            f"{options.source}: data.split_by: no field {name!r} with a value for each row: return a table "
            "or a mapping of arrays that has it, or a mapping with train, valid and test"
        )
    column = table.select([name]) if table is not None else pa.table({name: np.asarray(found[name])})
    if options.split_by.set_aside:
        kept = [field for field in fields if field != name]
        found = table.select(kept) if table is not None else {field: found[field] for field in kept}
    return found, deciding(as_cells(column, options.source), options)


def _call(function: Any, options: OwnSource, folder: Path) -> Any:
    name = options.source
    if not callable(function):
        raise UsageError(f"data.source: {name} is {function!r}: it must be a function or a class")
    taken: Collection[str] = ()
    with suppress(ValueError):  # written in C, and says nothing about its arguments
        taken = inspect.signature(function).parameters
    ours = {key: getattr(options, key, folder) for key in options.given if key in taken}
    own = arguments(function, options.options, owner=name, field="data", besides=ours)
    return function(**own, **ours)


def _parts(found: Any, options: OwnSource) -> dict[str, Any]:
    """What was returned, by part."""
    if isinstance(found, Mapping) and "train" in found and not is_column(found["train"]):
        unknown = [str(key) for key in found if key not in PARTS]
        if unknown:
            raise DataError(
                f"{options.source}: returns {', '.join(map(str, found))}: {unknown[0]!r} is none of "
                f"{', '.join(PARTS)}"
            )
        return {PARTS[key]: part for key, part in found.items() if part is not None}
    return {"train": found}


def _splits(parts: dict[str, Given], options: OwnSource, decides: Column | None) -> Splits:
    train = parts["train"]
    wanted = {"valid": options.valid, "test": options.test}
    shares = {part: share for part, share in wanted.items() if part not in parts}
    rows: RowSplit | None = None
    notes: tuple[str, ...] = ()
    if decides is not None:
        if len(decides) != len(train.rows):
            raise DataError(
                f"{options.source}: its fields are of unequal length: {decides.name} {len(decides)}, others "
                f"{len(train.rows)}"
            )
        rows, notes = parts_of(
            options, decides, rows=len(train.rows), name=options.source, labels=train.labels
        )
    elif "valid" not in parts or shares.get("test"):
        rows = split_rows(
            len(train.rows),
            valid=shares.get("valid", 0.0),
            test=shares.get("test", 0.0),
            seed=options.split_seed,
            name=options.source,
            labels=train.labels,
        )
    for part in ("train", *shares) if rows else ():
        if len(chosen := getattr(rows, part)):
            labels = None if train.labels is None else train.labels[chosen]
            parts[part] = Given(Chosen(train.rows, chosen), train.classes, labels)
    for part, given in parts.items():
        if not len(given.rows):
            raise DataError(f"{options.source}: {part} has no rows")
    shape = shape_of(parts, options)
    row = ", ".join(f"{field} {list(size)}" if size else field for field, size in shape.row.items())
    counts = ", ".join(f"{len(given.rows):,} for {part}" for part, given in sorted(parts.items()))
    notes = (f"{options.source}: rows: {counts}; each has {row}", *notes)
    test = parts["test"].rows if "test" in parts else None
    learnt = {"target": {"name": "label", "classes": list(train.classes)}} if train.classes else {}
    return Splits(parts["train"].rows, parts["valid"].rows, test, shape, notes, learnt)
