"""Where MLflow's own pages show a run, a sweep's trials or an experiment (routes of its front end, 3.17)."""

from __future__ import annotations

from typing import Any
from urllib.parse import quote

from dlsys.track.runs import listed, one_of


def page(uri: str, what: str | None) -> str:
    """The part of a page's address behind that of the server.

    Args:
        uri: the store.
        what: an experiment's name, or the beginning of a run's id; by default the newest run's experiment.

    Raises:
        UsageError: no such run, or several.
        TrackingError: the store cannot be read.
    """
    from dlsys.track.store import Store

    if what is None:
        newest = listed(uri, 1)
        return _runs(newest[0].info.experiment_id) if newest else "/#/experiments"
    if (experiment := Store(uri).find_experiment(what)) is not None:
        return _runs(experiment)
    run = one_of(listed(uri, 1000, what), what)
    if run.data.tags.get("dlsys.kind") == "sweep":
        trials = quote(f"tags.mlflow.parentRunId = '{run.info.run_id}'", safe="")
        return f"{_runs(run.info.experiment_id)}?searchFilter={trials}"
    return f"{_runs(run.info.experiment_id)}/{run.info.run_id}"


def _runs(experiment: Any) -> str:
    return f"/#/experiments/{experiment}/runs"
