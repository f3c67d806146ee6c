"""A sweep's writer: the parent and every trial, once each, whoever dies and when."""

from __future__ import annotations

import contextlib
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from operator import eq
from pathlib import Path
from typing import Any

import psutil
import pytest

from dlsys.cli import runs as commands
from dlsys.errors import TrackingError, UsageError
from dlsys.paths import RunPaths, new_run_id, read_json, write_json
from dlsys.track import writer as writing
from dlsys.track.spool import Spool
from dlsys.track.store import Store
from dlsys.track.writer import Delivery, delivered, sync

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from outage import Server


@pytest.fixture(scope="module")
def empty_store(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """MLflow takes seconds to make one."""
    path = tmp_path_factory.mktemp("empty") / "mlflow.db"
    Store(f"sqlite:///{path}").experiment("e")
    return path


@pytest.fixture
def uri(empty_store: Path, tmp_path: Path) -> str:
    return f"sqlite:///{shutil.copy(empty_store, tmp_path / 'mlflow.db')}"


@pytest.fixture
def sweep(uri: str) -> RunPaths:
    paths = RunPaths.create(new_run_id("s"))
    describe(paths, uri)
    own(paths, psutil.Process())
    return paths


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


def test_fifty_trials_once_each_under_one_parent(sweep: RunPaths, uri: str) -> None:
    for number in range(25):
        trial(sweep, number, steps=number % 3 + 1, status="FINISHED")
    delivery = Delivery(sweep, Store(uri))
    pass_over(delivery)
    for number in range(25, 50):
        trial(sweep, number, steps=number % 3 + 1)
    pass_over(delivery)
    for number in range(25, 50):
        paths = sweep.trial(number)
        paths.spec.write_text("name: t\n")
        paths.log(0).write_text("hello\n" if number == 25 else "")
        (paths.stacks / "attempt-1").mkdir()
        end(paths, "FAILED" if number == 49 else "FINISHED", "out of memory" if number == 49 else "")
    record_steps(sweep, range(1, 51))
    pass_over(delivery, end(sweep))
    assert delivered(sweep)
    runs = found(uri)
    parent = runs.pop(sweep.id)
    assert parent.info.status == "FINISHED"
    assert steps(uri, parent) == list(range(1, 51))
    assert sorted(runs) == [sweep.trial(number).id for number in range(50)]
    for number in range(50):
        run = runs[sweep.trial(number).id]
        assert run.data.tags["mlflow.parentRunId"] == parent.info.run_id
        assert run.data.params == {"lr": str(number % 10)}
        assert steps(uri, run) == list(range(1, number % 3 + 2))
        assert run.info.status == ("FAILED" if number == 49 else "FINISHED")
        assert run.info.start_time <= run.info.end_time
    assert runs[sweep.trial(49).id].data.tags["dlsys.cause"] == "out of memory"
    client = Store(uri).client
    kept = {n: [f.path for f in client.list_artifacts(runs[sweep.trial(n).id].info.run_id)] for n in (25, 26)}
    assert kept == {25: ["logs", "spec.yaml"], 26: ["spec.yaml"]}, "an empty log is not worth a file"


class Killed(BaseException):
    """The writer process ends here, without another word."""


def ailing(store: Store, fails: Callable[[int], bool], error: BaseException, *, after: bool) -> Store:
    """A store with an error in some of the calls that change something, before or after the change."""
    count = iter(range(1, 1000))

    def wrap(do: Callable[..., Any]) -> Callable[..., Any]:
        def wrapped(*arguments: Any, **named: Any) -> Any:
            failing = fails(next(count))
            if failing and not after:
                raise error
            result = do(*arguments, **named)
            if failing:
                raise error
            return result

        return wrapped

    for name in ("create_run", "log_batch", "set_terminated", "update_run"):
        setattr(store.client, name, wrap(getattr(store.client, name)))
    return store


@pytest.mark.parametrize("after", [False, True])
def test_a_writer_that_dies_at_any_call(after: bool, sweep: RunPaths, uri: str) -> None:
    trial(sweep, 0, steps=3, status="FINISHED")
    trial(sweep, 1, steps=2, status="FAILED")
    trial(sweep, 2, steps=1)
    outcome = end(sweep, "KILLED")
    calls = 0
    while not delivered(sweep):
        calls += 1
        # The first writer dies in its first call, the next one in its second, and so on.
        with contextlib.suppress(Killed):
            store = ailing(Store(uri), partial(eq, calls), Killed(), after=after)
            pass_over(Delivery(sweep, store), outcome)
        assert calls < 100
    assert calls > 5
    all_is_there(sweep, uri)


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("seed", range(3))
def test_a_store_that_fails_often(after: bool, seed: int, sweep: RunPaths, uri: str) -> None:
    chance = random.Random(seed)
    error = ConnectionError("no answer")
    store = ailing(Store(uri), lambda call: chance.random() < 0.4, error, after=after)
    delivery: Delivery | None = None
    trial(sweep, 0, steps=3, status="FINISHED")
    trial(sweep, 1, steps=2, status="FAILED")
    trial(sweep, 2, steps=1)
    outcome = end(sweep, "KILLED")
    errors = 0
    while not delivered(sweep):
        try:
            delivery = delivery or Delivery(sweep, store)
            pass_over(delivery, outcome)
        except TrackingError:
            errors += 1
        assert errors < 100
    assert errors > 1
    all_is_there(sweep, uri)


def all_is_there(sweep: RunPaths, uri: str) -> None:
    runs = found(uri)
    assert statuses(uri) == {"sweep": "KILLED", "00000": "FINISHED", "00001": "FAILED", "00002": "KILLED"}
    assert [steps(uri, runs[sweep.trial(n).id]) for n in range(3)] == [[1, 2, 3], [1, 2], [1]]
    assert all(runs[sweep.trial(n).id].data.params == {"lr": str(n)} for n in range(3))


def write(sweep: RunPaths) -> subprocess.Popen[bytes]:
    return subprocess.Popen([sys.executable, "-m", "dlsys.track.writer", str(sweep.root)], env={**os.environ})


def rows(uri: str) -> int:
    with sqlite3.connect(uri.removeprefix("sqlite:///"), timeout=30) as connection:
        (count,) = connection.execute("SELECT count(*) FROM runs").fetchone()
    return int(count)


@pytest.fixture
def driver() -> Iterator[subprocess.Popen[bytes]]:
    process = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
    yield process
    process.kill()
    process.wait()


def test_writers_and_a_driver_that_are_killed(
    sweep: RunPaths, uri: str, driver: subprocess.Popen[bytes]
) -> None:
    """The writer at several moments, then the driver: what ran is KILLED, what never started is not there."""
    own(sweep, psutil.Process(driver.pid))
    for number in range(50):
        trial(sweep, number, steps=2, status=None if number >= 45 else "FINISHED")
    trial(sweep, 50)
    for made in (2, 20, 40):
        writer = write(sweep)
        deadline = time.monotonic() + 120
        while rows(uri) < made:
            assert writer.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.002)
        writer.kill()
        writer.wait()
    writer = write(sweep)
    driver.kill()
    driver.wait()
    try:
        assert writer.wait(120) == 0
    finally:
        writer.kill()
    assert read_json(sweep.outcome)["cause"] == "the driver process died"
    told = statuses(uri)
    assert told.pop("sweep") == "FAILED"
    assert len(told) == 50
    assert Counter(told.values()) == {"FINISHED": 45, "KILLED": 5}
    runs = found(uri)
    assert all(steps(uri, runs[sweep.trial(number).id]) == [1, 2] for number in range(50))
    assert not sweep.trial(45).outcome.exists(), "a killed trial has not ended for good"


