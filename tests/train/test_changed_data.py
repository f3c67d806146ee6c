"""A run that goes on reads what it began with, or is refused."""

from __future__ import annotations

import os
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from harness import Trained, job, train

from dlsys.errors import UsageError
from dlsys.paths import read_json
from dlsys.spec import TrainJob
from dlsys.spec import fingerprint as module
from dlsys.spec.fingerprint import fingerprint, refuse_changes

TABLE = """
kind: train
name: test
workload: softmax-regression
data: {source: csv, path: t.csv, target: y}
batch_size: 16
stop: {steps: 4}
"""


def table(folder: Path, rows: int = 60, first: str = "0") -> None:
    lines = [f"{first if i == 0 else i % 7},{i % 2}" for i in range(rows)]
    (folder / "t.csv").write_text("\n".join(["x,y", *lines]))


def run(folder: Path, *overrides: str) -> Trained:
    return train(job(TABLE, *overrides), folder)


@pytest.mark.parametrize("change", [{"rows": 61}, {"first": "5"}])
def test_a_changed_table(change: dict, tmp_path: Path) -> None:
    table(tmp_path)
    run(tmp_path)
    table(tmp_path)
    run(tmp_path, "stop.steps=5")
    table(tmp_path, **change)
    with pytest.raises(UsageError) as found:
        run(tmp_path, "stop.steps=6")
    assert "data.path: what it names has changed since the checkpoint of step 5" in str(found.value)
    assert "checkpoint.changed_data=accept" in found.value.hint
    run(tmp_path, "stop.steps=6", "checkpoint.changed_data=accept")
    run(tmp_path, "stop.steps=7")  # which is now what it goes on with


def folder_job(path: str) -> TrainJob:
    return job(
        TABLE.replace("{source: csv, path: t.csv, target: y}", f"{{source: image-folder, path: {path}}}")
    )


def test_a_folder(tmp_path: Path) -> None:
    for name in ("a/1.png", "a/2.png", "b/1.png"):
        (tmp_path / "f" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "f" / name).write_text(name)
    described = folder_job("f")
    before = fingerprint(described, tmp_path)
    assert fingerprint(described, tmp_path) == before
    (tmp_path / "f" / "b" / "1.png").write_text("a new one")
    after = fingerprint(described, tmp_path)
    assert after != before
    os.rename(tmp_path / "f/a/1.png", tmp_path / "f/a/3.png")
    assert fingerprint(described, tmp_path) not in (before, after)
    assert fingerprint(described, tmp_path).keys() == {"data.path"}


def test_times_say_nothing(tmp_path: Path) -> None:
    """On another machine the same files have others."""
    for place in (tmp_path / "one" / "f", tmp_path / "other" / "f"):
        place.mkdir(parents=True)
        (place / "1.png").write_text("x")
    os.utime(tmp_path / "other" / "f" / "1.png", (1, 1))
    described = folder_job("f")
    assert fingerprint(described, tmp_path / "one") == fingerprint(described, tmp_path / "other")


def test_what_is_too_large_to_be_read_is_read_in_pieces(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_READ", 1000)
    monkeypatch.setattr(module, "_PIECE", 10)
    file = tmp_path / "t.csv"
    file.write_bytes(bytes(3000))
    described = job(TABLE)
    before = fingerprint(described, tmp_path)
    for at in (0, 2999):
        content = bytearray(3000)
        content[at] = 1
        file.write_bytes(content)
        assert fingerprint(described, tmp_path) != before


def test_digests_of_another_kind_say_nothing() -> None:
    refuse_changes({"data.path": "abc"}, {"data.path": "2:def"}, "it began")
    with pytest.raises(UsageError, match="has changed since it began"):
        refuse_changes({"data.path": "2:abc"}, {"data.path": "2:def"}, "it began")


def test_a_sweeps_trials_read_what_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlsys.jobs import sweep as sweeps
    from dlsys.spec.load import LoadedSweep, load_any

    monkeypatch.setenv("DLSYS_HOME", str(tmp_path / "home"))
    table(tmp_path)
    (tmp_path / "job.yaml").write_text(TABLE + "optimizer: {name: sgd}\n")
    (tmp_path / "sweep.yaml").write_text(
        "kind: sweep\nname: s\njob: job.yaml\nmetric: valid/loss\ntrials: 2\n"
        "space: {optimizer.weight_decay: {uniform: [0, 1]}}\n"
    )
    loaded = load_any(tmp_path / "sweep.yaml")
    assert isinstance(loaded, LoadedSweep)
    paths = sweeps.prepare(loaded)

    def driver() -> Any:
        return SimpleNamespace(_loaded=loaded, _record=read_json(paths.record), _paths=paths)

    sweeps._Driver._look_at_data(driver())
    began = (read_json(paths.record) or {})["data"]
    assert began == fingerprint(loaded.job.job, tmp_path)
    assert sweeps._Driver._data_of(driver(), loaded.build({"optimizer.weight_decay": 0.5})) == began
    assert not sweeps._Driver._data_of(driver(), loaded.build({"data.path": "other.csv"}))
    sweeps._Driver._look_at_data(driver())
    table(tmp_path, rows=61)
    with pytest.raises(UsageError, match=r"data\.path: what it names has changed since the sweep began"):
        sweeps._Driver._look_at_data(driver())
