"""What the sections of all data sources share."""

from __future__ import annotations

from dlsys.spec.section import Fraction, NonNegativeInt, Section


class SourceSection(Section):
    prefetch: NonNegativeInt = 0
    """Batches made ahead by a background thread; worth it where rows are decoded from files."""


class SplitSection(SourceSection):
    valid: Fraction = 0.1
    """The share of rows kept for validation."""
    test: Fraction = 0.1
    """The share of rows kept for the one test at the end."""
    split_seed: NonNegativeInt = 0
    """Which rows go where: not the job's seed, so that a new seed trains on the same rows."""