@pytest.mark.parametrize("restarted", [False, True])
def test_a_trial_taken_up_again(restarted: bool, sweep: RunPaths, uri: str) -> None:
    paths = trial(sweep, 0, steps=2)
    end(paths, "FAILED", "out of memory")
    delivery = Delivery(sweep, Store(uri))
    pass_over(delivery)
    (made,) = (run.info.run_id for name, run in found(uri).items() if name == paths.id)
    paths.outcome.unlink()
    if restarted:
        delivery = Delivery(sweep, Store(uri))
    pass_over(delivery)
    assert statuses(uri)["00000"] == "RUNNING"
    record_steps(paths, range(3, 5))
    end(paths)
    pass_over(delivery)
    run = found(uri)[paths.id]
    assert (run.info.run_id, run.info.status) == (made, "FINISHED")
    assert run.data.tags["dlsys.cause"] == ""
    assert steps(uri, run) == [1, 2, 3, 4]


def test_a_trial_that_went_on_while_nobody_looked(sweep: RunPaths, uri: str) -> None:
    paths = trial(sweep, 0, steps=2, status="FINISHED")
    pass_over(Delivery(sweep, Store(uri)))
    paths.outcome.unlink()
    record_steps(paths, range(3, 6))
    end(paths)
    pass_over(Delivery(sweep, Store(uri)))
    assert steps(uri, found(uri)[paths.id]) == [1, 2, 3, 4, 5]


