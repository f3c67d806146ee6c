"""Sources of tables in files. Reading itself is in `dlsys.data.features`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Any, ClassVar, Literal

from dlsys.registry import known
from dlsys.spec.data.section import Character, SplitBy, SplitSection
from dlsys.spec.rows import FEATURES_WITH_CLASSES, FEATURES_WITH_TARGETS, Rows
from dlsys.spec.section import FileName, Text


class ColumnsSection(SplitSection):
    """What a job says of a table's columns."""

    target: Text
    """The column to predict."""
    task: Literal["classification", "regression"] = "classification"
    """Whether the target is a class or a number."""
    columns: tuple[Text, ...] | dict[Text, Literal["number", "category", "date", "skip"]] = ()
    """A list: the columns to learn from; empty takes all but the target. A mapping: what some of them are,
    where the rule of `dlsys data show` is not meant: `{zip: category, id: skip}`."""
    missing: Literal["error", "mean", "drop"] = "error"
    """What a missing cell (empty, `NA`, `null`, `?` …) does: stop with its line, take the column's training
    mean (for categories: how often each occurs), drop the row."""
    split_by: SplitBy | None = None
    """What decides which rows go where, if not chance: `{group: COLUMN}`, `{time: COLUMN}`,
    `{strata: COLUMN}`, `{part: COLUMN}`, or `{valid: FILE, test: FILE}`."""

    @property
    def chosen(self) -> tuple[str, ...]:
        """The columns to learn from, where they are listed."""
        return () if isinstance(self.columns, dict) else tuple(dict.fromkeys(self.columns))

    @property
    def said(self) -> Mapping[str, Any]:
        """What the job says that columns are."""
        return self.columns if isinstance(self.columns, dict) else {}

    def misnamed(self, header: Sequence[str]) -> Iterator[tuple[str, str]]:
        """What these options say of columns that a file with this header has not, as (option, sentence)."""
        for name in sorted({name for name in header if list(header).count(name) > 1}):
            yield "path", f"two columns {name!r}"
        wanted = [("target", self.target), *(("columns", name) for name in self.columns)]
        if self.split_by and self.split_by.column:
            wanted.append(("split_by", self.split_by.column))
        for option, name in wanted:
            if name not in header:
                yield option, f"no column {name!r}.{known(name, header)}"
        if self.target in self.chosen:
            yield "columns", f"{self.target!r} is the target; leave it out"


class TableSection(ColumnsSection):
    """A table in a file."""

    GIVES: ClassVar[Mapping[str, Rows]] = {
        "task: classification": FEATURES_WITH_CLASSES,
        "task: regression": FEATURES_WITH_TARGETS,
    }

    path: FileName
    """The file; a relative path starts at the job file's folder."""

    @property
    def setting(self) -> str:
        return f"task: {self.task}"

    def header(self, path: FilePath) -> Sequence[str] | None:
        """The columns' names; None where only reading it all would tell.

        Raises:
            OSError, ValueError: the file cannot be read; the source says what is wrong.
        """
        return None

    def unlike(self, folder: FilePath) -> Iterator[tuple[str, str]]:
        for path in [self.path, *(self.split_by.files.values() if self.split_by else ())]:
            with suppress(OSError, ValueError, csv.Error):
                if (header := self.header(folder / path)) is not None:
                    for option, text in self.misnamed(header):
                        yield option, f"{folder / path}: {text}"


class CSVFile(TableSection):
    """A CSV file with a header: numbers are standardised, other columns become categories."""

    source: Literal["csv"]
    delimiter: Character = ","
    """The character between two cells."""
    decimal: Literal[".", ","] = "."
    """What is written before a number's fraction."""
    thousands: Character | None = None
    """What groups a number's digits, as in 1,234,567."""

    def header(self, path: FilePath) -> Sequence[str] | None:
        return csv_header(path, self.delimiter)


class ParquetFile(TableSection):
    """A Parquet file, or a folder of such files: columns are what their types say."""

    source: Literal["parquet"]

    def header(self, path: FilePath) -> Sequence[str] | None:
        return parquet_header(path)


class ArrowFile(TableSection):
    """A file of Arrow's (Feather): columns are what their types say."""

    source: Literal["arrow"]


class JSONLines(TableSection):
    """A file with a JSON object in each line: columns are what their values' types say."""

    source: Literal["jsonl"]


def csv_header(path: FilePath, delimiter: str) -> Sequence[str] | None:
    """A CSV file's columns. Raises as `TableSection.header`."""
    with open(path, encoding="utf-8-sig", newline="") as file:
        rows = csv.reader(file, delimiter=delimiter, strict=True)
        return next(([cell.strip() for cell in row] for row in rows if row), None)


def parquet_header(path: FilePath) -> Sequence[str]:
    """The columns of a Parquet file, or of the first one of a folder. Raises as `TableSection.header`."""
    from pyarrow.parquet import read_schema  # takes a while, and few jobs need it

    file = next(iter(sorted(path.rglob("*.parquet"))), path) if path.is_dir() else path
    names: list[str] = read_schema(file).names
    return names
