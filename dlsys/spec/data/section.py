"""What the sections of all data sources share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, ClassVar

from pydantic import Field

from dlsys.spec.rows import Rows
from dlsys.spec.section import FileName, Fraction, NonNegativeInt, Section, Share, Text

Character = Annotated[str, Field(strict=True, min_length=1, max_length=1)]


class SourceSection(Section):
    # The rows that it gives, by the setting that decides it (`task: regression`); "" where nothing does.
    GIVES: ClassVar[Mapping[str, Rows]]

    workers: NonNegativeInt = 0
    """Processes that make batches (decode, vary and scale their rows) beside each training worker; each is
    worth a core besides those of `resources.cpus`. 0 makes them in the training process."""
    prefetch: NonNegativeInt = 0
    """Batches made ahead: by `workers`, all of them together, where 0 means two by each; without them, by a
    background thread of the training process, where 0 makes each batch when it is needed."""

    @property
    def registered(self) -> str:
        """The name in `registry.SOURCES` of what reads it."""
        return str(getattr(self, "source"))  # noqa: B009 - each source has its own type of it

    @property
    def setting(self) -> str:
        """The key of `GIVES` that these options choose."""
        return ""

    def unlike(self, folder: FilePath) -> Iterator[tuple[str, str]]:
        """What can be seen of its files to be wrong without reading them whole, as (option, sentence).

        Args:
            folder: where relative paths start; the files are there.
        """
        yield from ()

    @property
    def ragged(self) -> str:
        """The option by which rows of one batch are longer than another's; empty where all are alike."""
        return ""

    @property
    def gives(self) -> Rows:
        """The rows that it gives with these options."""
        return self.GIVES[self.setting]


class SplitSection(SourceSection):
    valid: Share = 0.1
    """The share of rows kept for validation; a run is always measured on some."""
    test: Fraction = 0.1
    """The share of rows kept for the one test at the end."""
    split_seed: NonNegativeInt = 0
    """Which rows go where: not the job's seed, so that a new seed trains on the same rows."""


class SplitBy(Section):
    """What decides which rows go where, if not chance alone: one of four columns, or files."""

    group: Text = ""
    """A column; all rows of one value (a patient, a user) lie in one part."""
    time: Text = ""
    """A column of dates or numbers: the earliest rows are for training, the last ones for the test."""
    strata: Text = ""
    """A column; each part gets every value's share of rows, and within it every class's."""
    part: Text = ""
    """A column that names each row's part: `train`, `valid` or `test`."""
    valid: FileName = ""
    """Another file with the rows for validation; `path` has those to train on."""
    test: FileName = ""
    """Another file with the rows for the test."""

    @property
    def files(self) -> Mapping[str, str]:
        """The other files, by their part."""
        return {part: path for part, path in (("valid", self.valid), ("test", self.test)) if path}

    @property
    def ways(self) -> list[str]:
        """Which of them the job says; one, where it is sound."""
        columns = [way for way in ("group", "time", "strata", "part") if getattr(self, way)]
        return [*columns, "files"] if self.files else columns

    @property
    def column(self) -> str:
        """The column that decides; empty where files do."""
        return self.group or self.time or self.strata or self.part

    @property
    def set_aside(self) -> str:
        """The column that is not learnt from, unless the job names it among those that are."""
        return "" if self.strata else self.column
