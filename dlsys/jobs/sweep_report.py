"""What is told of a sweep: a line for each report of a trial, and a page at the end."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from dlsys.paths import RunPaths
from dlsys.tune.director import Director, Trial


def keep_report(paths: RunPaths, director: Director, status: str, note: Callable[[str], None]) -> Path | None:
    """Writes the page among the sweep's files, from where the writer uploads it.

    There is none where nothing was measured; whatever goes wrong is noted, and fails no sweep.

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


def line(director: Director, trial: Trial, epoch: int, value: float) -> str:
    """A report, and where the sweep stands."""
    best = director.best
    top = f"best {best.value:.4g} (trial {best.number})" if best and best.value is not None else ""
    begun = f"{len(director.trials)} of {director.sweep.trials} begun, {len(director.running)} running"
    return f"trial {trial.number:<5} epoch {epoch:<4} {director.sweep.metric} {value:<8.4g} {begun}  {top}"
