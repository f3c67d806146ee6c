"""Sources of clicks: numbers, categories, and whether somebody clicked. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import CLICKS, Rows
from dlsys.spec.section import Count, NonNegative, NonNegativeInt


class SyntheticCTR(SplitSection):
    """Clicks with a planted structure: 13 numbers, 26 categories, and pairs of them that matter."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": CLICKS}

    source: Literal["synthetic-ctr"]
    rows: Count = 20000
    """How many rows to make."""
    cardinality: Annotated[int, Field(ge=2, le=10_000_000)] = 100
    """Values of each category; drawn with Zipf's law."""
    noise: NonNegative = 0.5
    """Standard deviation of the noise on the planted logit."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""
