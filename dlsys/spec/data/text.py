"""Sources of text. Reading itself is in `dlsys.data`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import ClassVar, Literal

from dlsys.spec.data.section import SourceSection
from dlsys.spec.rows import TEXT, Rows
from dlsys.spec.section import Count, FileName, Fraction, NonNegativeInt, Share, Text


class Pydoc(SourceSection):
    """Python's own help texts: 465,000 characters of English prose, as characters."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": TEXT}

    source: Literal["pydoc"]
    window: Count = 64
    """Characters in a row; `targets` are the same ones shifted by one."""
    valid: Share = 0.05
    """The share at the text's end that is kept for validation."""
    test: Fraction = 0.05
    """The share behind it that is kept for the test."""
    limit: NonNegativeInt = 0
    """Characters read; 0 reads all."""


class TextFile(SourceSection):
    """A text file, as characters."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": TEXT}

    source: Literal["text"]
    path: FileName
    """The file; a relative path starts at the job file's folder."""
    encoding: Text = "utf-8"
    """The file's encoding."""
    window: Count = 64
    """Characters in a row."""
    valid: Share = 0.05
    """The share at the text's end that is kept for validation."""
    test: Fraction = 0.05
    """The share behind it that is kept for the test."""
