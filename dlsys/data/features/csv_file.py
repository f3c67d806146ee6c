"""Tables in CSV files."""

from __future__ import annotations

import codecs
import csv
import io
import math
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from dlsys.data.dataset import Splits
from dlsys.data.files import listed, read_bytes
from dlsys.data.split import split_rows, tensor_splits
from dlsys.errors import DataError
from dlsys.registry import did_you_mean
from dlsys.spec.data import CSVFile
from dlsys.spec.rows import Shape

# More columns than this from one column is an identifier, which one-hot codes can't carry.
_MOST_CATEGORIES = 1000


@dataclass(frozen=True)
class _Table:
    """The columns that the job names, as text.

    Attributes:
        path: the file, as messages say it.
        lines: the line that each row starts on, from 1.
        columns: cells of each feature column, by name, without blanks around.
        target: cells of the target column.
    """

    path: str
    lines: list[int]
    columns: dict[str, list[str]]
    target: list[str]

    def at(self, row: int) -> str:
        return f"{self.path}:{self.lines[row]}"


def csv_file(options: CSVFile, folder: Path) -> Splits:
    """A CSV file with a header: `features` float32 (F,), and `label` int64 or `target` float32.

    A column is of numbers when every cell of its TRAINING rows is one; it is standardised with
    their mean and deviation. Any other column becomes one feature for each category of the
    training rows, 1 or 0; a category seen only later is all zeros. Columns keep the file's order.
    Classes are numbered in sorted order; a regression target stays in its own unit. A cell is
    missing when it is empty or `nan`.

    Raises:
        DataError: names file and line, or the column.
    """
    table = _used(options, folder)
    labels: np.ndarray | None = None
    if options.task == "classification":
        classes = _classes(table.target)
        if len(classes) < 2:
            raise DataError(f"{table.path}: the target {options.target!r} has only one class: {classes[0]!r}")
        number = {name: index for index, name in enumerate(classes)}
        labels = np.array([number[cell] for cell in table.target], dtype=np.int64)
    parts = split_rows(
        len(table.lines),
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name=table.path,
        labels=labels,
    )
    encoded = [_encode(table, name, parts.train) for name in table.columns]
    features = torch.from_numpy(np.concatenate(encoded, axis=1))
    row = {"features": (features.shape[1],)}
    if labels is not None:
        fields = {"features": features, "label": torch.from_numpy(labels)}
        return tensor_splits(fields, parts, Shape(row={**row, "label": ()}, classes=len(classes)))
    fields = {"features": features, "target": torch.from_numpy(_regression_target(table, options.target))}
    return tensor_splits(fields, parts, Shape(row={**row, "target": ()}))


def _records(text: str, path: str, delimiter: str) -> Iterator[tuple[int, list[str]]]:
    """Each record that is not a blank line, and the line that it starts on."""
    reader = csv.reader(io.StringIO(text, newline=""), delimiter=delimiter, strict=True)
    line = 1
    try:
        for cells in reader:
            if cells:
                yield line, [cell.strip() for cell in cells]
            line = reader.line_num + 1
    except csv.Error as error:
        raise DataError(f"{path}:{line}: not CSV: {error}") from error


def _used(options: CSVFile, folder: Path) -> _Table:
    """Reads the file and keeps what the job names, without the rows that `missing` drops."""
    path = options.path
    data = read_bytes(path, folder).removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: 0x{data[error.start]:02x} is not UTF-8 ({error.reason})") from error
    records = _records(text, path, options.delimiter)
    first = next(records, None)
    if first is None:
        raise DataError(f"{path}: is empty; a CSV file starts with a header")
    names, target = _choose(first[1], f"{path}:{first[0]}", options)
    header = first[1]
    places = [header.index(name) for name in (*names, target)]

    lines: list[int] = []
    rows: list[list[str]] = []
    problems: list[str] = []
    for line, cells in records:
        if len(cells) != len(header):
            count = f"{len(cells)} cell{'s' if len(cells) != 1 else ''}"
            problems.append(f"{path}:{line}: {count}, the header has {len(header)}")
            continue
        row = [cells[place] for place in places]
        empty = [name for name, cell in zip((*names, target), row, strict=True) if _is_missing(cell)]
        if empty and options.missing == "drop":
            continue
        if empty and options.missing == "error":
            problems.append(
                f"{path}:{line}: column {empty[0]!r} is empty; fill it, or say missing: mean or drop"
            )
        elif target in empty:
            problems.append(f"{path}:{line}: the target {target!r} is empty; fill it, or say missing: drop")
        lines.append(line)
        rows.append(row)
    if problems:
        raise DataError(listed(problems, "\n"))
    if not rows:
        raise DataError(f"{path}: no rows under the header")
    *features, labels = (list(cells) for cells in zip(*rows, strict=True))
    return _Table(path, lines, dict(zip(names, features, strict=True)), labels)


