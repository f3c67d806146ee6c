"""What a run costs, from the files in its folder: where its workers were, and what those nodes cost."""

from __future__ import annotations

import time
from collections.abc import Iterator
from typing import Any

from dlsys.paths import RunPaths, read_json
from dlsys.plan.cost import Cost, Stay, cost, first_met, part, within
from dlsys.spec.cluster.providers import Cluster
from dlsys.spec.rl.job import Job
from dlsys.track.spool import Spool, records

# Figures go to MLflow each time the run has become longer by this share, at most so often.
_SHARE, _PAUSE = 0.01, 2.0
_BY_GROUP = "cost/node_hours_of/"


def rates_of(cluster: Cluster) -> dict[str, Any] | None:
    """A cluster file's prices, as `rates.json` has them; None where it has none."""
    prices = {group.name: group.price for group in cluster.nodes if group.price is not None}
    return {"currency": cluster.currency, "prices": prices} if prices else None


def attempts(paths: RunPaths) -> list[dict[str, Any]]:
    """Where the workers of each attempt at a run were, in order; without a sweep's trials."""
    found = sorted(paths.places.glob("attempt-*.json"), key=lambda path: int(path.stem.partition("-")[2]))
    return [told for path in found if (told := read_json(path))]


def stays(paths: RunPaths) -> list[Stay]:
    """All stays on nodes, of a run and its trials."""
    trials = sorted(paths.trials.iterdir()) if paths.trials.is_dir() else ()
    return [
        stay
        for run in (paths, *map(RunPaths, trials))
        for attempt in attempts(run)
        for stay in stays_of(attempt)
    ]


def stays_of(attempt: dict[str, Any]) -> Iterator[Stay]:
    """One attempt's: a stay for each node that workers were on."""
    for name, node in attempt["nodes"].items():
        here = [worker for worker in attempt["workers"] if worker["node"] == name]
        taken = {key: sum(worker[key] for worker in here) for key in ("CPU", "GPU")}
        span = attempt["began"], max(attempt["began"], attempt["until"])
        yield Stay(node["group"], part(taken, node), node["price"], attempt["currency"], *span)


def known(paths: RunPaths) -> Cost | None:
    """What a run has cost so far; None where no price is known."""
    found = stays(paths)
    return cost(found) if any(stay.price is not None for stay in found) else None


def to_target(paths: RunPaths, job: Job) -> Cost | None:
    """What it took from the first step to the job's target; None where that was never met.

    The target is what `stop.target` says of validation, or else what `expect` does.
    """
    for bounds in (job.stop.target, job.expect):
        wanted = {name: bound for name, bound in bounds.items() if name.startswith("valid/")}
        if wanted:
            told = (record for record, _ in records(paths.spool / "rank-0.jsonl"))
            met = first_met(told, wanted)
            return cost(within(stays(paths), *met)) if met else None
    return None


class Meter:
    """Tells MLflow what a run costs, through a spool of its own; says nothing where no price is known.

    Args:
        job: whose target is looked for at the end; a sweep has none.
    """

    def __init__(self, paths: RunPaths, job: Job | None = None) -> None:
        self._paths, self._job = paths, job
        self._spool = Spool(paths.spool / "cost.jsonl") if paths.rates.exists() else None
        self._due = time.monotonic() + _PAUSE
        self._last = 0

    def beat(self) -> None:
        """To be called often."""
        if self._spool is not None and time.monotonic() >= self._due:
            self._tell(self._spool, {})

    def close(self) -> None:
        """Tells the last figures, and what it took to the target."""
        if self._spool is None:
            return
        found = to_target(self._paths, self._job) if self._job is not None else None
        last: dict[str, float] = {}
        if found is not None:
            last["cost/seconds_to_target"] = found.seconds
            if found.total is not None:
                last["cost/to_target"] = found.total
        self._tell(self._spool, last)
        self._spool.close()

    def _tell(self, spool: Spool, more: dict[str, float]) -> None:
        found = known(self._paths)
        self._due = time.monotonic() + max(_PAUSE, _SHARE * (found.seconds if found else 0.0))
        if found is None:
            return
        values = {"cost/node_hours": sum(found.hours.values()), **more}
        values |= {f"{_BY_GROUP}{group}": hours for group, hours in found.hours.items() if group}
        if found.total is not None:
            values["cost/total"] = found.total
        # Steps go back with a checkpoint; the seconds that nodes were held only grow.
        self._last = max(int(found.seconds), self._last + 1)
        spool.metrics(self._last, values)


def from_metrics(metrics: dict[str, float], currency: str) -> dict[str, Any] | None:
    """What MLflow knows of a cost, for a run whose folder is elsewhere; as `Cost.to_dict`."""
    if "cost/node_hours" not in metrics:
        return None
    groups = {
        name.removeprefix(_BY_GROUP): {"node_hours": value, "total": None}
        for name, value in metrics.items()
        if name.startswith(_BY_GROUP)
    }
    total = metrics.get("cost/total")
    return {"total": total, "currency": currency, "node_hours": metrics["cost/node_hours"], "groups": groups}


def described(paths: RunPaths) -> dict[str, Any] | None:
    """A run's cost so far, as `--json` prints it; None where no price is known."""
    found = known(paths)
    return None if found is None else found.to_dict()
