"""Sources of clips: several images of one thing, in order. Reading itself is in `dlsys.data.clips`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import CLIPS_WITH_CLASSES, Rows
from dlsys.spec.section import Count, FileName, NonNegative, NonNegativeInt


class _Clips(SplitSection):
    GIVES: ClassVar[Mapping[str, Rows]] = {"": CLIPS_WITH_CLASSES}

    frames: Annotated[int, Field(ge=1, le=512)] = 8
    """Frames of a row."""


class FrameFolders(_Clips):
    """A folder for each class, in it a folder for each clip, in it the clip's frames as images; rows `clip`
    (frames, channels, size, size), `label`. With `train`, `valid` or `test` folders around the classes, those
    are the splits."""

    source: Literal["frame-folders"]
    path: FileName
    """The folder."""
    size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Side in pixels that frames are scaled to."""
    resize: Literal["crop", "stretch"] = "crop"
    """As of `image-folder`."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""


class MovingShapes(_Clips):
    """Made-up clips of a shape that moves to the right, to the left, down or up; rows `clip` (frames, 1,
    size, size), `label`."""

    source: Literal["moving-shapes"]
    rows: Count = 800
    """How many to make."""
    size: Annotated[int, Field(ge=12, le=128)] = 16
    """Side in pixels."""
    speed: tuple[NonNegative, NonNegative] = (1.0, 2.0)
    """Pixels from frame to frame, the least and the most."""
    noise: NonNegative = 0.05
    """Standard deviation of the noise on each pixel, which is from 0 to 1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""

    @field_validator("speed")
    @classmethod
    def _rises(cls, speed: tuple[float, float]) -> tuple[float, float]:
        if speed[0] > speed[1]:
            raise ValueError(f"must be the least and the most, got {speed[0]:g} and {speed[1]:g}")
        return speed