def _choose(header: list[str], place: str, options: CSVFile) -> tuple[list[str], str]:
    """The names of the feature columns and of the target."""
    problems = [f"{place}: two columns {name!r}" for name in sorted(set(header)) if header.count(name) > 1]
    for option, name in [("target", options.target), *(("columns", name) for name in options.columns)]:
        if name not in header:
            near = did_you_mean(name, header)
            problems.append(
                f"{place}: data.{option}: no column {name!r}.{near} Known: {listed(header, ', ')}"
            )
    if options.target in options.columns:
        problems.append(f"{place}: data.columns: {options.target!r} is the target; leave it out")
    names = list(dict.fromkeys(options.columns)) or [name for name in header if name != options.target]
    if not names:
        problems.append(f"{place}: no column besides the target {options.target!r}")
    if problems:
        raise DataError("\n".join(problems))
    return names, options.target


def _is_missing(cell: str) -> bool:
    return cell.lower() in ("", "nan", "+nan", "-nan")


def _number(cell: str) -> float | None:
    """NaN for a missing cell, None for text."""
    try:
        # Python also reads 1_000, which in a table is a name.
        return float(cell or "nan") if "_" not in cell else None
    except ValueError:
        return None


def _classes(cells: list[str]) -> list[str]:
    """The different cells, in the order of numbers where all are numbers, else of text."""
    names = sorted(set(cells))
    numbers = {name: _number(name) for name in names}
    return sorted(names, key=lambda name: numbers[name] or 0.0) if None not in numbers.values() else names


def _encode(table: _Table, name: str, train: np.ndarray) -> np.ndarray:
    """One column as float32 features, (N, 1) for numbers and (N, categories) otherwise."""
    cells = table.columns[name]
    numbers = [_number(cell) for cell in cells]
    if all(_is_missing(cells[row]) for row in train):
        raise DataError(
            f"{table.path}: column {name!r} is empty in all training rows; leave it out of data.columns"
        )
    if all(numbers[row] is not None for row in train):
        values = _standardised(table, name, _finite(table, name, cells, numbers), train)
    else:
        values = _one_hot(table, name, cells, train)
    # A number's mean is 0 now; a category's is how often each one occurs.
    mean = np.nanmean(values[train], axis=0, dtype=np.float64)
    return np.where(np.isnan(values), mean, values).astype(np.float32)


def _finite(table: _Table, name: str, cells: list[str], numbers: list[float | None]) -> np.ndarray:
    """The numbers as float64 (N,), NaN where missing."""
    problems = [
        f"{table.at(row)}: column {name!r}: {cells[row]!r} is not a finite number"
        for row, number in enumerate(numbers)
        if number is None or math.isinf(number)
    ]
    if problems:
        raise DataError(listed(problems, "\n"))
    return np.array(numbers, dtype=np.float64)


def _standardised(table: _Table, name: str, numbers: np.ndarray, train: np.ndarray) -> np.ndarray:
    column = numbers[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: np.ndarray = StandardScaler().fit(column[train]).transform(column).astype(np.float32)
    if not (np.isfinite(scaled) | np.isnan(column)).all():
        raise DataError(f"{table.path}: column {name!r} has numbers too large to standardise")
    return scaled


def _one_hot(table: _Table, name: str, cells: list[str], train: np.ndarray) -> np.ndarray:
    """A feature for each category of the training rows, NaN where missing."""
    categories = sorted({cells[row] for row in train if not _is_missing(cells[row])})
    if len(categories) > _MOST_CATEGORIES:
        raise DataError(
            f"{table.path}: column {name!r} has {len(categories)} categories; at most {_MOST_CATEGORIES} "
            "can become features; leave it out of data.columns"
        )
    code = {category: index for index, category in enumerate(categories)}
    values = np.zeros((len(cells), len(categories)), dtype=np.float32)
    for row, cell in enumerate(cells):
        if cell in code:
            values[row, code[cell]] = 1
        elif _is_missing(cell):
            values[row] = np.nan
    return values


def _regression_target(table: _Table, name: str) -> np.ndarray:
    numbers = _finite(table, name, table.target, [_number(cell) for cell in table.target])
    with np.errstate(over="ignore"):
        target = numbers.astype(np.float32)
    if not np.isfinite(target).all():
        row = int(np.flatnonzero(~np.isfinite(target))[0])
        raise DataError(f"{table.at(row)}: the target {table.target[row]} is too large for fp32")
    return target
