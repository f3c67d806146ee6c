"""What a sweep knows before its first trial."""

from __future__ import annotations

import json

from dlsys.errors import UsageError
from dlsys.spec.sweep.sweep import Sweep
from dlsys.tune.searcher import Told


def earlier(sweep: Sweep, uri: str) -> list[Told]:
    """The trials of the sweeps that the searcher starts from, out of MLflow.

    Raises:
        UsageError: one of them is not there, or measured another metric.
    """
    ids = getattr(sweep.searcher, "warm_start", ())
    if not ids:
        return []
    from dlsys.track.store import Store

    store, metric, found = Store(uri), sweep.metric, []
    for name in ids:
        trials = [run for run in store.runs(prefix=name, limit=10_000) if "dlsys.settings" in run.data.tags]
        measured = [run for run in trials if metric in run.data.metrics]
        if not measured:
            wrong = f"no trial of it measured {metric}" if trials else f"MLflow at {uri} has no such sweep"
            raise UsageError(
                f"searcher.warm_start: {name!r}: {wrong}", hint="See: dlsys sweep list, or leave it out."
            )
        for number, run in enumerate(measured):
            epochs = run.data.metrics.get("train/epoch")
            settings = json.loads(run.data.tags["dlsys.settings"])
            found.append(
                Told(number, settings, run.data.metrics[metric], None if epochs is None else int(epochs))
            )
    return found
