"""Sources of images. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.data.section import SourceSection, SplitSection
from dlsys.spec.rows import IMAGES_WITH_CLASSES, Rows
from dlsys.spec.section import FileName, NonNegativeInt, Share


class Digits(SplitSection):
    """scikit-learn's 1,797 handwritten digits, 8 × 8 pixels scaled to 0…1; rows `image`, `label`."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["digits"]
    size: Annotated[int, Field(ge=8, le=64)] = 8
    """Side in pixels that images are scaled to (LeNet-5's own is 32)."""


class IDXFiles(SourceSection):
    """Image and label files in MNIST's IDX format, plain or gzipped."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["idx"]
    path: FileName
    """The folder with train-images-idx3-ubyte[.gz] and the other three."""
    valid: Share = 0.1
    """The share of the training rows kept for validation."""
    split_seed: NonNegativeInt = 0
    """Which rows are kept for it."""


class ImageFolder(SplitSection):
    """A folder with one folder of images for each class (ImageNet's layout)."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": IMAGES_WITH_CLASSES}

    source: Literal["image-folder"]
    path: FileName
    """The folder; with `train`, `valid` or `test` folders inside, those are the splits."""
    size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Side in pixels that images are scaled and centre-cropped to."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    corrupt: Literal["error", "skip"] = "skip"
    """What an unreadable file does: stop, or be named in the log and left out."""
