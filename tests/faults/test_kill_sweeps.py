"""A thousand trials whose driver is killed, and sweeps of one name at once. Minutes each."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from typing import Any

import pytest
from runner import Folder

from dlsys.paths import RunPaths

pytestmark = [pytest.mark.faults, pytest.mark.ray, pytest.mark.timeout(1500)]

TRIALS = 1000
JOB = """
kind: train
name: short
workload: softmax-regression
data: {source: digits}
batch_size: 512
optimizer: {name: sgd, lr: 0.1}
stop: {epochs: 1}
"""
SWEEP = """
kind: sweep
name: many
job: short.yaml
metric: valid/accuracy
space: {optimizer.lr: {log_uniform: [1.0e-3, 1.0]}}
trials: {trials}
"""


def made(path: Path, trials: int) -> Folder:
    folder = Folder(path)
    (path / "short.yaml").write_text(JOB)
    (path / "many.yaml").write_text(SWEEP.replace("{trials}", str(trials)))
    return folder


def events(paths: RunPaths) -> list[dict[str, Any]]:
    text = (paths.root / "ledger.jsonl").read_bytes()
    return [json.loads(line) for line in text.splitlines(keepends=True) if line.endswith(b"\n")]


def reported(folder: Folder) -> Counter[int]:
    return Counter(event["trial"] for event in events(folder.run) if event["event"] == "report")


def assert_tracked(folder: Folder, sweep: RunPaths, trials: int) -> None:
    store = folder.store()
    runs = store.runs(prefix=sweep.id, limit=5000)
    (parent,) = [run for run in runs if run.data.tags["dlsys.run_id"] == sweep.id]
    children = [run for run in runs if run is not parent]
    assert {run.data.tags["mlflow.parentRunId"] for run in children} == {parent.info.run_id}
    names = Counter(run.data.tags["dlsys.run_id"] for run in children)
    assert names == {f"{sweep.id}.{number:05}": 1 for number in range(trials)}
    assert {run.info.status for run in runs} == {"FINISHED"}
    assert all("valid/accuracy" in run.data.metrics for run in children)


def test_a_thousand_trials_and_three_kills(tmp_path: Path) -> None:
    folder = made(tmp_path, TRIALS)
    try:
        command = ["run", "many.yaml"]
        for until in (150, 450, 800):
            process = folder.start(*command)
            folder.wait_for(lambda: _count(folder) >= until, timeout=400)  # noqa: B023 - called at once
            process.kill()
            folder.finish(process)
            command = ["sweep", "resume", "many"]
        done = folder.dlsys(*command, "--json", timeout=600)
        assert done.code == 0, done.err
        assert reported(folder) == dict.fromkeys(range(TRIALS), 1)
        folder.assert_alone(60)
        synced = folder.dlsys("runs", "sync", folder.run.id, timeout=300)
        assert synced.code == 0, synced.err
        assert_tracked(folder, folder.run, TRIALS)
    finally:
        folder.clean()


def _count(folder: Folder) -> int:
    try:
        return sum(reported(folder).values())
    except (OSError, ValueError):  # no run yet
        return 0


def test_four_sweeps_of_one_name_at_once(tmp_path: Path) -> None:
    folder = made(tmp_path, 4)
    try:
        started = []
        for _ in range(4):
            process = folder.start("run", "many.yaml", "--json")
            started.append(process)
        assert [process.wait(300) for process in started] == [0] * 4
        sweeps = [RunPaths(root) for root in (tmp_path / ".dlsys" / "runs").iterdir()]
        assert len(sweeps) == 4
        for sweep in sweeps:
            told = Counter(event["trial"] for event in events(sweep) if event["event"] == "report")
            assert told == dict.fromkeys(range(4), 1)
            assert folder.dlsys("runs", "sync", sweep.id).code == 0
            assert_tracked(folder, sweep, 4)
    finally:
        folder.clean()
