"""A project that was moved, renamed or copied: its runs' places are those of here."""

from __future__ import annotations

import shutil
import sqlite3
from contextlib import closing
from pathlib import Path

import pytest

from dlsys.jobs.moved import folder_of, settle
from dlsys.jobs.run import prepare
from dlsys.paths import RunPaths, read_json
from dlsys.spec.load import load
from dlsys.track.store import Store

JOB = """
kind: train
name: mine
workload: softmax-regression
data: {source: csv, path: ../data/t.csv, target: y}
batch_size: 4
stop: {epochs: 1}
"""


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A project with a run and a store in it."""
    made = tmp_path / "before"
    for name, text in {"jobs/job.yaml": JOB, "data/t.csv": "x,y\n1,0\n2,1\n"}.items():
        (made / name).parent.mkdir(parents=True, exist_ok=True)
        (made / name).write_text(text)
    monkeypatch.chdir(made)
    monkeypatch.setenv("DLSYS_HOME", str(made / ".dlsys"))
    paths = prepare(load("jobs/job.yaml"))
    Store(read_json(paths.record)["uri"]).ensure_run(read_json(paths.record), paths)
    return made


def runs(project: Path, monkeypatch: pytest.MonkeyPatch) -> RunPaths:
    monkeypatch.chdir(project)
    monkeypatch.setenv("DLSYS_HOME", str(project / ".dlsys"))
    (found,) = RunPaths.all()
    return found


def test_at_home_nothing_changes(project: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    paths = runs(project, monkeypatch)
    before = paths.record.read_text()
    assert folder_of(paths) == project / "jobs"
    assert paths.record.read_text() == before


@pytest.mark.parametrize("copied", [True, False])
def test_its_job_and_its_store_moved_along(
    copied: bool, project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    after = tmp_path / "after, elsewhere"
    (shutil.copytree if copied else shutil.move)(project, after)
    paths = runs(after, monkeypatch)
    assert folder_of(paths) == after / "jobs"
    record = read_json(paths.record)
    assert record["uri"] == f"sqlite:///{after}/.dlsys/mlflow.db"
    loaded = load(paths.spec, folder=folder_of(paths))
    assert loaded.folder == after / "jobs"
    store = Store(record["uri"])
    run_id = store.ensure_run(record, paths)
    assert store.client.get_run(run_id).info.artifact_uri.startswith((after / ".dlsys").as_uri())
    store.log_files(run_id, {"note.txt": "here"}, [])
    assert list((after / ".dlsys" / "artifacts").rglob("note.txt"))
    assert project.exists() is copied
    assert not list(tmp_path.glob("before/**/note.txt")), "nothing is made at the old place"


def test_a_store_of_its_own_stays_where_it_is(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = runs(project, monkeypatch)
    record = read_json(paths.record)
    other = f"sqlite:///{tmp_path}/team.db"
    paths.record.write_text(__import__("json").dumps({**record, "uri": other}))
    shutil.move(project, tmp_path / "after")
    assert settle(runs(tmp_path / "after", monkeypatch))["uri"] == other


def test_artifacts_of_other_places_are_left_alone(
    project: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = project / ".dlsys" / "mlflow.db"
    with closing(sqlite3.connect(base)) as file, file:
        file.execute("UPDATE runs SET artifact_uri = 's3://bucket/run'")
    shutil.move(project, tmp_path / "after")
    settle(runs(tmp_path / "after", monkeypatch))
    with closing(sqlite3.connect(tmp_path / "after" / ".dlsys" / "mlflow.db")) as file:
        assert file.execute("SELECT artifact_uri FROM runs").fetchall() == [("s3://bucket/run",)]
