"""Folders to begin with train as they are, and meet what they expect."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from types import SimpleNamespace

import pytest
from runner import Folder

import dlsys
from dlsys.cli import files
from dlsys.cli.init import Start, init
from dlsys.errors import UsageError
from dlsys.spec.given import load_job


def made(start: Start, folder: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    init(start, folder / "mine")
    monkeypatch.chdir(folder / "mine")
    monkeypatch.setattr(sys, "path", list(sys.path))
    monkeypatch.delitem(sys.modules, "model", raising=False)
    return folder / "mine"


@pytest.mark.parametrize("start", list(Start))
def test_all_of_it_is_sound(
    start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = made(start, tmp_path, monkeypatch)
    assert "job.yaml" in capsys.readouterr().out
    for path in folder.glob("*.yaml"):
        files.check(str(path))
    assert not list(folder.glob("*.txt"))
    again = {path.relative_to(folder): path.read_bytes() for path in folder.rglob("*") if path.is_file()}
    init(start, tmp_path / "other")
    assert all((tmp_path / "other" / name).read_bytes() == content for name, content in again.items())


@pytest.mark.parametrize("start", list(Start))
def test_it_meets_what_it_expects(start: Start, tmp_path: Path) -> None:
    init(start, tmp_path / "mine")
    text = (tmp_path / "mine" / "job.yaml").read_text()
    folder = Folder(tmp_path / "mine")
    (folder.path / "job.yaml").write_text(text)
    done = folder.dlsys("run", "job.yaml", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["status"] == "FINISHED"


def test_its_own_test_is_sound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would train; that it says the right things is shown by a run that does not."""
    made(Start.table, tmp_path, monkeypatch)
    asked: list[tuple[object, ...]] = []

    def run(job: str, *, changes: dict[str, object], quiet: bool) -> object:
        asked.append((load_job(job, changes).training.stop.epochs, quiet))
        return SimpleNamespace(status="FINISHED", metrics={"valid/loss": 0.5})

    monkeypatch.setattr(dlsys, "run", run)
    told: dict[str, object] = {}
    exec(Path("test_job.py").read_text(), told)
    told["test_it_trains"]()  # type: ignore[operator]
    assert asked == [(1, True)]


def test_a_folder_that_holds_something_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "notes").write_text("mine")
    with pytest.raises(UsageError, match="mine: is there already, and not empty"):
        init(Start.table, tmp_path / "mine")
    assert (tmp_path / "mine" / "notes").read_text() == "mine"
