"""`data:` — the sources and their typed options. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from dlsys.spec.section import Count, Fraction, NonNegative, NonNegativeInt, Section, Text


class _Source(Section):
    prefetch: NonNegativeInt = 0
    """Batches made ahead by a background thread; worth it where rows are decoded from files."""


class _SplitSource(_Source):
    valid: Fraction = 0.1
    """The share of rows kept for validation."""
    test: Fraction = 0.1
    """The share of rows kept for the one test at the end."""
    split_seed: NonNegativeInt = 0
    """Which rows go where: not the job's seed, so that a new seed trains on the same rows."""


class Digits(_SplitSource):
    """scikit-learn's 1,797 handwritten digits, 8 × 8 pixels scaled to 0…1; rows `image`, `label`."""

    source: Literal["digits"]
    size: Annotated[int, Field(ge=8, le=64)] = 8
    """Side in pixels that images are scaled to (LeNet-5's own is 32)."""


class BreastCancer(_SplitSource):
    """scikit-learn's breast cancer table: 569 rows, 30 features, 2 classes."""

    source: Literal["breast_cancer"]


class Pydoc(_Source):
    """Python's own help texts: 465,000 characters of English prose, as characters."""

    source: Literal["pydoc"]
    window: Count = 64
    """Characters in a row; `targets` are the same ones shifted by one."""
    valid: Fraction = 0.05
    """The share at the text's end that is kept for validation."""
    test: Fraction = 0.05
    """The share behind it that is kept for the test."""
    limit: NonNegativeInt = 0
    """Characters read; 0 reads all."""


class TextFile(_Source):
    """A text file, as characters."""

    source: Literal["text"]
    path: Text
    """The file; a relative path starts at the job file's folder."""
    encoding: Text = "utf-8"
    """The file's encoding."""
    window: Count = 64
    """Characters in a row."""
    valid: Fraction = 0.05
    """The share at the text's end that is kept for validation."""
    test: Fraction = 0.05
    """The share behind it that is kept for the test."""


class CSVFile(_SplitSource):
    """A CSV file with a header: numbers are standardised, other columns become categories."""

    source: Literal["csv"]
    path: Text
    """The file; a relative path starts at the job file's folder."""
    target: Text
    """The column to predict."""
    task: Literal["classification", "regression"] = "classification"
    """Whether the target is a class or a number."""
    columns: tuple[Text, ...] = ()
    """The columns to learn from; empty takes all but the target."""
    missing: Literal["error", "mean", "drop"] = "error"
    """What an empty cell (or `nan`) does: stop with its line, take the column's training mean
    (for categories: how often each occurs), drop the row."""
    delimiter: Annotated[str, Field(strict=True, min_length=1, max_length=1)] = ","
    """The character between two cells."""


class IDXFiles(_Source):
    """Image and label files in MNIST's IDX format, plain or gzipped."""

    source: Literal["idx"]
    path: Text
    """The folder with train-images-idx3-ubyte[.gz] and the other three."""
    valid: Fraction = 0.1
    """The share of the training rows kept for validation."""
    split_seed: NonNegativeInt = 0
    """Which rows are kept for it."""


class ImageFolder(_SplitSource):
    """A folder with one folder of images for each class (ImageNet's layout)."""

    source: Literal["image-folder"]
    path: Text
    """The folder; with `train`, `valid` or `test` folders inside, those are the splits."""
    size: Annotated[int, Field(ge=4, le=1024)] = 32
    """Side in pixels that images are scaled and centre-cropped to."""
    channels: Literal[1, 3] = 3
    """1 for grey, 3 for RGB."""
    corrupt: Literal["error", "skip"] = "skip"
    """What an unreadable file does: stop, or be named in the log and left out."""


class SyntheticCTR(_SplitSource):
    """Clicks with a planted structure: 13 numbers, 26 categories, and pairs of them that matter."""

    source: Literal["synthetic-ctr"]
    rows: Count = 20000
    """How many rows to make."""
    cardinality: Annotated[int, Field(ge=2, le=10_000_000)] = 100
    """Values of each category; drawn with Zipf's law."""
    noise: NonNegative = 0.5
    """Standard deviation of the noise on the planted logit."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""


class GaussianRing(_SplitSource):
    """Points around eight Gaussians on a circle: the test of mode collapse; rows `point`."""

    source: Literal["gaussian-ring"]
    rows: Count = 8000
    """How many points to make."""
    modes: Annotated[int, Field(ge=2, le=64)] = 8
    """Gaussians on the circle."""
    radius: Annotated[float, Field(gt=0)] = 2.0
    """The circle's radius."""
    sigma: Annotated[float, Field(gt=0)] = 0.1
    """Each Gaussian's standard deviation."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""


class Piecewise(_SplitSource):
    """Another affine function in each region around a centre: rows `features`, `target`."""

    source: Literal["piecewise"]
    rows: Count = 8000
    """How many rows to make."""
    features: Count = 4
    """Numbers in a row."""
    regions: Count = 8
    """Regions, each with a function of its own."""
    noise: NonNegative = 0.1
    """Standard deviation of the noise on the target, whose own is 1."""
    data_seed: NonNegativeInt = 0
    """Makes another data set of the same kind."""


Source = Annotated[
    Digits
    | BreastCancer
    | Pydoc
    | TextFile
    | CSVFile
    | IDXFiles
    | ImageFolder
    | SyntheticCTR
    | GaussianRing
    | Piecewise,
    Field(discriminator="source"),
]
