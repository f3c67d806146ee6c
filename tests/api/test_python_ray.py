"""dlsys from Python on Ray: several workers, sweeps, and a Ray that the program has already."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest
import ray
from python_job import JOB
from ray._private import utils, worker
from ray._private.parameter import RayParams

import dlsys
from dlsys.errors import RunError, UsageError

pytestmark = pytest.mark.ray

TWO = {"resources.workers": 2, "strategy": {"name": "ddp"}, "stop.epochs": 1}


@pytest.mark.usefixtures("store")
def test_two_workers_while_an_event_loop_runs() -> None:
    """As in a notebook; Ray is gone behind it, and its code is as it was."""

    async def train() -> dlsys.Run:
        return dlsys.run(JOB, changes=TWO, quiet=True)

    def state() -> list[object]:
        own = [worker.print_to_stdstream, utils.set_sigterm_handler, RayParams.__init__]
        return [dict(os.environ), signal.getsignal(signal.SIGINT), signal.getsignal(signal.SIGTERM), *own]

    before = state()
    run = asyncio.run(train())
    assert state() == before
    assert not ray.is_initialized()
    assert run.status == "FINISHED"
    assert {"system/rank0/peak_memory_mb", "system/rank1/peak_memory_mb"} <= run.metrics.keys()
    assert run.curve("system/rank1/peak_memory_mb").notna().all(axis=None)
    assert dlsys.load_model(run).training is False


@pytest.mark.usefixtures("store")
def test_a_sweep(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from dlsys.spec import yaml

    monkeypatch.chdir(tmp_path)
    Path("job.yaml").write_text(yaml.dump(JOB))
    search = {
        "kind": "sweep",
        "name": "search",
        "job": "job.yaml",
        "metric": "valid/accuracy",
        "space": {"optimizer.lr": {"choice": [1.0e-5, 0.1]}},
        "searcher": {"name": "grid"},
        "trials": 2,
    }
    sweep = dlsys.sweep(search, changes={"overrides.stop.epochs": 1}, quiet=True)
    assert not ray.is_initialized()
    assert list(sweep.trials.columns[:4]) == ["trial", "status", "epochs", "valid/accuracy"]
    assert sweep.trials["optimizer.lr"].tolist() == [0.1, 1.0e-5], "the best first"
    assert sweep.best.job["optimizer"]["lr"] == 0.1
    assert sweep.best.job["stop"]["epochs"] == 1
    assert sweep.best.metrics["valid/accuracy"] == sweep.trials["valid/accuracy"].max()
    assert "test/accuracy" in sweep.best.metrics
    assert dlsys.find(sweep.best.id) == sweep.best
    assert dlsys.load_model(sweep.best).training is False
    with pytest.raises(UsageError, match="is a sweep"):
        dlsys.load_model(sweep.id)


def test_only_sweeps_are_swept() -> None:
    with pytest.raises(UsageError, match=r"^job: is of kind: train, and a sweep is wanted") as caught:
        dlsys.sweep(JOB)
    assert caught.value.__notes__ == ["dlsys.run trains jobs."]


@pytest.mark.usefixtures("store")
def test_a_ray_that_the_program_has_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    ended: list[str] = []
    monkeypatch.setattr(ray, "is_initialized", lambda: True)
    monkeypatch.setattr(ray, "shutdown", lambda: ended.append("shutdown"))
    with pytest.raises(RunError, match=r"this process has called ray\.init already") as caught:
        dlsys.run(JOB, changes=TWO, quiet=True)
    assert ended == []
    assert caught.value.__notes__ == ["Call ray.shutdown() before, or train with resources.workers=1."]
    assert caught.value.run.status == "FAILED"
