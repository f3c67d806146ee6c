"""`dlsys.run`: what `dlsys run` would train, and nothing left changed behind it."""

from __future__ import annotations

import asyncio
import os
import random
import signal
import sys
import threading
import time
import traceback
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from python_job import JOB

import dlsys
from dlsys.errors import ExpectationError, Interrupted, SpecError, UsageError
from dlsys.spec import yaml


def state() -> dict[str, Any]:
    """What a program has as its own."""
    return {
        "environment": dict(os.environ),
        "stdout": sys.stdout,
        "stderr": sys.stderr,
        "handlers": [signal.getsignal(n) for n in (signal.SIGINT, signal.SIGTERM, signal.SIGALRM)],
        "interval": sys.getswitchinterval(),
        "threads": torch.get_num_threads(),
        "random": (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()),
        "folder": os.getcwd(),
    }


@pytest.mark.usefixtures("store")
def test_a_mapping_trains_what_its_file_does(
    trained: dlsys.Run, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """The same job and the same weights; progress is talk, on standard error."""
    file = tmp_path / "job.yaml"
    file.write_text(yaml.dump(JOB))
    run = dlsys.run(file)
    assert run != trained
    assert run.status == trained.status == "FINISHED"
    assert run.job == trained.job
    one, other = (dlsys.load_model(each).state_dict() for each in (run, trained))
    assert all(torch.equal(one[name], other[name]) for name in other)
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert lines[0] == f"run {run.id}"
    assert any(line.startswith("epoch 2.0/2  step 46  loss ") for line in lines)


@pytest.mark.usefixtures("store")
def test_nothing_is_left_changed(capsys: pytest.CaptureFixture[str]) -> None:
    """While an event loop runs, as in a notebook; twice."""
    before_threads, before_interval = torch.get_num_threads(), sys.getswitchinterval()
    torch.set_num_threads(3)
    sys.setswitchinterval(0.01)
    for seed in (random.seed, np.random.seed, torch.manual_seed):
        seed(20)

    async def train() -> dlsys.Run:
        return dlsys.run(JOB, changes={"stop.epochs": 1, "resources.cpus": 1}, quiet=True)

    try:
        before = state()
        runs = [asyncio.run(train()) for _ in range(2)]
        after = state()
    finally:
        torch.set_num_threads(before_threads)
        sys.setswitchinterval(before_interval)
    assert {name for name in before if before[name] != after[name]} == set()
    assert runs[0].id != runs[1].id
    assert runs[0].metrics["train/loss"] == runs[1].metrics["train/loss"]
    assert capsys.readouterr().err == "", "it was asked to be quiet"


@pytest.mark.usefixtures("store")
def test_a_result_that_falls_short_is_raised_with_its_run_in_another_thread() -> None:
    changes = {"stop.epochs": 1, "expect": {"valid/accuracy": ">= 0.999"}}
    fell_short = r"^valid/accuracy is 0\.\d+, expected >= 0\.999$"
    with ThreadPoolExecutor(1) as pool:
        call = pool.submit(dlsys.run, JOB, changes=changes, quiet=True)
        with pytest.raises(ExpectationError, match=fell_short) as caught:
            call.result()
    run = caught.value.run
    assert isinstance(run, dlsys.Run)
    assert run.status == "FAILED"
    assert run.metrics["valid/accuracy"] < 0.999
    assert run == dlsys.find(run.id)


@pytest.mark.usefixtures("store")
def test_ctrl_c_saves_and_is_raised(home: Path) -> None:
    def interrupt() -> None:
        while not list(home.glob("runs/*/checkpoints/step-*")):
            time.sleep(0.05)
        os.kill(os.getpid(), signal.SIGINT)

    before = state()["handlers"]
    threading.Thread(target=interrupt, daemon=True).start()
    with pytest.raises(Interrupted) as caught:
        dlsys.run(JOB, changes={"stop.epochs": 10_000}, quiet=True)
    assert state()["handlers"] == before
    assert caught.value.run.status == "KILLED"
    assert not dlsys.load_model(caught.value.run).training, "what it had learnt is there"


@pytest.mark.parametrize("given", [JOB, "quickstart"])
def test_mistakes_are_told_at_once_and_start_nothing(given: Any, home: Path) -> None:
    with pytest.raises(SpecError) as caught:
        dlsys.run(given, changes={"batch_size": "many", "optimizer.lrr": 1})
    told = {(problem.file, problem.line, problem.path) for problem in caught.value.problems}
    assert told == {("changes", 0, "batch_size"), ("changes", 0, "optimizer.lrr")}
    assert "Did you mean 'lr'" in str(caught.value)
    frames = [frame.filename for frame in traceback.extract_tb(caught.value.__traceback__)]
    assert not any("dlsys/spec" in name for name in frames), "the mistake is none of dlsys's own lines"
    assert not home.exists()


@pytest.mark.parametrize(
    ("name", "kind", "mend"),
    [("tune/lenet5_asha", "sweep", ["dlsys.sweep runs sweeps."]), ("cluster/two_nodes", "cluster", [])],
)
def test_only_jobs_are_trained(name: str, kind: str, mend: list[str], home: Path) -> None:
    with pytest.raises(UsageError, match=f"is of kind: {kind}, and a job is wanted here") as caught:
        dlsys.run(name)
    assert getattr(caught.value, "__notes__", []) == mend
    assert not home.exists()


@pytest.mark.usefixtures("store")
def test_a_run_goes_on(trained: dlsys.Run) -> None:
    """As one that was never stopped, in the same run of MLflow's."""
    half = dlsys.run(JOB, changes={"stop.epochs": 1}, quiet=True)
    whole = dlsys.resume(half, changes={"stop.epochs": 2}, quiet=True)
    assert (whole.id, whole.status) == (half.id, "FINISHED")
    one, other = (dlsys.load_model(each).state_dict() for each in (whole, trained))
    assert all(torch.equal(one[name], other[name]) for name in other)
    with pytest.raises(UsageError, match="seed"):
        dlsys.resume(half.id, changes={"seed": 7}, quiet=True)
    with pytest.raises(SpecError, match=r"changes: stop\.epochs: must be a whole number"):
        dlsys.resume(half.id, changes={"stop.epochs": "two"}, quiet=True)
    with pytest.raises(UsageError, match="none-2026"):
        dlsys.resume("none-2026")
