"""Sources of images. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from dlsys.spec.data.section import SourceSection, SplitSection
from dlsys.spec.rows import IMAGES_OF_SHAPES_AND_TEXTURES, IMAGES_WITH_CLASSES, Rows
from dlsys.spec.section import (
    Count,
    FileName,
    Int,
    NonNegative,
    NonNegativeInt,
    Number,
    Positive,
    Section,
    Share,
)


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

    canvas: Annotated[int, Field(ge=8, le=256)] | None = None
    """Side of a larger black square on which each digit lies at a place of its own, the same in each
    epoch; by default there is none."""

    @field_validator("classes")
    @classmethod
    def _each_once(cls, digits: tuple[int, ...]) -> tuple[int, ...]:
        if len(set(digits)) < len(digits):
            raise ValueError(f"must name each digit once, got {', '.join(map(str, digits))}")
        return digits

    @field_validator("canvas")
    @classmethod
    def _holds_a_digit(cls, canvas: int | None, others: ValidationInfo) -> int | None:
        size = others.data.get("size")
        if canvas is not None and size is not None and canvas < size:
            raise ValueError(f"a square of {canvas} pixels a side holds no digit of {size}: make it larger")
        return canvas


class Textures(ImageSection, SplitSection):
    """Synthetic pictures of textures, which only the pattern tells apart: stripes, checks, dots, holes,
    bricks, zigzag, grain, clouds; rows `image`, `label`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["textures"]
    rows: Count = 1600
    """How many pictures to make."""
    size: Annotated[int, Field(ge=8, le=256)] = 32
    """Their side in pixels."""
    classes: Annotated[int, Field(ge=2, le=8)] = 8
    """How many of the kinds, from the first on."""
    wavelength: Annotated[Number, Field(ge=3)] = 6.0
    """Pixels after which a texture repeats itself; each picture has its own, from 0.8 to 1.25 times it."""
    light: Annotated[Number, Field(ge=0, le=2)] = 1.0
    """How much contrast (by a factor down to exp(−light)) and brightness (by a slope over the picture)
    vary."""
    noise: NonNegative = 0.02
    """The standard deviation of the noise on each pixel; all pixels are cut to 0…1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""


class ShapesAndTextures(ImageSection, SplitSection):
    """Synthetic pictures of one shape each, filled with a texture: in training and validation both tell the
    class, in the test they are of two classes (Geirhos et al. 2019); rows `image`, `label` (the shape's
    class), `texture`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_OF_SHAPES_AND_TEXTURES}

    source: Literal["shapes-and-textures"]
    rows: Count = 2000
    """How many pictures to make."""
    size: Annotated[int, Field(ge=16, le=256)] = 32
    """Their side in pixels."""
    classes: Annotated[int, Field(ge=3, le=6)] = 6
    """How many classes, each a shape and a texture: disc in stripes, square in checks, triangle in dots,
    cross in holes, ring in bricks, star in zigzag."""
    wavelength: Annotated[Number, Field(ge=3)] = 5.0
    """Pixels after which a texture repeats itself; each picture has its own, from 0.8 to 1.25 times it."""
    noise: NonNegative = 0.02
    """The standard deviation of the noise on each pixel; all pixels are cut to 0…1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""


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


class CIFARFiles(ImageSection):
    """CIFAR-10 or CIFAR-100, as its archives unpack: the binary version, or Python's."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["cifar"]
    path: FileName
    """The folder: cifar-10-batches-bin, cifar-100-binary, cifar-10-batches-py or cifar-100-python."""
    labels: Literal["fine", "coarse"] = "fine"
    """CIFAR-100's hundred classes, or the twenty that they belong to."""
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


class SyntheticFaces(ImageSection, SplitSection):
    """Made-up faces: each person has a shape, features and colours of its own, and each image another pose,
    light, smile and noise; rows `image` (3, size, size), `label`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["synthetic-faces"]
    people: Annotated[int, Field(ge=2, le=10_000)] = 200
    """How many, each of which is a class."""
    images: Annotated[int, Field(ge=2, le=1000)] = 10
    """Of each of them."""
    size: Annotated[int, Field(ge=16, le=128)] = 32
    """Side in pixels."""
    varied: NonNegative = 1.0
    """How much pose, light, smile and noise differ from image to image; 0 makes all of a person alike."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""
