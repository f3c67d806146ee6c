"""MLflow refuses, hangs, fails or is locked: training goes on, and nothing is lost."""

from __future__ import annotations

import signal
import sqlite3
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from runner import Folder

from dlsys.track.store import Store

sys.path.insert(0, str(Path(__file__).parents[2] / "benchmarks"))
from outage import Server

pytestmark = pytest.mark.faults


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    made = Server(tmp_path)
    yield made
    made.close()


def each_step_once(uri: str, name: str = "train/loss") -> None:
    store = Store(uri)
    (run,) = store.runs()
    assert run.info.status == "FINISHED"
    steps = [point.step for point in store.client.get_metric_history(run.info.run_id, name)]
    assert sorted(steps) == list(range(1, 70))


@pytest.mark.parametrize("number", [signal.SIGSTOP, signal.SIGKILL])
def test_a_server_gone_in_the_middle(number: int, server: Server, folder: Folder, tmp_path: Path) -> None:
    process = folder.start("run", "job.yaml", f"tracking.uri={server.uri}", STEP_SECONDS="0.05")
    folder.wait_for(lambda: folder.step() >= 23)
    server.signal(number)
    folder.wait_for(lambda: folder.step() >= 46)
    if number == signal.SIGSTOP:
        server.signal(signal.SIGCONT)
        assert folder.finish(process).code == 0
        assert folder.dlsys("runs", "sync").code == 0
    else:
        done = folder.finish(process)
        assert done.code == 0, "a run does not fail because its tracker is away"
        assert "dlsys runs sync" in done.err
        folder.assert_alone(60)
        server.restart()
        done = folder.dlsys("runs", "sync")
        assert done.code == 0, done.err
    each_step_once(server.uri)


def test_no_server_from_the_start(folder: Folder, server: Server) -> None:
    server.signal(signal.SIGKILL)
    done = folder.dlsys("run", "job.yaml", f"tracking.uri={server.uri}")
    assert done.code == 0
    assert "dlsys runs sync" in done.err
    folder.assert_alone(60)
    server.restart()
    assert folder.dlsys("runs", "sync").code == 0
    each_step_once(server.uri)


def test_a_store_locked_for_a_minute(folder: Folder) -> None:
    folder.store()
    path = folder.path / ".dlsys" / "mlflow.db"
    lock = sqlite3.connect(path, isolation_level=None)
    lock.execute("BEGIN EXCLUSIVE")
    began = time.monotonic()
    process = folder.start("run", "job.yaml")
    folder.wait_for(lambda: folder.step() >= 69)
    assert time.monotonic() - began < 40, "training does not wait for the store"
    time.sleep(max(0, began + 60 - time.monotonic()))
    lock.execute("ROLLBACK")
    lock.close()
    assert folder.finish(process).code == 0
    folder.assert_alone(30)
    assert folder.dlsys("runs", "sync").code == 0
    each_step_once(f"sqlite:///{path}")
