"""A run that has no folder here is watched in MLflow, beside whoever writes to that."""

from __future__ import annotations

import sqlite3
import time
from contextlib import closing

import pytest

from dlsys.cli import watch
from dlsys.errors import UsageError
from dlsys.paths import RunPaths
from dlsys.track.address import sqlite_path
from dlsys.track.store import Store

ID = "far-20261130-120000-abcd"


@pytest.fixture
def far(uri: str) -> str:
    """MLflow's id of a run that goes on elsewhere."""
    client = Store(uri).client
    run = client.create_run(client.get_experiment_by_name("e").experiment_id, tags={"dlsys.run_id": ID})
    for step in range(1, 5):
        for name in ("mine/score", "loss", "system/rank0/peak_memory_mb"):
            client.log_metric(run.info.run_id, name, 1 / step, int(time.time() * 1000), step)
    return str(run.info.run_id)


def test_it_is_found_and_read_while_a_writer_writes(uri: str, far: str) -> None:
    path = sqlite_path(uri)
    assert path is not None
    with closing(sqlite3.connect(path)) as writer:
        writer.execute("BEGIN IMMEDIATE")
        writer.execute("UPDATE metrics SET value = 9 WHERE step = 4")
        run_id, look = watch._found(None, uri)
        seen = look()
        writer.rollback()
    assert run_id == ID
    assert seen.status == "RUNNING"
    assert seen.line == "step 4  loss 0.25  mine/score 0.25"
    Store(uri).finish(far, "FAILED", int(time.time() * 1000))
    assert look().status == "FAILED"


def test_one_that_has_its_folder_here_does_not_go_on(
    uri: str, far: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its driver and its writer were killed, and MLflow never heard of it."""
    monkeypatch.setenv("MLFLOW_TRACKING_URI", uri)
    assert watch._found(None, None)[0] == ID
    RunPaths.create(ID)
    with pytest.raises(UsageError, match="no run goes on"):
        watch._found(None, None)


def test_one_that_is_deleted(uri: str, far: str) -> None:
    _, look = watch._found(ID, uri)
    Store(uri).client.delete_run(far)
    with pytest.raises(UsageError, match="is deleted"):
        look()
