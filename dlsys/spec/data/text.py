"""Sources of text. Reading itself is in `dlsys.data`."""

from __future__ import annotations

import csv
from collections.abc import Iterator, Mapping
from contextlib import suppress
from pathlib import Path as FilePath
from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.registry import known
from dlsys.spec.data.section import Character, SourceSection, SplitBy, SplitSection
from dlsys.spec.data.tables import csv_header, parquet_header
from dlsys.spec.rows import TEXT, TEXTS_WITH_CLASSES, Rows
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


class LabelledTexts(SplitSection):
    """Texts with classes, from a table: each becomes tokens, padded on the right."""

    GIVES: ClassVar[Mapping[str, Rows]] = {"": TEXTS_WITH_CLASSES}

    source: Literal["texts"]
    path: FileName
    """A table: CSV, or what `.parquet`, `.arrow` or `.jsonl` says it is."""
    text: Text
    """The column with the text."""
    target: Text
    """The column with the class."""
    delimiter: Character = ","
    """The character between two cells of CSV."""
    length: Count = 128
    """Tokens of a row at most; what is longer is cut off at its end, what is shorter padded."""
    pad: Literal["length", "longest"] = "length"
    """How far rows are padded: all to the longest training row, and `length` at most; or each batch of a
    worker to its own longest row, rounded up to a multiple of 8, which is less to compute."""
    tokenizer: FileName = ""
    """A `tokenizer.json` of Hugging Face's; by default tokens are words and signs, in lower case."""
    vocabulary: Annotated[Count, Field(ge=3)] = 20_000
    """Without a tokenizer: the most frequent words of the training rows, `[PAD]` and `[UNK]` counted in."""
    split_by: SplitBy | None = None
    """What decides which rows go where, if not chance: `{group: COLUMN}`, `{time: COLUMN}`,
    `{strata: COLUMN}`, `{part: COLUMN}`, or `{valid: FILE, test: FILE}`."""

    @property
    def ragged(self) -> str:
        return "pad" if self.pad == "longest" else ""

    def unlike(self, folder: FilePath) -> Iterator[tuple[str, str]]:
        wanted = {"text": self.text, "target": self.target}
        if self.split_by and self.split_by.column:
            wanted["split_by"] = self.split_by.column
        for path in [self.path, *(self.split_by.files.values() if self.split_by else ())]:
            kind = FilePath(path).suffix
            if kind in (".arrow", ".feather", ".jsonl"):
                continue  # only reading it all would tell
            with suppress(OSError, ValueError, csv.Error):
                full = folder / path
                header = parquet_header(full) if kind == ".parquet" else csv_header(full, self.delimiter)
                for option, name in wanted.items():
                    if header is not None and name not in header:
                        yield option, f"{full}: no column {name!r}.{known(name, header)}"
