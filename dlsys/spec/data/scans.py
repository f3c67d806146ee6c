"""Sources of laser scans. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dlsys.spec.data.section import SourceSection, SplitSection
from dlsys.spec.rows import SCANS_WITH_MASKS, Rows
from dlsys.spec.section import (
    Count,
    FileName,
    Fraction,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    Section,
    Text,
)

Drive = Annotated[str, Field(strict=True, pattern=r"^[0-9]{2}$")]


Labels = Annotated[tuple[NonNegativeInt, ...], Field(strict=False)]
# The benchmark's: 08 is for validation.
_TRAINED = tuple(f"{drive:02}" for drive in (*range(8), 9, 10))


class _Lasers(Section):
    lines: Annotated[int, Field(ge=4, le=256)] = 64
    """Rows of a scan: directions between `up` and `down`."""
    columns: Annotated[int, Field(ge=16, le=4096)] = 512
    """Columns of a scan: directions within `view`."""
    up: Number = 3.0
    """The highest direction, in degrees above the horizon."""
    down: Number = -25.0
    """The lowest one."""
    view: Annotated[float, Field(gt=0, le=360)] = 360.0
    """How much of the circle is looked at, in degrees, around straight ahead."""

    @model_validator(mode="after")
    def _is_open(self) -> _Lasers:
        if not -90 <= self.down < self.up <= 90:
            raise ValueError(f"down: from -90 to below up, which is {self.up}, got {self.down}")
        return self


class Scans(_Lasers, SplitSection):
    """Synthetic laser scans of boxes and cylinders on a plane, whose every point's object is known; rows
    `scan`, `mask`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": SCANS_WITH_MASKS}

    source: Literal["scans"]
    rows: Count = 400
    """How many scans to make."""
    lines: Annotated[int, Field(ge=4, le=256)] = 16
    """Rows of a scan: directions between `up` and `down`."""
    columns: Annotated[int, Field(ge=16, le=4096)] = 128
    """Columns of a scan: directions within `view`."""
    view: Annotated[float, Field(gt=0, le=360)] = 120.0
    """How much of the circle is looked at, in degrees, around straight ahead."""
    objects: Annotated[tuple[NonNegativeInt, Count], Field(strict=False)] = (3, 8)
    """The fewest and the most objects of a scan: boxes and cylinders in equal shares."""
    farthest: Positive = 25.0
    """Metres up to which objects stand."""
    noise: NonNegative = 0.02
    """The standard deviation of a range, in metres."""
    lost: Fraction = 0.05
    """The share of beams that do not return, besides those that meet nothing."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""


class SemanticKITTI(_Lasers, SourceSection):
    """SemanticKITTI's folders: `sequences/08/velodyne/000000.bin`, KITTI's points, and
    `sequences/08/labels/000000.label`, seen from the sensor as an image; rows `scan`, `mask`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": SCANS_WITH_MASKS}

    source: Literal["semantic-kitti"]
    path: FileName
    """The folder with `sequences` in it."""
    train_drives: Annotated[tuple[Drive, ...], Field(min_length=1)] = _TRAINED
    """The drives to train on."""
    valid_drives: Annotated[tuple[Drive, ...], Field(min_length=1)] = ("08",)
    """Those for validation."""
    test_drives: tuple[Drive, ...] = ()
    """Those for the test; the labels of 11 to 21 are not public."""
    classes: Mapping[Text, Labels] | None = None
    """The classes' names, each with the labels in the files that it stands for, such as
    `{ground: [40, 44, 48, 49], car: [10, 252]}`; points of other labels do not count. By default the 19
    classes of SemanticKITTI's benchmark of single scans."""
