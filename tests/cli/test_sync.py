"""`dlsys runs sync` goes on behind what MLflow refuses, and tells all of it."""

from __future__ import annotations

import os
from pathlib import Path

import psutil
import pytest
import typer

from dlsys.cli import runs
from dlsys.errors import TrackingError
from dlsys.paths import RunPaths, write_json
from dlsys.track import writer


@pytest.fixture
def made(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[RunPaths]:
    """Three runs that are not delivered."""
    monkeypatch.setenv("DLSYS_HOME", str(tmp_path))
    found = [RunPaths.create(f"run-20261130-12000{index}-abcd") for index in range(3)]
    for paths in found:
        write_json(paths.record, {"run_id": paths.id, "uri": "sqlite:////nowhere.db"})
    return found


def test_every_refusal_is_told_and_the_rest_delivered(
    made: list[RunPaths], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def deliver(paths: RunPaths) -> int:
        if paths.id == made[1].id:
            return 17
        raise TrackingError("is deleted", hint="Restore it.")

    monkeypatch.setattr(writer, "sync", deliver)
    with pytest.raises(typer.Exit) as ended:
        runs.sync(None)
    assert ended.value.exit_code == 1
    said = capsys.readouterr()
    assert said.out == f"{made[1].id}: 17 points delivered\n"
    for paths in (made[0], made[2]):
        assert f"dlsys: {paths.id}: is deleted\n       Restore it.\n" in said.err


def test_a_writer_at_work_is_told_with_what_it_met(
    made: list[RunPaths], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(writer, "sync", lambda paths: 0)
    me = psutil.Process(os.getpid())
    write_json(made[0].owner, {"writer": [me.pid, me.create_time()]})
    write_json(made[0].refusal, {"reason": "nobody answers", "lasting": False})
    runs.sync(None)
    assert f"{made[0].id}: its own writer is at work, and told: nobody answers\n" in capsys.readouterr().out
