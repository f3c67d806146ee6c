"""From a table's columns to the numbers that a model sees, and what was learnt from the training rows."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, dataclass
from itertools import accumulate, pairwise
from typing import Any, Literal

import numpy as np
import torch
from torch import Tensor

from dlsys.data.dataset import Splits
from dlsys.data.features.cells import Cells
from dlsys.data.features.columns import Column, Kind
from dlsys.data.features.parts import parts_of, untrained
from dlsys.data.features.table import Table, taken_for
from dlsys.data.files import listed
from dlsys.data.split import RowSplit
from dlsys.errors import DataError
from dlsys.spec.data.tables import ColumnsSection
from dlsys.spec.rows import Shape

# Makes an array (of a name, a shape and a type) in memory or elsewhere.
Allocate = Callable[[str, tuple[int, ...], Any], np.ndarray]


@dataclass(frozen=True)
class Scaled:
    """A column of numbers: (x − mean) / scale is its feature.

    Attributes:
        mean, scale: of the training rows; scale is their standard deviation, or 1 where that is nothing.
        fill: the feature of a missing cell.
    """

    name: str
    mean: float
    scale: float
    fill: float
    kind: Literal["number", "date"] = "number"


@dataclass(frozen=True)
class OneHot:
    """A column of categories: a feature for each of them.

    Attributes:
        values: the categories of the training rows, in the features' order; any other is all zeros.
        fill: the features of a missing cell: how often each category occurs.
    """

    name: str
    values: tuple[str, ...]
    fill: tuple[float, ...]
    kind: Literal["category"] = "category"


Learnt = Scaled | OneHot


class Layout:
    """Where the features of each column stand.

    Args:
        columns: in the order of their features.
    """

    def __init__(self, columns: Sequence[Learnt]) -> None:
        self.columns = tuple(columns)
        self.numbers: list[int] = []
        self._codes: list[tuple[slice, np.ndarray]] = []
        self.width = 0
        for column in columns:
            if isinstance(column, Scaled):
                self.numbers.append(self.width)
                self.width += 1
                continue
            size = len(column.values)
            # What each code stands for: the categories, then any other one, then none.
            table = np.zeros((size + 2, size), dtype=np.float32)
            np.fill_diagonal(table, 1)
            table[-1] = column.fill
            self._codes.append((slice(self.width, self.width + size), table))
            self.width += size

    def features(self, numbers: np.ndarray, codes: np.ndarray) -> np.ndarray:
        """float32 (rows, width) of scaled numbers (rows, numbers) and codes (rows, columns of categories)."""
        if not self._codes:
            return numbers
        found = np.empty((len(numbers), self.width), dtype=np.float32)
        found[:, self.numbers] = numbers
        for place, (where, table) in enumerate(self._codes):
            found[:, where] = table[codes[:, place]]
        return found


@dataclass(frozen=True)
class Encoded:
    """A table that is ready to train.

    Attributes:
        numbers: float32 (rows, columns of numbers), the training rows first, then validation and test.
        codes: int32 (rows, columns of categories).
        target: int64 or float32 (rows,).
        columns: what was learnt of each column.
        classes: the names of the target's classes; empty for a number.
        predicts: the target's name.
        counts: rows for training, validation and test.
        notes: sentences for the log.
    """

    numbers: np.ndarray
    codes: np.ndarray
    target: np.ndarray
    columns: tuple[Learnt, ...]
    classes: tuple[str, ...]
    predicts: str
    counts: tuple[int, int, int]
    notes: tuple[str, ...]

    def splits(self) -> Splits:
        """Its parts."""
        layout = Layout(self.columns)
        field = "label" if self.classes else "target"
        edges = accumulate(self.counts, initial=0)
        train, valid, test = (TableRows(self, layout, field, *ends) for ends in pairwise(edges))
        shape = Shape(row={"features": (layout.width,), field: ()}, classes=len(self.classes))
        return Splits(train, valid, test if len(test) else None, shape, self.notes, self.learnt)

    @property
    def learnt(self) -> Mapping[str, Any]:
        """What predicting for other rows needs, as JSON."""
        target: dict[str, Any] = {"name": self.predicts, "classes": list(self.classes)}
        if self.classes:
            train = self.target[: self.counts[0]]
            target["counts"] = np.bincount(train, minlength=len(self.classes)).tolist()
        return {"columns": [asdict(column) for column in self.columns], "target": target}


class TableRows:
    """Neighbouring rows of an encoded table."""

    def __init__(self, table: Encoded, layout: Layout, field: str, first: int, last: int) -> None:
        self._layout, self._field = layout, field
        self._numbers, self._codes = table.numbers[first:last], table.codes[first:last]
        self._target = table.target[first:last]

    def __len__(self) -> int:
        return len(self._target)

    def batch(self, rows: np.ndarray) -> dict[str, Tensor]:
        features = self._layout.features(self._numbers[rows], self._codes[rows])
        return {
            "features": torch.from_numpy(features),
            self._field: torch.from_numpy(self._target[rows]),
        }


def in_memory(name: str, shape: tuple[int, ...], kind: Any) -> np.ndarray:  # noqa: ARG001 - an Allocate
    return np.empty(shape, dtype=kind)


def encode(table: Table, options: ColumnsSection, allocate: Allocate = in_memory) -> Encoded:
    """Splits the rows, learns from the training rows, and encodes all of them.

    Args:
        allocate: makes the arrays for them.

    Raises:
        DataError: names the column.
    """
    classes, target = _target(table, options)
    labels = target if classes else None
    parts, told = parts_of(options, table.deciding, rows=len(table), name=table.path, labels=labels)
    notes = [*table.notes, *told]
    order = np.concatenate(parts)
    kinds = {name: _kind(column) for name, column in table.columns.items()}
    of_numbers = [name for name, kind in kinds.items() if kind != "category"]
    of_categories = [name for name, kind in kinds.items() if kind == "category"]
    numbers = allocate("numbers", (len(table), len(of_numbers)), np.float32)
    codes = allocate("codes", (len(table), len(of_categories)), np.int32)
    columns: list[Learnt] = []
    for name, column in table.columns.items():
        if column.missing[parts.train].all():
            raise DataError(
                f"{table.path}: column {name!r} is empty in all training rows; leave it out of data.columns"
            )
        if kinds[name] == "category":
            learnt, encoded = _one_hot(column, parts.train)
            codes[:, of_categories.index(name)] = encoded[order]
            columns.append(learnt)
        else:
            scaled, values = _scaled(table.path, column, parts.train)
            numbers[:, of_numbers.index(name)] = values[order]
            columns.append(scaled)
    return Encoded(
        numbers=numbers,
        codes=codes,
        target=target[order],
        columns=tuple(columns),
        classes=tuple(classes),
        predicts=table.target.name,
        counts=(len(parts.train), len(parts.valid), len(parts.test)),
        notes=(*notes, taken_for(table, kinds, classes), *_rare(table, classes, target, parts)),
    )


def features_of(learnt: Mapping[str, Any], cells: Cells) -> np.ndarray:
    """The features of other rows, as a model that was trained on a table takes them: float32 (rows, F).

    Args:
        learnt: what the table's `Splits.learnt` says.
        cells: rows with at least the columns that were learnt from, in any order.

    Raises:
        DataError: one is not there, or holds what is no number.
    """
    columns = [learnt_of(told) for told in learnt["columns"]]
    layout = Layout(columns)
    numbers, codes = [], []
    for known in columns:
        column = cells.column(known.name, said=known.kind)
        column.kind()  # which refuses odd cells
        if isinstance(known, Scaled):
            values = ((column.numbers() - known.mean) / known.scale).astype(np.float32)
            numbers.append(np.where(np.isnan(values), np.float32(known.fill), values))
        else:
            names, found = column.coded
            place = {name: code for code, name in enumerate(known.values)}
            size = len(known.values)
            table = np.array([*(place.get(name, size) for name in names), size + 1], dtype=np.int32)
            codes.append(table[found])
    rows = len(cells)
    return layout.features(
        np.stack(numbers, axis=1) if numbers else np.empty((rows, 0), dtype=np.float32),
        np.stack(codes, axis=1) if codes else np.empty((rows, 0), dtype=np.int32),
    )


def learnt_of(told: Mapping[str, Any]) -> Learnt:
    """What was learnt of a column, from JSON."""
    if told["kind"] == "category":
        return OneHot(told["name"], tuple(told["values"]), tuple(told["fill"]))
    return Scaled(**told)


def _kind(column: Column) -> Kind:
    if not column.present:
        mend = f"say columns: {{{column.name}: skip}}"
        raise DataError(f"{column.at(0)}: column {column.name!r} is empty in all rows: {mend}")
    return column.kind()


def _target(table: Table, options: ColumnsSection) -> tuple[list[str], np.ndarray]:
    """The classes, and each row's (int64); or none, and each row's number (float32)."""
    column = table.target
    if options.task == "classification":
        classes, labels = column.classes()
        if len(classes) < 2:
            raise DataError(f"{table.path}: the target {column.name!r} has only one class: {classes[0]!r}")
        return classes, labels
    if len(column.odd):
        raise DataError(column.odd_cells())
    with np.errstate(over="ignore"):
        target = column.numbers().astype(np.float32)
    if not np.isfinite(target).all():
        row = int(np.flatnonzero(~np.isfinite(target))[0])
        raise DataError(f"{column.at(row)}: the target {column.text(row)} is too large for fp32")
    return [], target


def _rare(table: Table, classes: Sequence[str], labels: np.ndarray, parts: RowSplit) -> list[str]:
    """What is to be known of classes that cannot be in every part."""
    if not classes:
        return []
    if table.deciding is not None:
        return untrained(table.path, classes, labels, parts)
    alone = [name for name, count in zip(classes, np.bincount(labels), strict=True) if count == 1]
    if not alone:
        return []
    several = f"the classes {listed(alone, ', ')} have" if len(alone) > 1 else f"the class {alone[0]} has"
    return [f"{table.path}: {several} a single row, which may be in no training row"]


def _scaled(path: str, column: Column, train: np.ndarray) -> tuple[Scaled, np.ndarray]:
    """What was learnt of a column of numbers, and its feature of all rows, float32."""
    numbers = column.numbers()
    known = numbers[train]
    known = known[~np.isnan(known)]
    with np.errstate(over="ignore", invalid="ignore"):
        mean = float(known.mean())
        variance = float(np.square(known - mean).mean())
        # Rounding alone may give a constant column a deviation (as scikit-learn's StandardScaler has it).
        epsilon = float(np.finfo(np.float64).eps)
        off = len(known) * mean * epsilon
        least = len(known) * epsilon * variance + off * off  # a power would raise where it is infinite
        scale = 1.0 if variance <= least else variance**0.5
        values = ((numbers - mean) / scale).astype(np.float32)
    gone = np.isnan(numbers)
    if not (np.isfinite(values) | gone).all():
        raise DataError(f"{path}: column {column.name!r} has numbers too large to standardise")
    fill = float(np.nanmean(values[train], dtype=np.float64)) if gone.any() else 0.0
    values[gone] = fill
    kind: Literal["number", "date"] = "date" if column.kind() == "date" else "number"
    return Scaled(column.name, mean, scale, fill, kind), values


def _one_hot(column: Column, train: np.ndarray) -> tuple[OneHot, np.ndarray]:
    """What was learnt of a column of categories, and all rows' codes, as `Layout` has them."""
    names, codes = column.coded
    counts = np.bincount(codes[train] + 1, minlength=len(names) + 1)[1:]
    known = np.flatnonzero(counts)
    size = len(known)
    place = np.full(len(names) + 1, size, dtype=np.int32)
    place[known] = np.arange(size)
    place[-1] = size + 1  # what a missing cell's −1 finds
    fill = (counts[known] / counts.sum()).astype(np.float32)
    values = tuple(names[code] for code in known)
    return OneHot(column.name, values, tuple(map(float, fill))), place[codes]
