"""Sources of images. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, field_validator

from dlsys.spec.data.section import SourceSection, SplitSection
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Rows
from dlsys.spec.section import Count, FileName, Int, NonNegativeInt, Number, Positive, Section, Share


class ChannelStatistics(Section):
    """What images are less, and divided by, channel by channel."""

    mean: Annotated[tuple[Number, ...], Field(min_length=1)]
    """Of pixels in 0…1, a number for each channel."""
    std: Annotated[tuple[Positive, ...], Field(min_length=1)]
    """The standard deviations, likewise."""


Normalize = Literal["measured", "imagenet"] | ChannelStatistics


class ImageSection(SourceSection):
    """What sources of images share."""

    normalize: Normalize | None = None
    """Takes a mean from each channel and divides by a deviation: those `measured` on the training rows, those
    of `imagenet` (as pretrained weights want), or `{mean: [0.5], std: [0.25]}`. By default pixels are 0…1."""


Digit = Annotated[Int, Field(ge=0, le=9)]


class Digits(ImageSection, SplitSection):
    """scikit-learn's 1,797 handwritten digits, 8 × 8 pixels scaled to 0…1; rows `image`, `label`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["digits"]
    size: Annotated[int, Field(ge=8, le=64)] = 8
    """Side in pixels that images are scaled to (LeNet-5's own is 32)."""
    classes: Annotated[tuple[Digit, ...], Field(min_length=2)] = tuple(range(10))
    """The digits that there are, as classes in this order."""
    per_class: Count | None = None
    """So many rows of each class are trained on, chosen by `split_seed`; those to measure on stay. By default
    all."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, digits: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(digits)) < len(digits):
            raise ValueError(f"must name each digit once, got {', '.join(map(str, digits))}")
        return digits


class IDXFiles(ImageSection):
    """Image and label files in MNIST's IDX format, plain or gzipped."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["idx"]
    path: FileName
    """The folder with train-images-idx3-ubyte[.gz] and the other three."""
    valid: Share = 0.1
    """The share of the training rows kept for validation."""
    split_seed: NonNegativeInt = 0
    """Which rows are kept for it."""


class ImageFolder(ImageSection, SplitSection):
    """A folder with one folder of images for each class (ImageNet's layout)."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["image-folder"]
    path: FileName
    """The folder; with `train`, `valid` or `test` folders inside, those are the splits."""
    size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Side in pixels that images are scaled to."""
    resize: Literal["crop", "stretch"] = "crop"
    """How an image that is no square becomes one: its shorter side is scaled and the centre taken, or each
    side is scaled for itself; without aliasing."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    corrupt: Literal["error", "skip"] = "skip"
    """What an unreadable file does: stop, or be named in the log and left out."""
