"""Sources of rows of numbers. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import FEATURES_WITH_CLASSES, FEATURES_WITH_TARGETS, Rows
from dlsys.spec.section import Bool, Count, NonNegative, NonNegativeInt


class BundledTable(SplitSection):
    """A table that scikit-learn brings along."""

    standardize: Bool = True
    """Whether each number is brought to a mean of 0 and a deviation of 1, as training rows have them."""


class BreastCancer(BundledTable):
    """scikit-learn's breast cancer table: 569 rows, 30 features, 2 classes."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": FEATURES_WITH_CLASSES}

    source: Literal["breast_cancer"]


class Iris(BundledTable):
    """scikit-learn's iris table: 150 rows, 4 features, 3 classes."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": FEATURES_WITH_CLASSES}

    source: Literal["iris"]


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
