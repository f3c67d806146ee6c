"""`data:` — the sources and their typed options, one file a kind of rows."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from dlsys.spec.data.clicks import SyntheticCTR
from dlsys.spec.data.features import BreastCancer, CSVFile, Piecewise
from dlsys.spec.data.images import Digits, IDXFiles, ImageFolder
from dlsys.spec.data.points import GaussianRing
from dlsys.spec.data.text import Pydoc, TextFile

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

__all__ = [
    "BreastCancer",
    "CSVFile",
    "Digits",
    "GaussianRing",
    "IDXFiles",
    "ImageFolder",
    "Piecewise",
    "Pydoc",
    "Source",
    "SyntheticCTR",
    "TextFile",
]
