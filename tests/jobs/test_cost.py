"""What runs cost, on a real cluster of two priced nodes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from runner import JOB, Folder

from dlsys.jobs.cost import attempts, known, rates_of
from dlsys.paths import RunPaths
from dlsys.spec.load import load_cluster

# One and two of it for each second of a whole node.
CLUSTER = """
kind: cluster
name: priced
provider: local
currency: EUR
nodes:
  - {name: head, cpus: 1, price: 3600}
  - {name: worker, cpus: 2, price: 7200}
"""
STEPS, STEP_SECONDS = 66, 0.1


@pytest.fixture
def priced(tmp_path: Path, root: Path) -> Iterator[Folder]:
    """A user's folder, with the cluster up."""
    folder = Folder(tmp_path, PYTHONPATH=f"{root}:{tmp_path}", MLFLOW_TRACKING_URI="")
    (tmp_path / "cluster.yaml").write_text(CLUSTER)
    (tmp_path / "job.yaml").write_text(
        f'{JOB}resources: {{workers: 2}}\nexpect: {{valid/accuracy: ">= 0.1"}}\n'
    )
    try:
        up = folder.dlsys("cluster", "up", "cluster.yaml")
        assert up.code == 0, up.err
        yield folder
    finally:
        folder.dlsys("cluster", "down", "priced")
        folder.clean()


@pytest.mark.ray
@pytest.mark.slow
def test_the_cost_of_a_run_goes_on_over_deaths_and_retries(priced: Folder) -> None:
    job = _submit(priced)
    priced.wait_for(lambda: priced.step() > 20)
    (driver,) = (p for p in priced.processes() if _words(p)[-2:] == ["--resume", job] and "-P" in _words(p))
    driver.kill()
    assert priced.dlsys("jobs", "wait", job).code == 0
    first = _status(priced, job)
    run = priced.run
    assert [len(attempt["workers"]) for attempt in attempts(run)] == [2, 2]
    for attempt in attempts(run):
        assert sorted(node["name"] for node in attempt["nodes"].values()) == ["head-0", "worker-0"]
    cost = first["cost"]
    # A killed driver's last 2 s may be lost; what the desk counts has the processes' start in it.
    assert STEPS * STEP_SECONDS - 2 < cost["seconds"] < first["ran"]
    hours = {name: group["node_hours"] for name, group in cost["groups"].items()}
    assert hours["head"] == pytest.approx(cost["seconds"] / 3600)
    assert hours["worker"] == pytest.approx(hours["head"] / 2)  # one of its two CPUs
    assert cost["total"] == pytest.approx(2 * cost["seconds"])

    assert priced.dlsys("jobs", "retry", job).code == 0
    assert priced.dlsys("jobs", "wait", job).code == 0
    again = _status(priced, job)
    assert again["cost"]["total"] > cost["total"]
    assert len(attempts(run)) == 3

    shown = json.loads(priced.dlsys("runs", "show", job, "--json").out)
    assert shown["cost"] == again["cost"]
    assert shown["tags"]["dlsys.currency"] == "EUR"
    metrics = shown["metrics"]
    assert metrics["cost/total"] == pytest.approx(again["cost"]["total"])
    assert metrics["cost/node_hours_of/worker"] == pytest.approx(
        again["cost"]["groups"]["worker"]["node_hours"]
    )
    assert 0 < metrics["cost/seconds_to_target"] < cost["seconds"]
    assert metrics["cost/to_target"] == pytest.approx(2 * metrics["cost/seconds_to_target"])
    told = _history(priced, "cost/total")
    assert len(told) > 3
    assert all(a <= b for a, b in itertools.pairwise(told)), "it never starts again"
    text = priced.dlsys("runs", "show", job).out
    assert f"{again['cost']['total']:,.2f}".rstrip("0") in text
    assert "EUR: " in text
    assert "node-hours of head" in text


def _submit(folder: Folder) -> str:
    done = folder.dlsys("submit", "job.yaml", "-d", "--env", f"STEP_SECONDS={STEP_SECONDS}")
    assert done.code == 0, done.err
    return done.out.strip()


def _status(folder: Folder, job: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads(folder.dlsys("jobs", "status", job, "--json").out)
    return found


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


def _history(folder: Folder, name: str) -> list[float]:
    store = folder.store()
    (run,) = store.runs()
    points = store.client.get_metric_history(run.info.run_id, name)
    return [point.value for point in sorted(points, key=lambda point: point.step)]


def test_rates_are_those_of_the_file(tmp_path: Path) -> None:
    file = tmp_path / "cluster.yaml"
    file.write_text(CLUSTER.replace(", price: 3600", ""))
    assert rates_of(load_cluster(file).cluster) == {"currency": "EUR", "prices": {"worker": 7200.0}}
    file.write_text(CLUSTER.replace(", price: 3600", "").replace(", price: 7200", ""))
    assert rates_of(load_cluster(file).cluster) is None


def test_a_sweep_costs_what_its_trials_do(tmp_path: Path) -> None:
    node = {"name": "gpu-0", "group": "gpu", "address": "10.0.0.1", "CPU": 8.0, "GPU": 2.0, "price": 4.0}
    worker = {"rank": 0, "node": "a", "CPU": 1.0, "GPU": 1.0, "gpus": ["0"]}
    attempt = {"currency": "USD", "nodes": {"a": node}, "workers": [worker]}
    sweep = RunPaths.create("mine-20260101-120000-abcd")
    for number in (0, 1):
        folder = sweep.make_trial(number).places
        folder.mkdir()
        told = {**attempt, "began": 0.0, "until": 1800.0 * (number + 1)}
        (folder / "attempt-1.json").write_text(json.dumps(told))
    found = known(sweep)
    assert found is not None
    assert found.hours == {"gpu": pytest.approx(0.75)}
    assert found.total == pytest.approx(3.0)
    assert found.seconds == 3600.0
    alone = known(sweep.trial(0))
    assert alone is not None
    assert alone.total == pytest.approx(1.0)
