"""Images to be compared, made of any source of images with classes. Choosing them is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, ClassVar, Literal

from pydantic import Field, ValidationInfo, field_validator

from dlsys.spec.data.images import Digits, IDXFiles, ImageFolder, SyntheticFaces
from dlsys.spec.data.section import SplitSection
from dlsys.spec.rows import COMPARISONS, Rows
from dlsys.spec.section import Count, FileName, Fraction, NonNegativeInt, Share


class Comparisons(SplitSection):
    """An image, another of its class and some of other classes, of classes that no other part has; rows
    `images` (1 + ways, C, H, W), `same` (ways,)."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": COMPARISONS}

    source: Literal["comparisons"]
    of: Annotated[Digits | IDXFiles | ImageFolder | SyntheticFaces, Field(discriminator="source")]
    """The images with classes: `digits`, `idx`, `image-folder` or `synthetic-faces` with its own options. The
    rows of all its parts are taken."""
    ways: Annotated[int, Field(ge=2, le=64)] = 2
    """Images that a row's first one is held against, one of its class and the others each of another: 2 make
    a pair of a class and one of two, 5 a question of 5-way 1-shot learning."""
    rows: Count = 10_000
    """How many are made to train on; they are not kept, so a great number costs nothing."""
    measured_rows: Count = 2_000
    """How many are made for validation, and as many for the test."""
    valid: Share = 0.2
    """The share of classes kept for validation; at least `ways`."""
    test: Fraction = 0.2
    """The share of classes kept for the test; at least `ways`, unless it is 0."""
    split_seed: NonNegativeInt = 0
    """Which classes go where, and which images are compared: not the job's seed."""
    pairs: FileName = ""
    """A file of pairs in the form of LFW's `pairs.txt`, for an image folder with a folder for each person
    (`Ada_Smith/Ada_Smith_0001.jpg`): they are the test, and its people are in no other part."""

    @field_validator("pairs")
    @classmethod
    def _of_files(cls, pairs: str, info: ValidationInfo) -> str:
        of = info.data.get("of")  # missing where it is wrong itself
        if pairs and of is not None and not isinstance(of, ImageFolder):
            raise ValueError(f"names images of an image-folder, and data.of is {of.source}: leave it out")
        return pairs
