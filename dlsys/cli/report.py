"""Errors, as a person reads them."""

from __future__ import annotations

import sys

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
