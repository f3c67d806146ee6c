"""Tables in CSV files."""

from __future__ import annotations

import codecs
import csv
import io
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import torch
from sklearn.preprocessing import StandardScaler

from dlsys.data.dataset import Splits
from dlsys.data.features.columns import Column, Kind, is_missing
from dlsys.data.files import listed, read_bytes
from dlsys.data.split import split_rows, tensor_splits
from dlsys.errors import DataError
from dlsys.spec.data import CSVFile
from dlsys.spec.rows import Shape

# What pandas' index is called in the header that it writes, and in one written from what it read.
_INDEX = ("", "Unnamed: 0")


@dataclass(frozen=True)
class Table:
    """The columns of a file that a job names.

    Attributes:
        path: the file, as messages say it.
        columns: those to learn from, by name.
        target: the one to predict; None where there is none.
        notes: what was left out, and why.
    """

    path: str
    columns: dict[str, Column]
    target: Column | None
    notes: tuple[str, ...]


def csv_file(options: CSVFile, folder: Path) -> Splits:
    """A CSV file with a header: `features` float32 (F,), and `label` int64 or `target` float32.

    `columns` says what a column is taken for. Numbers are standardised with the mean and deviation of the
    training rows. Any other column becomes one feature for each category of the training rows, 1 or 0; a
    category seen only later is all zeros. Columns keep the file's order. Classes are numbered in the order
    of numbers, or of text; a regression target stays in its own unit.

    Raises:
        DataError: names file and line, or the column.
    """
    table = read_table(options, folder)
    target = table.target
    assert target is not None, "a job names its target"
    labels: np.ndarray | None = None
    classes: list[str] = []
    if options.task == "classification":
        classes, labels = target.classes(options.said.get(options.target))
        if len(classes) < 2:
            raise DataError(f"{table.path}: the target {options.target!r} has only one class: {classes[0]!r}")
    kinds = {name: _kind(column, options.said.get(name)) for name, column in table.columns.items()}
    parts = split_rows(
        len(target.cells),
        valid=options.valid,
        test=options.test,
        seed=options.split_seed,
        name=table.path,
        labels=labels,
    )
    encoded = [_encode(table, name, kinds[name], parts.train) for name in table.columns]
    features = torch.from_numpy(np.concatenate(encoded, axis=1))
    notes = (*table.notes, _taken_for(table, kinds, classes), *_rare(table, classes, labels))
    row = {"features": (features.shape[1],)}
    if labels is not None:
        fields = {"features": features, "label": torch.from_numpy(labels)}
        shape = Shape(row={**row, "label": ()}, classes=len(classes))
    else:
        fields = {"features": features, "target": torch.from_numpy(_regression_target(target))}
        shape = Shape(row={**row, "target": ()})
    return replace(tensor_splits(fields, parts, shape), notes=notes)


def _kind(column: Column, said: Kind | None) -> Kind:
    if not column.present:
        mend = f"say columns: {{{column.name}: skip}}"
        raise DataError(f"{column.at(0)}: column {column.name!r} is empty in all rows: {mend}")
    return column.kind(said)


def _taken_for(table: Table, kinds: dict[str, Kind], classes: list[str]) -> str:
    """A sentence about what was read."""
    assert table.target is not None
    numbers = [name for name, kind in kinds.items() if kind == "number"]
    codes = [
        f"{name} ({len(table.columns[name].values)})" for name, kind in kinds.items() if kind == "category"
    ]
    said = [f"numbers: {listed(numbers, ', ')}"] if numbers else []
    said += [f"categories: {listed(codes, ', ')}"] if codes else []
    said.append(f"target {table.target.name}: {f'{len(classes)} classes' if classes else 'a number'}")
    return f"{table.path}: {len(table.target.cells):,} rows; {'; '.join(said)}"


def _rare(table: Table, classes: list[str], labels: np.ndarray | None) -> list[str]:
    """What is to be known of classes that cannot be in every part."""
    if labels is None:
        return []
    alone = [name for name, count in zip(classes, np.bincount(labels), strict=True) if count == 1]
    if not alone:
        return []
    several = f"the classes {listed(alone, ', ')} have" if len(alone) > 1 else f"the class {alone[0]} has"
    return [f"{table.path}: {several} a single row, which may be in no training row"]


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


