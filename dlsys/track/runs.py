"""Runs as an MLflow store remembers them: listed, found by the beginning of an id, told in a row."""

from __future__ import annotations

import datetime
from typing import Any

from dlsys.errors import UsageError

# What a run is about, whatever its kind.
_SUBJECTS = ("dlsys.workload", "dlsys.algorithm", "dlsys.script")


def listed(uri: str | None, limit: int, prefix: str | None = None) -> list[Any]:
    """The newest runs, MLflow's `Run` objects, newest first; none where there is no store yet.

    Args:
        uri: the store; by default the one of this folder.
        limit: how many at most.
        prefix: as in `Store.runs`.

    Raises:
        TrackingError: the store cannot be read.
    """
    from dlsys.track.address import sqlite_path
    from dlsys.track.record import usual_uri
    from dlsys.track.store import Store

    uri = uri or usual_uri()
    path = sqlite_path(uri)
    if path is not None and not path.exists():
        return []  # looking must not make a store, which takes seconds
    return Store(uri).runs(limit=limit, prefix=prefix)


def one_of(runs: list[Any], prefix: str) -> Any:
    """The run whose id, dlsys's or MLflow's, starts with `prefix`; a sweep before its trials.

    Raises:
        UsageError: no such run, or several.
    """
    fitting = [
        r for r in runs if r.data.tags["dlsys.run_id"].startswith(prefix) or r.info.run_id.startswith(prefix)
    ]
    exact = [r for r in fitting if prefix in (r.data.tags["dlsys.run_id"], r.info.run_id)]
    if not exact:
        sweeps = {r.info.run_id for r in fitting}
        exact = [r for r in fitting if r.data.tags.get("mlflow.parentRunId") not in sweeps]
    if len(exact or fitting) == 1:
        return (exact or fitting)[0]
    if not fitting:
        raise UsageError(f"no run {prefix!r}", hint="See: dlsys runs list")
    raise UsageError(f"{prefix!r} fits {len(fitting)} runs: give more of the id")


def row_of(run: Any) -> dict[str, Any]:
    """A run in a listing, as JSON."""
    started = datetime.datetime.fromtimestamp(run.info.start_time / 1000)
    ended = run.info.end_time
    return {
        "run": run.data.tags["dlsys.run_id"],
        "mlflow_run": run.info.run_id,
        "kind": run.data.tags.get("dlsys.kind", ""),
        "status": run.info.status,
        "cause": run.data.tags.get("dlsys.cause"),
        "workload": next((run.data.tags[tag] for tag in _SUBJECTS if tag in run.data.tags), ""),
        "started": started.isoformat(" ", "seconds"),
        "seconds": round((ended - run.info.start_time) / 1000, 1) if ended else None,
        "metrics": dict(run.data.metrics),
    }
