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

# One for each second of the head, and two for the worker's.
CLUSTER = """
kind: cluster
name: priced
provider: local
currency: EUR
nodes:
  - {name: head, cpus: 1, price: 3600}
  - {name: worker, cpus: 1, price: 7200}
"""
STEPS, STEP_SECONDS = 69, 0.1


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
def test_the_cost_of_a_run_goes_on_when_its_driver_is_killed(priced: Folder) -> None:
    job = _submit(priced)
    priced.wait_for(lambda: priced.step() > STEPS // 2)
    (driver,) = (p for p in priced.processes() if _words(p)[-2:] == ["--resume", job] and "-P" in _words(p))
    driver.kill()
    before = _status(priced, job)["cost"]
    assert before["total"] > 0
    assert priced.dlsys("jobs", "wait", job).code == 0
    status = _status(priced, job)
    cost = status["cost"]
    assert cost["total"] > before["total"]

    first, second = attempts(priced.run)
    for attempt in (first, second):
        names = [attempt["nodes"][worker["node"]]["name"] for worker in attempt["workers"]]
        assert sorted(names) == ["head-0", "worker-0"]
    assert first["until"] < second["began"]
    # A killed driver's last 2 s may be lost; what the desk counts has the start of processes in it.
    assert STEPS * STEP_SECONDS - 2 < cost["seconds"] < status["ran"]
    hours = cost["seconds"] / 3600
    assert {name: group["node_hours"] for name, group in cost["groups"].items()} == {
        "head": pytest.approx(hours),
        "worker": pytest.approx(hours),
    }
    assert cost["total"] == pytest.approx(3 * cost["seconds"])

    shown = json.loads(priced.dlsys("runs", "show", job, "--json").out)
    assert shown["cost"] == cost
    assert len(shown["places"]) == 2
    assert shown["tags"]["dlsys.currency"] == "EUR"
    metrics = shown["metrics"]
    assert metrics["cost/total"] == pytest.approx(cost["total"])
    assert metrics["cost/node_hours_of/worker"] == pytest.approx(hours)
    assert 0 < metrics["cost/seconds_to_target"] < cost["seconds"]
    assert metrics["cost/to_target"] == pytest.approx(3 * metrics["cost/seconds_to_target"])
    told = _history(priced, "cost/total")
    assert len(told) > 3
    assert all(a <= b for a, b in itertools.pairwise(told)), "it never starts again"
    (line,) = (x for x in priced.dlsys("runs", "show", job).out.splitlines() if x.startswith("cost "))
    assert float(line.split()[1]) == pytest.approx(cost["total"], abs=0.01)
    assert " EUR: " in line
    assert " node-hours of " in line


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
