"""What runs cost, on a real cluster of two priced nodes."""

from __future__ import annotations

import itertools
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest
from harness import QUICK, job
from runner import JOB, Folder

from dlsys.jobs.cost import Meter, attempts, described, from_metrics, known, rates_of
from dlsys.jobs.launch.assignment import Assignment
from dlsys.jobs.launch.presence import Place, describe
from dlsys.paths import RunPaths, write_json
from dlsys.plan.cost import line
from dlsys.spec.load import load, load_cluster
from dlsys.track.spool import records

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
@pytest.mark.faults
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


def run_of(name: str, *spans: tuple[float, float]) -> RunPaths:
    """A run whose attempts had a worker on half of a node for 4 USD an hour."""
    node = {"name": "gpu-0", "group": "gpu", "address": "10.0.0.1", "CPU": 8.0, "GPU": 2.0, "price": 4.0}
    worker = {"rank": 0, "node": "a", "CPU": 1.0, "GPU": 1.0, "gpus": ["0"]}
    paths = RunPaths.create(f"{name}-20260101-120000-abcd")
    write_json(paths.rates, {"currency": "USD", "prices": {"gpu": 4.0}})
    for number, span in enumerate(spans, 1):
        add_attempt(paths, number, span, node, worker)
    return paths


def add_attempt(
    paths: RunPaths, number: int, span: tuple[float, float], node: dict[str, Any], worker: dict[str, Any]
) -> None:
    paths.places.mkdir(exist_ok=True)
    told = {"currency": "USD", "nodes": {"a": node}, "workers": [worker], "began": span[0], "until": span[1]}
    write_json(paths.places / f"attempt-{number}.json", told)


def test_a_sweep_costs_what_its_trials_do() -> None:
    sweep = run_of("sweep")
    for number in (0, 1):
        trial = sweep.make_trial(number)
        (run_of(f"trial{number}", (0.0, 1800.0 * (number + 1))).places).rename(trial.places)
    found = known(sweep)
    assert found is not None
    assert found.hours == {"gpu": pytest.approx(0.75)}
    assert found.total == pytest.approx(3.0)
    assert found.seconds == 3600.0
    alone = known(sweep.trial(0))
    assert alone is not None
    assert alone.total == pytest.approx(1.0)


def test_a_place_has_the_price_of_its_group(tmp_path: Path) -> None:
    paths = run_of("mine")
    told = Assignment(
        str(paths.root), job(QUICK, "resources={workers: 3, cpus: 2}"), "", "", attempt=1, fence=1
    )
    sizes = {"CPU": 8.0, "memory": 1e9}
    nodes = [
        {"NodeID": "a", "Labels": {"dlsys/group": "gpu", "dlsys/node": "gpu-0"}, "Resources": sizes},
        {"NodeID": "b", "Labels": {"dlsys/group": "free"}, "Resources": sizes},
        {"NodeID": "c", "Labels": {}, "Resources": sizes},
    ]
    places = [Place("a", "10.0.0.1", ()), Place("a", "10.0.0.1", ()), Place("b", "10.0.0.2", ())]
    found = describe(told, places, nodes, began=0.0)
    assert [node["price"] for node in found["nodes"].values()] == [4.0, None]
    assert [node["name"] for node in found["nodes"].values()] == ["gpu-0", "10.0.0.2"]
    paths.places.mkdir()
    write_json(paths.places / "attempt-1.json", {**found, "until": 3600.0})
    shown = described(paths)
    assert shown is not None
    assert line(shown) == "0.5 node-hours of gpu, 0.25 of free; free without a price"


def test_figures_go_on_in_the_spool_and_know_the_target(root: Path) -> None:
    job = load(root / "jobs" / "vision" / "lenet5.yaml").job
    assert str(job.expect["valid/accuracy"]) == ">= 0.97"
    paths = run_of("mine", (0.0, 1800.0), (7200.0, 10_800.0))
    steps = [(900.0, 1, {"perf/step_seconds": 0.0}), (9000.0, 2, {"valid/accuracy": 0.98})]
    (paths.spool / "rank-0.jsonl").write_text(
        "".join(json.dumps({"t": 1000 * t, "s": s, "m": m}) + "\n" for t, s, m in steps)
    )
    for _ in range(2):  # a second driver, that does nothing more
        Meter(paths, job).close()
    told = [record for record, _ in records(paths.spool / "cost.jsonl")]
    assert told[0]["s"] == 5400
    assert told[0]["m"] == {
        "cost/node_hours": 0.75,
        "cost/node_hours_of/gpu": 0.75,
        "cost/total": 3.0,
        "cost/seconds_to_target": 2700.0,
        "cost/to_target": 1.5,
    }
    elsewhere = from_metrics(told[0]["m"], "USD")
    assert elsewhere is not None
    assert line(elsewhere) == "3 USD: 0.75 node-hours of gpu"
    paths.rates.unlink()
    (paths.spool / "cost.jsonl").unlink()
    Meter(paths, job).close()
    assert not (paths.spool / "cost.jsonl").exists(), "no price, no figures"