def read_table(options: CSVFile, folder: Path) -> Table:
    """Reads the file and keeps what the job names, without the rows that `missing` drops."""
    path = options.path
    lines, header, rows = read_rows(path, folder, options.delimiter)
    names = _choose(header, f"{path}:{lines[0]}", options)
    lines = lines[1:]
    places = {name: header.index(name) for name in (*names, options.target)}
    notes = []
    for name in [name for name in names if name in _INDEX and name not in options.columns]:
        index = Column(name, [row[places[name]] for row in rows], str)
        if index.counts_rows:
            notes.append(f"{path}: column {name!r} counts the rows, as pandas writes its index: left out")
            names.remove(name)
            del places[name]
    problems: list[str] = []
    kept: list[int] = []
    for number, (line, cells) in enumerate(zip(lines, rows, strict=True)):
        empty = [name for name, place in places.items() if is_missing(cells[place])]
        if empty and options.missing == "drop":
            continue
        if empty and options.missing == "error":
            cell = cells[places[empty[0]]]
            what = f"is {cell!r}, which counts as missing" if cell else "is empty"
            problems.append(
                f"{path}:{line}: column {empty[0]!r} {what}; fill it, or say missing: mean or drop"
            )
        elif options.target in empty:
            problems.append(
                f"{path}:{line}: the target {options.target!r} is empty; fill it, or say missing: drop"
            )
        kept.append(number)
    if problems:
        raise DataError(listed(problems, "\n"))
    if not kept:
        raise DataError(f"{path}: no rows under the header")

    def column(name: str) -> Column:
        return Column(
            name,
            [rows[number][places[name]] for number in kept],
            lambda row: f"{path}:{lines[kept[row]]}",
            options.decimal,
            options.thousands,
        )

    return Table(path, {name: column(name) for name in names}, column(options.target), tuple(notes))


def read_rows(path: str, folder: Path, delimiter: str) -> tuple[list[int], list[str], list[list[str]]]:
    """The lines that records start on, from 1, the header's first; the header; and the rows below it.

    Raises:
        DataError: the file cannot be read, or is no table.
    """
    data = read_bytes(path, folder).removeprefix(codecs.BOM_UTF8)
    try:
        text = data.decode()
    except UnicodeDecodeError as error:
        line = data.count(b"\n", 0, error.start) + 1
        raise DataError(f"{path}:{line}: 0x{data[error.start]:02x} is not UTF-8 ({error.reason})") from error
    records = list(_records(text, path, delimiter))
    if not records:
        raise DataError(f"{path}: is empty; a CSV file starts with a header")
    (first, header), *rest = records
    problems = [
        f"{path}:{line}: {len(cells)} cell{'s' if len(cells) != 1 else ''}, the header has {len(header)}"
        for line, cells in rest
        if len(cells) != len(header)
    ]
    if problems:
        raise DataError(listed(problems, "\n"))
    return [first, *(line for line, _ in rest)], header, [cells for _, cells in rest]


def _choose(header: list[str], place: str, options: CSVFile) -> list[str]:
    """The names of the feature columns."""
    problems = [
        f"{place}: {text}" if option == "path" else f"{place}: data.{option}: {text}"
        for option, text in options.misnamed(header)
    ]
    skipped = {options.target, *(name for name, kind in options.said.items() if kind == "skip")}
    names = list(options.chosen) or [name for name in header if name not in skipped]
    if not names:
        problems.append(f"{place}: no column besides the target {options.target!r}")
    if problems:
        raise DataError("\n".join(problems))
    return names


def _encode(table: Table, name: str, kind: Kind, train: np.ndarray) -> np.ndarray:
    """One column as float32 features, (N, 1) for numbers and (N, categories) otherwise."""
    column = table.columns[name]
    if all(is_missing(column.cells[row]) for row in train):
        raise DataError(
            f"{table.path}: column {name!r} is empty in all training rows; leave it out of data.columns"
        )
    if kind == "number":
        values = _standardised(table, name, column.numbers, train)
    else:
        values = _one_hot(column, train)
    # A number's mean is 0 now; a category's is how often each one occurs.
    mean = np.nanmean(values[train], axis=0, dtype=np.float64)
    return np.where(np.isnan(values), mean, values).astype(np.float32)


def _standardised(table: Table, name: str, numbers: np.ndarray, train: np.ndarray) -> np.ndarray:
    column = numbers[:, None]
    with np.errstate(over="ignore", invalid="ignore"):
        scaled: np.ndarray = StandardScaler().fit(column[train]).transform(column).astype(np.float32)
    if not (np.isfinite(scaled) | np.isnan(column)).all():
        raise DataError(f"{table.path}: column {name!r} has numbers too large to standardise")
    return scaled


def _one_hot(column: Column, train: np.ndarray) -> np.ndarray:
    """A feature for each category of the training rows, NaN where missing."""
    cells = column.cells
    categories = sorted({cells[row] for row in train if not is_missing(cells[row])})
    code = {category: index for index, category in enumerate(categories)}
    values = np.zeros((len(cells), len(categories)), dtype=np.float32)
    for row, cell in enumerate(cells):
        if cell in code:
            values[row, code[cell]] = 1
        elif is_missing(cell):
            values[row] = np.nan
    return values


def _regression_target(column: Column) -> np.ndarray:
    column.kind("number")
    with np.errstate(over="ignore"):
        target = column.numbers.astype(np.float32)
    if not np.isfinite(target).all():
        row = int(np.flatnonzero(~np.isfinite(target))[0])
        raise DataError(f"{column.at(row)}: the target {column.cells[row]} is too large for fp32")
    return target