def test_another_store_gets_everything_too(sweep: RunPaths, uri: str) -> None:
    trial(sweep, 0, steps=2, status="FINISHED")
    outcome = end(sweep)
    pass_over(Delivery(sweep, Store(uri)), outcome)
    other = f"{uri}.other"
    shutil.copy(uri.removeprefix("sqlite:///"), other.removeprefix("sqlite:///"))
    with sqlite3.connect(other.removeprefix("sqlite:///")) as connection:
        connection.execute("PRAGMA foreign_keys = ON")
        for table in ("tags", "params", "metrics", "latest_metrics", "runs"):
            connection.execute(f"DELETE FROM {table}")
    for paths in (sweep, sweep.trial(0)):
        describe(paths, other)
        paths.mlflow.unlink()
    pass_over(Delivery(sweep, Store(other)), outcome)
    run = found(other)[sweep.trial(0).id]
    assert (run.info.status, run.data.params) == ("FINISHED", {"lr": "0"})
    assert steps(other, run) == [1, 2]


def test_a_sweep_taken_up_again(sweep: RunPaths, uri: str) -> None:
    trial(sweep, 0, steps=1)
    trial(sweep, 1, steps=1)
    pass_over(Delivery(sweep, Store(uri)), end(sweep, "KILLED"))
    assert statuses(uri) == {"sweep": "KILLED", "00000": "KILLED", "00001": "KILLED"}
    sweep.outcome.unlink()
    delivery = Delivery(sweep, Store(uri))
    record_steps(sweep.trial(0), range(2, 3))
    pass_over(delivery)
    told = {"sweep": "RUNNING", "00000": "RUNNING", "00001": "KILLED"}
    assert statuses(uri) == told, "the other one is not trained yet"
    end(sweep.trial(0))
    pass_over(delivery, end(sweep))
    assert statuses(uri) == {**told, "sweep": "FINISHED", "00000": "FINISHED"}


