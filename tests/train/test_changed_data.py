"""A run that goes on reads what it began with, or is refused."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from harness import Trained, job, train

from dlsys.data.fingerprint import fingerprint
from dlsys.errors import UsageError
from dlsys.spec import TrainJob

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
