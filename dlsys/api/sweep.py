"""A sweep, run here and now."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from dlsys.api.runs import Run, of_folder
from dlsys.api.visit import visit
from dlsys.errors import DlsysError
from dlsys.jobs import sweep as sweeps
from dlsys.jobs.driving import silent
from dlsys.jobs.progress import plain_console
from dlsys.jobs.sweep_sizes import check_here
from dlsys.spec.given import Given, load_sweep
from dlsys.tune.director import Director

if TYPE_CHECKING:
    from pandas import DataFrame


@dataclass(frozen=True)
class Sweep:
    """A sweep that has come to its end.

    Attributes:
        id: dlsys's own id of it.
        metric: what its trials are compared by.
        best: the trial that is the best by it, and that met the test set.
        trials: a row each, the best first: its number, status, epochs, metric, seconds, and settings.
        folder: where its files lie, its report among them.
    """

    id: str
    metric: str
    best: Run
    trials: DataFrame = field(repr=False, compare=False)
    folder: Path = field(repr=False, compare=False)


@visit
def sweep(given: Given, /, *, changes: Mapping[str, Any] | None = None, quiet: bool = False) -> Sweep:
    """Runs what `dlsys run` would of a sweep file, and returns when that is done.

    Args:
        given: a sweep file's path, a ready name (`tune/lenet5_asha`), or what would stand in a file; then
            the path of its job starts at the working folder.
        changes, quiet: as of `dlsys.run`.

    Raises:
        SpecError, Interrupted, ExpectationError, RunError, TrackingError: as `dlsys.run`; the `run` of
            those that ended the sweep is its own run.
    """
    loaded = load_sweep(given, changes)
    address = os.environ.get("RAY_ADDRESS") or None
    if address is None:
        check_here(loaded)
    paths = sweeps.prepare(loaded)
    console = plain_console()
    say = silent if quiet else partial(console.print, markup=False, soft_wrap=True)
    say(f"sweep {paths.id}")
    ended = sweeps.execute(paths, loaded, address=address, note=say, may_exit=False)
    if isinstance(ended.error, DlsysError):
        ended.error.run = of_folder(paths)
    if ended.error is not None:
        raise ended.error
    assert ended.best is not None, "a sweep in which nothing was measured has failed"
    if not ended.delivered:
        say(f"MLflow has not taken everything yet; later: dlsys runs sync {paths.id}")
    director = sweeps.look(paths)
    best = of_folder(paths.trial(ended.best.number))
    return Sweep(paths.id, director.sweep.metric, best, _table(director), paths.root)


def _table(director: Director) -> DataFrame:
    import pandas

    rows = [
        {
            "trial": trial.number,
            "status": trial.status,
            "epochs": trial.epoch,
            director.sweep.metric: trial.value,
            "seconds": round(trial.seconds, 2),
            **trial.settings,
        }
        for trial in director.ranked()
    ]
    return pandas.DataFrame(rows)
