"""What MLflow will never take: one item does not hold up the rest, and the end says so."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest

from dlsys.errors import TrackingError, UsageError
from dlsys.jobs.delivery import refused
from dlsys.paths import RunPaths, new_run_id, read_json, write_json
from dlsys.spec.names import wrong_name
from dlsys.track import writer as writing
from dlsys.track.address import refuse_deleted, resolved
from dlsys.track.spool import Spool
from dlsys.track.store import Store


@pytest.fixture
def uri(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/m.db"


@pytest.fixture
def paths(uri: str) -> RunPaths:
    made = RunPaths.create(new_run_id("t"))
    tags = {"dlsys.run_id": made.id}
    record = {"run_id": made.id, "uri": uri, "experiment": "mine", "params": {"f(x)": "1", "lr": "2"}}
    write_json(made.record, {**record, "tags": tags})
    return made


def ended(paths: RunPaths, **points: float) -> None:
    spool = Spool(paths.spool / "rank-0.jsonl")
    for step in (1, 2):
        spool.metrics(step, points)
    spool.close()
    write_json(paths.outcome, {"status": "FINISHED", "cause": ""})


def run_of(uri: str) -> Any:
    (found,) = Store(uri).runs(prefix="t-")
    return found


def test_odd_names_are_set_aside_and_told(paths: RunPaths, uri: str) -> None:
    ended(paths, **{"valid/acc@5": 0.5, "valid/loss": 1.0, "a/../b": 1.0})
    assert writing.run(paths) == 0
    found = run_of(uri)
    assert found.info.status == "FINISHED"
    assert found.data.metrics == {"valid/loss": 1.0}
    assert found.data.params == {"lr": "2"}
    assert found.data.tags["dlsys.refused"] == "a/../b, f(x), valid/acc@5"
    error = refused(paths)
    assert isinstance(error, TrackingError)
    assert error.exit_code == 1
    assert "MLflow refuses a/../b, f(x), valid/acc@5; it has all else" in str(error)


@pytest.mark.parametrize(
    "name",
    ["a", "valid/top 5: x-y_z.1", "acc@5", "f1(macro)", "kl %", "/a", "a/", "a//b", "..", "x" * 251, "é"],
)
def test_the_rule_is_mlflows_own(name: str) -> None:
    from mlflow.exceptions import MlflowException
    from mlflow.utils.validation import _validate_length_limit, _validate_metric_name

    try:
        _validate_metric_name(name)
        _validate_length_limit("Metric name", 250, name)
        taken = True
    except MlflowException:
        taken = False
    assert (wrong_name(name) is None) == taken


def test_a_refusal_that_nobody_foresaw_is_the_items_own(uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of many items in a request, those are found that MLflow does not take."""
    from mlflow import MlflowClient
    from mlflow.exceptions import MlflowException
    from mlflow.protos.databricks_pb2 import INVALID_PARAMETER_VALUE

    store = Store(uri)
    run_id = store.client.create_run(store.experiment("mine")).info.run_id
    log = MlflowClient.log_batch

    def picky(self: Any, run: str, metrics: Any = (), params: Any = (), tags: Any = (), **more: Any) -> Any:
        if any(metric.key == "bad" for metric in metrics):
            raise MlflowException("no such thing", error_code=INVALID_PARAMETER_VALUE)
        return log(self, run, metrics, params, tags, **more)

    monkeypatch.setattr(MlflowClient, "log_batch", picky)
    points = [(name, 1.0, 0, step) for step in range(30) for name in ("good", "bad")]
    assert store.log(run_id, points, {}, {}) == {"bad": "no such thing"}
    assert len(store.client.get_metric_history(run_id, "good")) == 30


def delete(uri: str, stage: str = "deleted") -> None:
    with closing(sqlite3.connect(uri.removeprefix("sqlite:///"))) as base:
        base.execute("UPDATE experiments SET lifecycle_stage = ? WHERE name = 'mine'", (stage,))
        base.commit()


def test_a_deleted_experiment_ends_the_waiting_at_once(
    paths: RunPaths, uri: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(writing, "_GRACE", 1e9)
    Store(uri).experiment("mine")
    delete(uri)
    ended(paths, a=1.0)
    assert writing.run(paths) == 3
    error = refused(paths)
    assert error is not None
    assert "must be in the 'active' state" in str(error)
    assert f"dlsys runs sync {paths.id}" in error.hint
    delete(uri, "active")
    assert writing.run(paths) == 0
    assert not paths.refusal.exists()
    assert run_of(uri).data.metrics == {"a": 1.0}


def test_a_deleted_run_is_not_its_items_fault(paths: RunPaths, uri: str) -> None:
    Store(uri)
    spool = Spool(paths.spool / "rank-0.jsonl")
    spool.metrics(1, {"a": 1.0})
    writing.sync(paths)
    Store(uri).client.delete_run(read_json(paths.mlflow)["run_id"])
    spool.metrics(2, {"a": 2.0})
    spool.close()
    with pytest.raises(TrackingError) as found:
        writing.sync(paths)
    assert found.value.lasting


def test_what_is_away_is_no_refusal(paths: RunPaths) -> None:
    record = read_json(paths.record)
    write_json(paths.record, {**record, "uri": "http://127.0.0.1:9"})
    with pytest.raises(TrackingError) as found:
        writing.sync(paths)
    assert not found.value.lasting


def test_a_deleted_experiment_in_a_file_is_told_before_training(uri: str) -> None:
    refuse_deleted(uri, "mine")  # there is no file yet
    Store(uri).experiment("mine")
    refuse_deleted(uri, "mine")
    delete(uri)
    refuse_deleted(uri, "another")
    with pytest.raises(UsageError) as found:
        refuse_deleted(uri, "mine")
    assert "'mine' was deleted in MLflow" in str(found.value)
    assert "mlflow experiments restore -x 1" in found.value.hint


@pytest.mark.parametrize(
    ("uri", "found"),
    [
        ("sqlite:///mlflow.db", "sqlite:////here/mlflow.db"),
        ("sqlite:////there/m.db", "sqlite:////there/m.db"),
        ("http://server:5000", "http://server:5000"),
        ("postgresql+psycopg2://u@h/db", "postgresql+psycopg2://u@h/db"),
    ],
)
def test_an_address_is_made_whole(uri: str, found: str) -> None:
    assert resolved(uri, Path("/here")) == found


@pytest.mark.parametrize(
    "uri", ["./mlruns", "mlruns", "file:./mlruns", "sqlite:///a#b.db", "sqlite:///a?b.db"]
)
def test_an_address_that_can_never_work_is_refused(uri: str) -> None:
    with pytest.raises(UsageError, match=r"tracking\.uri"):
        resolved(uri, Path("/here"))
