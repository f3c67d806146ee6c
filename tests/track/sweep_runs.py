"""What the tests of a sweep's writer share: a sweep's files, and what MLflow has of it."""

from __future__ import annotations

from typing import Any

import psutil

from dlsys.paths import RunPaths, read_json, write_json
from dlsys.track.spool import Spool
from dlsys.track.store import Store
from dlsys.track.writer import Delivery


def own(paths: RunPaths, process: psutil.Process) -> None:
    created = process.create_time()
    write_json(paths.owner, {"fence": 1, "pid": process.pid, "created": created, "processes": []})


def describe(paths: RunPaths, uri: str) -> None:
    record: dict[str, Any] = {"run_id": paths.id, "uri": uri, "experiment": "e"}
    record |= {"params": {"lr": paths.id[-1]}, "tags": {"dlsys.run_id": paths.id}}
    if paths.sweep:
        record["parent"] = paths.sweep.id
    write_json(paths.record, record)


def trial(sweep: RunPaths, number: int, *, steps: int = 0, status: str | None = None) -> RunPaths:
    """A trial that has come so far."""
    paths = sweep.make_trial(number)
    describe(paths, read_json(sweep.record)["uri"])
    record_steps(paths, range(1, steps + 1))
    if status:
        end(paths, status)
    return paths


def record_steps(paths: RunPaths, steps: range) -> None:
    spool = Spool(paths.spool / "rank-0.jsonl")
    for step in steps:
        spool.metrics(step, {"loss": 1 / step})
    spool.close()


def end(paths: RunPaths, status: str = "FINISHED", cause: str = "") -> dict[str, Any]:
    outcome = {"status": status, "cause": cause, "attempts": 1, "metrics": {}}
    write_json(paths.outcome, outcome)
    return outcome


def pass_over(delivery: Delivery, outcome: dict[str, Any] | None = None) -> int:
    return sum(delivery.deliver(outcome))


def found(uri: str) -> dict[str, Any]:
    """MLflow's runs by dlsys's ids, each of which must be there once."""
    store = Store(uri)
    runs = store.client.search_runs([store.experiment("e")])
    by_id = {run.data.tags["dlsys.run_id"]: run for run in runs}
    assert len(by_id) == len(runs), "a run is there twice"
    return by_id


def statuses(uri: str) -> dict[str, str]:
    """By the trial's number, or `sweep`."""
    return {
        name.rpartition(".")[2] if "." in name else "sweep": run.info.status
        for name, run in found(uri).items()
    }


def steps(uri: str, run: Any) -> list[int]:
    return sorted(p.step for p in Store(uri).client.get_metric_history(run.info.run_id, "loss"))
