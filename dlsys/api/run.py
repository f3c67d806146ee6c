"""A job, trained here and now, or further."""

from __future__ import annotations

import os
from collections.abc import Mapping
from contextlib import nullcontext
from typing import Any

from dlsys.api.runs import Run, of_folder
from dlsys.api.visit import visit
from dlsys.errors import DlsysError
from dlsys.jobs import run as runs
from dlsys.jobs.driving import silent
from dlsys.jobs.progress import progress_of
from dlsys.jobs.resume import take_up
from dlsys.paths import RunPaths
from dlsys.spec.given import CHANGES, Given, load_job, overrides_of
from dlsys.spec.kinds import AnyJob


@visit
def run(job: Given, /, *, changes: Mapping[str, Any] | None = None, quiet: bool = False) -> Run:
    """Trains what `dlsys run` would, and returns when that is done.

    Args:
        job: a job file's path, a ready name (`quickstart`), or what would stand in a file; then relative
            paths start at the working folder.
        changes: of the job, by dotted paths: `{"optimizer.lr": 0.1, "stop.epochs": 3}`.
        quiet: says nothing; else progress is told on standard error.

    Raises:
        SpecError: all problems of the job and of the changes; nothing was started.
        Interrupted: Ctrl-C; a checkpoint was saved.
        ExpectationError: its result fell short of `expect`.
        RunError: it failed. The `run` of this error and of the two before is the run.
        TrackingError: MLflow will never take some of its figures; all are in its folder.
    """
    loaded = load_job(job, changes)
    return _executed(runs.prepare(loaded), loaded.job, quiet)


@visit
def resume(run: str | Run, /, *, changes: Mapping[str, Any] | None = None, quiet: bool = False) -> Run:
    """Lets a run go on from its last good checkpoint, as `dlsys run --resume` does.

    Args:
        run: the run, or the beginning of its id.
        changes: of its job, by dotted paths, such as `{"stop.epochs": 20}`. What would make another
            computation of it is refused.
        quiet: as of `dlsys.run`.

    Raises:
        UsageError: no such run, or one that does not go on so.
        SpecError, Interrupted, ExpectationError, RunError, TrackingError: as `dlsys.run`.
    """
    given = overrides_of(changes or {})
    paths, loaded = take_up(run if isinstance(run, str) else run.id, given, place=CHANGES)
    return _executed(paths, loaded.job, quiet)


def _executed(paths: RunPaths, job: AnyJob, quiet: bool) -> Run:
    with nullcontext() if quiet else progress_of(paths, job) as progress:
        ended = runs.execute(
            paths,
            job,
            # A script reads it itself.
            address=None if job.kind == "script" else os.environ.get("RAY_ADDRESS") or None,
            note=progress.say if progress else silent,
            may_exit=False,
        )
    made = of_folder(paths)
    if isinstance(ended.error, DlsysError):
        ended.error.run = made
    if ended.error is not None:
        raise ended.error
    if progress and not ended.delivered:
        progress.say(f"MLflow has not taken everything yet; later: dlsys runs sync {made.id}")
    return made
