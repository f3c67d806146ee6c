"""Errors, as a person reads them."""

from __future__ import annotations

import sys
from collections.abc import Mapping, Sequence
from typing import Any

from dlsys.errors import DlsysError, SpecError, WorkloadError


def report(error: DlsysError) -> None:
    """Says on stderr what is wrong, and how to mend it."""
    if isinstance(error, WorkloadError) and error.traceback:
        print(error.traceback.rstrip(), file=sys.stderr)
    if isinstance(error, SpecError):
        print(error, file=sys.stderr)
        return
    print(f"dlsys: {error}", file=sys.stderr)
    for line in getattr(error, "__notes__", ()):
        print(line.rstrip(), file=sys.stderr)
    if error.hint:
        print(f"       {error.hint}", file=sys.stderr)


def report_end(error: BaseException | None) -> None:
    """Says what ended a run or a sweep, if anything did; what is no error of ours is raised."""
    if isinstance(error, DlsysError):
        report(error)
    elif error is not None:
        raise error


def table(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns of text, aligned, with two spaces between."""
    widths = [max(len(line[i]) for line in [titles, *rows]) for i in range(len(titles))]
    lines = ["  ".join(t.ljust(w) for t, w in zip(line, widths, strict=True)) for line in [titles, *rows]]
    return "\n".join(line.rstrip() for line in lines)


def settings_text(settings: Mapping[str, Any]) -> str:
    """A trial's settings in a line."""
    short = {
        key: f"{value:.4g}" if isinstance(value, float) else str(value) for key, value in settings.items()
    }
    return " ".join(f"{key}={text}" for key, text in short.items())


def markdown(titles: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """The same as a table for a document."""
    lines = [[title.lower() for title in titles], ["---"] * len(titles), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)
