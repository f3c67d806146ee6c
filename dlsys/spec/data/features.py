"""Sources of rows of numbers. Reading itself is in `dlsys.data`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path as FilePath
from typing import Annotated, Any, ClassVar, Literal

from pydantic import Field

from dlsys.registry import known
from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import FEATURES_WITH_CLASSES, FEATURES_WITH_TARGETS, Rows
from dlsys.spec.section import Count, FileName, NonNegative, NonNegativeInt, Text


class BreastCancer(SplitSection):
    """scikit-learn's breast cancer table: 569 rows, 30 features, 2 classes."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": FEATURES_WITH_CLASSES}

    source: Literal["breast_cancer"]


Character = Annotated[str, Field(strict=True, min_length=1, max_length=1)]


class CSVFile(SplitSection):
    """A CSV file with a header: numbers are standardised, other columns become categories."""

    GIVES: ClassVar[Mapping[str, Rows]] = {
        "task: classification": FEATURES_WITH_CLASSES,
        "task: regression": FEATURES_WITH_TARGETS,
    }

    source: Literal["csv"]
    path: FileName
    """The file; a relative path starts at the job file's folder."""
    target: Text
    """The column to predict."""
    task: Literal["classification", "regression"] = "classification"
    """Whether the target is a class or a number."""
    columns: tuple[Text, ...] | dict[Text, Literal["number", "category", "skip"]] = ()
    """A list: the columns to learn from; empty takes all but the target. A mapping: what some of them are,
    where the rule of `dlsys data show` is not meant: `{zip: category, id: skip}`."""
    missing: Literal["error", "mean", "drop"] = "error"
    """What a missing cell (empty, `NA`, `null`, `?` …) does: stop with its line, take the column's training
    mean (for categories: how often each occurs), drop the row."""
    delimiter: Character = ","
    """The character between two cells."""
    decimal: Literal[".", ","] = "."
    """What is written before a number's fraction."""
    thousands: Character | None = None
    """What groups a number's digits, as in 1,234,567."""

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
        for name in sorted({name for name in header if header.count(name) > 1}):
            yield "path", f"two columns {name!r}"
        for option, name in [("target", self.target), *(("columns", name) for name in self.columns)]:
            if name not in header:
                yield option, f"no column {name!r}.{known(name, header)}"
        if self.target in self.chosen:
            yield "columns", f"{self.target!r} is the target; leave it out"

    def unlike(self, folder: FilePath) -> Iterator[tuple[str, str]]:
        path = folder / self.path
        try:
            with open(path, encoding="utf-8-sig", newline="") as file:
                rows = csv.reader(file, delimiter=self.delimiter, strict=True)
                header = next(([cell.strip() for cell in row] for row in rows if row), None)
        except (OSError, ValueError, csv.Error):
            return  # the source says what is wrong, with the line
        if header is not None:
            for option, text in self.misnamed(header):
                yield option, f"{path}: {text}"

    @property
    def setting(self) -> str:
        return f"task: {self.task}"


class Piecewise(SplitSection):
    """Another affine function in each region around a centre: rows `features`, `target`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": FEATURES_WITH_TARGETS}

    source: Literal["piecewise"]
    rows: Count = 8000
    """How many rows to make."""
    features: Count = 4
    """Numbers in a row."""
    regions: Count = 8
    """Regions, each with a function of its own."""
    noise: NonNegative = 0.1
    """Standard deviation of the noise on the target, whose own is 1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""
