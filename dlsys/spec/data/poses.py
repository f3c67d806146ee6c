"""Sources of people whose joints are known. Reading itself is in `dlsys.data.poses`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import CLIPS_WITH_ANGLES, IMAGES_WITH_POSES, Rows
from dlsys.spec.section import Count, NonNegative, NonNegativeInt

_People = Annotated[int, Field(ge=1, le=8)]


class StickFigures(SplitSection):
    """Made-up people of sticks, who may stand before each other; rows `image` (3, size, size), `keypoints`
    (people, 11, 3), `mirror` (11,). With `wanted: angles`, clips of one of them who moves: rows `clip`
    (frames, 3, size, size), `angles` (frames, 10)."""

    GIVES: ClassVar[Mapping[str, Rows]] = {
        "wanted: poses": IMAGES_WITH_POSES,
        "wanted: angles": CLIPS_WITH_ANGLES,
    }

    source: Literal["stick-figures"]
    wanted: Literal["poses", "angles"] = "poses"
    """Images of several people and where their joints are, or clips of one and the angles of its limbs."""
    rows: Count = 800
    """How many to make."""
    size: Annotated[int, Field(ge=32, le=256)] = 64
    """Side in pixels."""
    people: tuple[_People, _People] = (1, 2)
    """The fewest and the most in an image."""
    frames: Annotated[int, Field(ge=2, le=64)] = 8
    """Frames of a clip."""
    noise: NonNegative = 0.03
    """Standard deviation of the noise on each pixel, which is from 0 to 1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""

    @property
    def setting(self) -> str:
        return f"wanted: {self.wanted}"

    @field_validator("people")
    @classmethod
    def _rises(cls, people: tuple[int, int]) -> tuple[int, int]:
        if people[0] > people[1]:
            raise ValueError(f"must be the fewest and the most, got {people[0]} and {people[1]}")
        return people
