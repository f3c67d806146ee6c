"""What the sections of all data sources share."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path as FilePath
from typing import Annotated, ClassVar

from pydantic import Field

from dlsys.spec.rows import Rows
from dlsys.spec.section import Fraction, NonNegativeInt, Section, Share

Character = Annotated[str, Field(strict=True, min_length=1, max_length=1)]


class SourceSection(Section):
    # The rows that it gives, by the setting that decides it (`task: regression`); "" where nothing does.
    GIVES: ClassVar[Mapping[str, Rows]]

    prefetch: NonNegativeInt = 0
    """Batches made ahead by a background thread; worth it where rows are decoded from files."""

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
