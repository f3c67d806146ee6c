"""`dlsys run` with its runs in an object store."""

from __future__ import annotations

import os
import shutil
import signal
from pathlib import Path

import pytest
from runner import Folder

from dlsys.jobs.mirror.objects import Objects


@pytest.fixture
def stored(folder: Folder, store: str) -> Folder:
    """A user's folder, with DLSYS_STORE set."""
    folder.environment |= {**os.environ, "DLSYS_STORE": store, **folder.environment}
    return folder


def in_store(store: str) -> set[str]:
    """The files of the only run."""
    return {path.split("/", 2)[2] for path in Objects(store).files("", deep=True)}


@pytest.mark.slow
def test_a_run_is_in_the_store_and_goes_on_from_there(stored: Folder, store: str) -> None:
    done = stored.dlsys("run", "job.yaml", "stop.epochs=1")
    assert done.code == 0, done.err
    files = in_store(store)
    assert {"spec.yaml", "record.json", "owner.json", "outcome.json", "spool/rank-0.jsonl"} <= files
    assert "logs/rank-0.log" in files
    last = stored.run.checkpoints.joinpath("best").read_text()
    assert f"checkpoints/{last}/manifest.json" in files
    assert len({path.split("/")[1] for path in files if path.startswith("checkpoints/step")}) <= 3
    stored.assert_alone(200)  # the mirror too
    # Another machine: nothing of the run is there.
    shutil.rmtree(stored.path / ".dlsys")
    again = stored.dlsys("run", "--resume", "mine", "stop.epochs=2")
    assert again.code == 0, again.err
    assert "continues from the checkpoint" in again.err
    stored.assert_alone(200)
    stored.dlsys("runs", "sync", "mine")  # a busy machine's writer may have given up
    assert set(stored.history("train/loss").values()) == {1}
    assert len(stored.history("train/loss")) == max(stored.history("train/loss"))
    stored.assert_alone(200)


def test_a_store_that_cannot_be_used_is_told_before_anything_is_trained(stored: Folder, s3: object) -> None:
    done = stored.dlsys("run", "job.yaml", DLSYS_STORE="s3://no-such-bucket/x")
    assert done.code == 2
    assert "s3://no-such-bucket/x" in done.err
    assert "bucket does not exist" in done.err
    assert stored.step() == 0
    stored.assert_alone(200)


def test_without_a_store_there_is_no_mirror(folder: Folder, tmp_path: Path) -> None:
    done = folder.dlsys("run", "job.yaml", "stop.epochs=1")
    assert done.code == 0
    assert not (folder.run.root / ".mirror").exists()


@pytest.mark.faults
def test_what_a_killed_driver_wrote_is_sent_all_the_same(stored: Folder, store: str) -> None:
    process = stored.start("run", "job.yaml", STEP_SECONDS="0.02")
    stored.wait_for(lambda: stored.step() > 20)
    os.kill(process.pid, signal.SIGKILL)
    stored.finish(process)
    stored.assert_alone(200)
    last = sorted(path.name for path in stored.run.checkpoints.glob("step-*"))[-1]
    assert f"checkpoints/{last}/manifest.json" in in_store(store)
    spool = stored.run.spool / "rank-0.jsonl"
    whole = spool.read_bytes()[: spool.read_bytes().rfind(b"\n") + 1]
    assert Objects(store).read(f"runs/{stored.run.id}/spool/rank-0.jsonl") == whole


SWEEP = """
kind: sweep
name: search
job: job.yaml
overrides: {checkpoint: {every: 1 epoch}}
metric: valid/accuracy
mode: max
space: {optimizer.lr: {choice: [0.05, 0.1]}}
searcher: {name: grid}
scheduler: {name: asha, max: 3 epochs}
trials: 2
"""


@pytest.mark.ray
@pytest.mark.slow
def test_a_sweeps_trials_are_in_the_store_too(stored: Folder, store: str, tmp_path: Path) -> None:
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    # As on another machine: the trials' node has a folder of its own.
    done = stored.dlsys("run", "sweep.yaml", timeout=280, DLSYS_NODE_HOME=str(tmp_path / "node"))
    assert done.code == 0, done.err
    stored.assert_alone(200)
    files = in_store(store)
    assert {"ledger.jsonl", "trained.yaml", "outcome.json"} <= files
    for number in range(2):
        trial = f"trials/{stored.run.id}.{number:05}"
        assert {f"{trial}/spec.yaml", f"{trial}/outcome.json", f"{trial}/spool/rank-0.jsonl"} <= files
        assert any(path.startswith(f"{trial}/checkpoints/step-") for path in files)
        assert (tmp_path / "node" / "runs" / stored.run.id / trial / "spool" / "rank-0.jsonl").exists()
        assert (stored.run.root / trial / "spool" / "rank-0.jsonl").exists(), "the driver's node has it too"
