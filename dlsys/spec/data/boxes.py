"""Sources of images with objects in them: boxes, masks, or a class for each pixel."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import (
    IMAGES_WITH_BOXES,
    IMAGES_WITH_INSTANCES,
    IMAGES_WITH_MASKS,
    IMAGES_WITH_PROPOSALS,
    Rows,
)
from dlsys.spec.section import Bool, Count, Fraction, NonNegative, NonNegativeInt

# What is asked of an image's objects.
Wanted = Literal["boxes", "proposals", "instances", "mask"]
KINDS = ("circle", "square", "triangle", "cross", "ring")
_FIELDS: Mapping[str, Rows] = {
    "wanted: boxes": IMAGES_WITH_BOXES,
    "wanted: proposals": IMAGES_WITH_PROPOSALS,
    "wanted: instances": IMAGES_WITH_INSTANCES,
    "wanted: mask": IMAGES_WITH_MASKS,
}


class ObjectsSection(SplitSection):
    """What sources of objects share."""

    GIVES: ClassVar[Mapping[str, Rows]] = _FIELDS

    wanted: Wanted = "boxes"
    """`boxes` with their classes, `proposals`: boxes that selective search finds besides, `instances`: a mask
    for each box besides, or `mask`: a class for each pixel."""
    proposals: Annotated[int, Field(ge=1, le=2000)] = 200
    """How many boxes an image is proposed at most, under `wanted: proposals`; they are kept in the user's
    cache."""

    @property
    def setting(self) -> str:
        return f"wanted: {self.wanted}"


class Shapes(ObjectsSection):
    """Rendered shapes of any colour on a noisy ground: what each is, and where, is known to the pixel."""

    source: Literal["shapes"]
    rows: Count = 1000
    """How many images to render."""
    size: Annotated[int, Field(ge=16, le=1024)] = 64
    """Side of an image in pixels."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    kinds: Annotated[
        tuple[Literal["circle", "square", "triangle", "cross", "ring"], ...], Field(min_length=1)
    ] = (
        "circle",
        "square",
        "triangle",
    )
    """The classes, in their order."""
    objects: Annotated[tuple[NonNegativeInt, Count], Field(strict=False)] = (1, 4)
    """The fewest and the most shapes of an image; some find no place, and are left out."""
    sides: Annotated[tuple[Count, Count], Field(strict=False)] = (12, 28)
    """The smallest and the largest side of a shape in pixels; sizes are drawn by their logarithm, so that
    doubling a side is as likely anywhere."""
    overlap: Fraction = 0.1
    """How much of two boxes' union may be shared, at most; 0 keeps all apart."""
    touching: Bool = False
    """Whether a second shape of the same class lies against the first one, where there is room."""
    noise: NonNegative = 0.05
    """The standard deviation of the noise on each pixel of 0…1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""

    @model_validator(mode="after")
    def _fits(self) -> Shapes:
        for name, (least, most) in (("objects", self.objects), ("sides", self.sides)):
            if least > most:
                raise ValueError(f"{name}: {least} is more than {most}: the smaller number stands first")
        if self.sides[0] < 4 or self.sides[1] > self.size:
            raise ValueError(f"sides: from 4 pixels to the image's {self.size}")
        return self
