"""Sources of points of a plane. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import POINTS, Rows
from dlsys.spec.section import Count, NonNegativeInt


class GaussianRing(SplitSection):
    """Points around eight Gaussians on a circle: the test of mode collapse; rows `point`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": POINTS}

    source: Literal["gaussian-ring"]
    rows: Count = 8000
    """How many points to make."""
    modes: Annotated[int, Field(ge=2, le=64)] = 8
    """Gaussians on the circle."""
    radius: Annotated[float, Field(gt=0)] = 2.0
    """The circle's radius."""
    sigma: Annotated[float, Field(gt=0)] = 0.1
    """Each Gaussian's standard deviation."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""
