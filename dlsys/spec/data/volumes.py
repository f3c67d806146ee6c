"""Sources of volumes. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import VOLUMES_WITH_MASKS, Rows
from dlsys.spec.section import Count, FileName, NonNegativeInt, Number, Positive, Text

Side = Annotated[int, Field(ge=8, le=1024)]


class Ellipsoids(SplitSection):
    """Ellipsoids in noise, each somewhat brighter than what is around it; rows `volume`, `mask`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": VOLUMES_WITH_MASKS}

    source: Literal["ellipsoids"]
    rows: Count = 120
    """How many volumes to make."""
    size: Side = 32
    """Side of a volume in voxels."""
    objects: Annotated[tuple[NonNegativeInt, Count], Field(strict=False)] = (1, 3)
    """The fewest and the most ellipsoids of a volume."""
    radii: Annotated[tuple[Positive, Positive], Field(strict=False)] = (3.0, 8.0)
    """The smallest and the largest half axis in voxels."""
    contrast: Positive = 2.0
    """How much brighter an ellipsoid is, in standard deviations of the noise."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""

    @model_validator(mode="after")
    def _fits(self) -> Ellipsoids:
        for name, (least, most) in (("objects", self.objects), ("radii", self.radii)):
            if least > most:
                raise ValueError(f"{name}: {least} is more than {most}: the smaller number stands first")
        if 2 * self.radii[1] > self.size:
            raise ValueError(f"radii: at most half of the volume's {self.size}")
        return self


class Nifti(SplitSection):
    """NIfTI volumes (`.nii`, `.nii.gz`) with a label volume each, as the Medical Segmentation Decathlon lays
    them out: `imagesTr/` and `labelsTr/` with the same file names, and its `dataset.json` with the classes'
    names; or `images/` and `labels/`. Rows `volume`, `mask`; axes run to the right, to the front and up."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": VOLUMES_WITH_MASKS}

    source: Literal["nifti"]
    path: FileName
    """The folder."""
    size: Annotated[tuple[Side, Side, Side], Field(strict=False)] = (64, 64, 64)
    """Voxels of a patch: what of a volume is a row. A volume that is smaller is filled up on both sides, with
    voxels that do not count."""
    patches: Literal["centre", "grid"] = "grid"
    """The one patch in a volume's middle, or as few as cover it, evenly spread. All patches of a volume lie
    in one part of the data."""
    spacing: Annotated[tuple[Positive, Positive, Positive], Field(strict=False)] | None = None
    """A voxel's sides in millimetres, to which volumes are resampled: linearly, and labels by their nearest.
    By default voxels stay as they are, and volumes of several spacings are refused."""
    window: Annotated[tuple[Number, Number], Field(strict=False)] | None = None
    """The least and the largest value, such as [-160, 240] for the soft tissue of a CT; what is beyond is
    cut. Then each volume is less its own mean, by its own deviation, channel by channel."""
    classes: tuple[Text, ...] = ()
    """The classes' names in the order of their numbers, the ground first; by default those of
    `dataset.json`."""

    @model_validator(mode="after")
    def _window_is_open(self) -> Nifti:
        if self.window and self.window[0] >= self.window[1]:
            raise ValueError(
                f"window: from {self.window[0]} to {self.window[1]}: the smaller number stands first"
            )
        return self
