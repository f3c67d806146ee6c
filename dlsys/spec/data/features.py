"""Sources of rows of numbers. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import FEATURES_WITH_CLASSES, FEATURES_WITH_TARGETS, Rows
from dlsys.spec.section import Count, NonNegative, NonNegativeInt, Text


class BreastCancer(SplitSection):
    """scikit-learn's breast cancer table: 569 rows, 30 features, 2 classes."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": FEATURES_WITH_CLASSES}

    source: Literal["breast_cancer"]


class CSVFile(SplitSection):
    """A CSV file with a header: numbers are standardised, other columns become categories."""

    GIVES: ClassVar[Mapping[str, Rows]] = {
        "task: classification": FEATURES_WITH_CLASSES,
        "task: regression": FEATURES_WITH_TARGETS,
    }

    source: Literal["csv"]
    path: Text
    """The file; a relative path starts at the job file's folder."""
    target: Text
    """The column to predict."""
    task: Literal["classification", "regression"] = "classification"
    """Whether the target is a class or a number."""
    columns: tuple[Text, ...] = ()
    """The columns to learn from; empty takes all but the target."""
    missing: Literal["error", "mean", "drop"] = "error"
    """What an empty cell (or `nan`) does: stop with its line, take the column's training mean
    (for categories: how often each occurs), drop the row."""
    delimiter: Annotated[str, Field(strict=True, min_length=1, max_length=1)] = ","
    """The character between two cells."""

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
