"""A sweep's writer: what is taken up again or refused, how often it looks, and what the commands find."""

from __future__ import annotations

import shutil
import sqlite3
import subprocess
from collections import Counter
from typing import Any

import psutil
import pytest
from sweep_runs import describe, end, found, own, pass_over, record_steps, statuses, steps, trial

from dlsys.cli import runs as commands
from dlsys.errors import UsageError
from dlsys.paths import RunPaths
from dlsys.track import writer as writing
from dlsys.track.store import Store
from dlsys.track.writer import Delivery, delivered, sync


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
            return lambda *arguments: {} if name == "log" else "m"

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
