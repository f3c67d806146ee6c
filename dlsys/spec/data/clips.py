"""Sources of clips: frames in the order in which they were taken. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import CLIPS_WITH_CLASSES, Rows
from dlsys.spec.section import Count, FileName, NonNegative, NonNegativeInt, Positive

Frames = Annotated[Count, Field(le=256)]


class FrameFolders(SplitSection):
    """Videos as folders of their frames: a folder for each class, and in it one for each clip, whose images
    are its frames in the order of the numbers in their names (`frame_9.jpg` before `frame_10.jpg`); rows
    `clip` (frames, channels, size, size), `label`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": CLIPS_WITH_CLASSES}

    source: Literal["frame-folders"]
    path: FileName
    """The folder; with `train`, `valid` or `test` folders inside, those are the splits."""
    frames: Frames = 16
    """How many frames of each clip are seen: the middle ones of as many parts of equal length."""
    short: Literal["error", "repeat"] = "error"
    """What a clip of fewer frames does: stop, or show some of them again, evenly spread."""
    size: Annotated[int, Field(ge=4, le=1024)] = 112
    """Side in pixels that frames are scaled to."""
    resize: Literal["crop", "stretch"] = "crop"
    """How a frame that is no square becomes one: its shorter side is scaled and the centre taken, or each
    side is scaled for itself; without aliasing."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    corrupt: Literal["error", "skip"] = "skip"
    """What an unreadable frame does, of those that are seen: stop, or have its clip named in the log and left
    out."""


class MovingShapes(SplitSection):
    """Synthetic clips of a shape that moves left, right, up or down, which is its class. The ground has no
    edges: what leaves on one side comes in on the other, so that each frame by itself is as likely of any
    class; rows `clip` (frames, channels, size, size), `label`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": CLIPS_WITH_CLASSES}

    source: Literal["moving-shapes"]
    rows: Count = 1200
    """How many clips to make."""
    frames: Frames = 8
    """Of a clip. With 1 there is no motion to be seen, and the class is left to chance."""
    size: Annotated[int, Field(ge=16, le=256)] = 24
    """Side of a frame in pixels."""
    channels: Literal[1, 3] = 1
    """1 for grey, 3 for RGB."""
    sides: Annotated[tuple[Count, Count], Field(strict=False)] = (6, 12)
    """The smallest and the largest side of a shape in pixels."""
    speeds: Annotated[tuple[Positive, Positive], Field(strict=False)] = (2.0, 4.0)
    """The least and the highest speed, in pixels from frame to frame."""
    noise: NonNegative = 0.02
    """The standard deviation of the noise on each pixel of 0…1, anew in each frame."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""

    @model_validator(mode="after")
    def _fits(self) -> MovingShapes:
        for name, (least, most) in (("sides", self.sides), ("speeds", self.speeds)):
            if least > most:
                raise ValueError(f"{name}: {least} is more than {most}: the smaller number stands first")
        if self.sides[1] > self.size:
            raise ValueError(f"sides: a shape of {self.sides[1]} pixels does not fit into {self.size}")
        if 2 * self.speeds[1] >= self.size:
            raise ValueError(
                f"speeds: after {self.speeds[1]} of {self.size} pixels, one way looks like the other: stay "
                "below half of size"
            )
        return self