def test_a_trial_that_mlflow_refuses_holds_up_no_other(
    sweep: RunPaths, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    trial(sweep, 0, steps=1)
    store = Store(uri)
    pass_over(Delivery(sweep, store))
    # As a user does with a bad one, in MLflow's own pages.
    store.client.delete_run(found(uri)[sweep.trial(0).id].info.run_id)
    record_steps(sweep.trial(0), range(2, 4))
    for number in range(1, 4):
        trial(sweep, number, steps=2, status="FINISHED")
    end(sweep)
    monkeypatch.setattr(writing, "_GRACE", 0.2)
    monkeypatch.setattr(writing, "_PAUSE", 0.01)
    assert writing.run(sweep) == 3
    assert statuses(uri) == dict.fromkeys(["sweep", "00001", "00002", "00003"], "FINISHED")
    assert not delivered(sweep)


def test_a_thousand_quiet_trials_are_not_looked_at_each_second(
    sweep: RunPaths, monkeypatch: pytest.MonkeyPatch
) -> None:
    class Sink:
        """Takes everything."""

        def __getattr__(self, name: str) -> Any:
            return lambda *arguments: "m"

    for number in range(120):
        trial(sweep, number, steps=1, status="FINISHED")
    delivery = Delivery(sweep, Sink())
    assert pass_over(delivery) == 120
    looks: Counter[str] = Counter()
    state = writing._state

    def counted(paths: RunPaths) -> writing.State:
        looks[paths.id] += 1
        return state(paths)

    monkeypatch.setattr(writing, "_state", counted)
    assert pass_over(delivery) == 0
    assert looks.total() <= writing._TURN + 1
    sweep.trial(7).outcome.unlink()
    record_steps(sweep.trial(7), range(2, 3))
    trial(sweep, 120, steps=1)
    assert pass_over(delivery) >= 1, "a new one is seen at once"
    pass_over(delivery)
    assert len(looks) == 122, "all have their turn"
    delivery = Delivery(sweep, Sink())
    pass_over(delivery)
    looks.clear()
    pass_over(delivery)
    assert looks.total() <= writing._TURN + 3, "nor after a restart"


def test_sync_brings_a_sweep_whose_processes_are_all_gone(
    sweep: RunPaths, uri: str, driver: subprocess.Popen[bytes], capsys: pytest.CaptureFixture[str]
) -> None:
    own(sweep, psutil.Process(driver.pid))
    driver.kill()
    driver.wait()
    trial(sweep, 0, steps=2, status="FINISHED")
    trial(sweep, 1, steps=1)
    commands.sync(None)
    assert capsys.readouterr().out == f"{sweep.id}: 3 points delivered\n"
    assert statuses(uri) == {"sweep": "FAILED", "00000": "FINISHED", "00001": "KILLED"}
    commands.sync(None)
    assert capsys.readouterr().out == "", "it has been delivered"
    record_steps(sweep.trial(1), range(2, 3))
    commands.sync(sweep.trial(1).id)
    assert capsys.readouterr().out == f"{sweep.id}: 1 points delivered\n"
    assert sync(sweep) == 0


def test_a_sweep_is_found_by_its_id_and_a_trial_by_its_own(
    sweep: RunPaths, uri: str, capsys: pytest.CaptureFixture[str]
) -> None:
    for number in range(3):
        trial(sweep, number, steps=1, status="FINISHED")
    assert RunPaths.all() == [sweep]
    assert RunPaths.find("s-") == sweep
    assert RunPaths.find(sweep.id) == sweep
    assert RunPaths.find(f"{sweep.id}.00002") == sweep.trial(2)
    with pytest.raises(UsageError, match="fits several runs"):
        RunPaths.find(f"{sweep.id}.0")
    with pytest.raises(UsageError, match="no run"):
        RunPaths.find(f"{sweep.id}.00003")
    pass_over(Delivery(sweep, Store(uri)), end(sweep))
    commands.list_runs(uri=uri)
    assert capsys.readouterr().out.count(sweep.id) == 1, "trials would drown the rest"
    commands.show("s-", uri=uri)
    assert f"{sweep.root}\n" in capsys.readouterr().out
    commands.show(f"{sweep.id}.00001", uri=uri)
    assert f"{sweep.trial(1).root}\n" in capsys.readouterr().out


@pytest.mark.faults
def test_a_server_that_is_gone_for_the_rest_of_the_sweep(tmp_path: Path) -> None:
    server = Server(tmp_path)
    writer = None
    try:
        sweep = RunPaths.create(new_run_id("s"))
        describe(sweep, server.uri)
        own(sweep, psutil.Process())
        trial(sweep, 0, steps=1, status="FINISHED")
        trial(sweep, 1, steps=1)
        writer = write(sweep)
        deadline = time.monotonic() + 120
        while not all(sweep.trial(number).cursor.exists() for number in range(2)):
            assert time.monotonic() < deadline
            time.sleep(0.05)
        server.signal(signal.SIGKILL)
        record_steps(sweep.trial(1), range(2, 5))
        end(sweep.trial(1))
        trial(sweep, 2, steps=2, status="FAILED")
        end(sweep)
        assert writer.wait(120) == 3
        server.restart()
        assert sync(sweep) == 5
        runs = found(server.uri)
        told = {"sweep": "FINISHED", "00000": "FINISHED", "00001": "FINISHED", "00002": "FAILED"}
        assert statuses(server.uri) == told
        assert [steps(server.uri, runs[sweep.trial(n).id]) for n in range(3)] == [[1], [1, 2, 3, 4], [1, 2]]
        assert delivered(sweep)
    finally:
        if writer is not None:
            writer.kill()
            writer.wait()
        server.close()
