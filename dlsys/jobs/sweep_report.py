"""A sweep's report among its files, from where the writer uploads it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlsys.paths import RunPaths
from dlsys.tune.director import Director


def keep_report(paths: RunPaths, director: Director, status: str, note: Callable[[str], None]) -> Path | None:
    """Writes it, unless nothing was measured; whatever goes wrong is noted, and fails no sweep.

    Returns:
        The page, if there is one.
    """
    if not director.history:
        return None
    try:
        from dlsys.tune.report import write_report

        return write_report(director, paths.artifacts, run=paths.id, status=status)
    except Exception as error:
        why = " ".join(str(error).split()) or type(error).__name__
        note(f"no report was written: {why}; another try: dlsys sweep report {paths.id}")
        return None
