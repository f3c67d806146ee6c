"""A sweep that is taken up again has the trials that it began with."""

from __future__ import annotations

from pathlib import Path

import pytest

from dlsys.jobs.sweep import prepare, reopen
from dlsys.spec import LoadedSweep, load_any

JOB = """\
kind: train
name: varied
workload: lenet-5
data: {source: digits}
batch_size: 64
stop: {epochs: 3}
"""
SWEEP = """\
kind: sweep
name: varied
job: job.yaml
overrides: {gradient.clip_norm: 1.0, optimizer: {name: sgd, lr: 0.1}}
metric: valid/accuracy
space:
  optimizer.name: {choice: [sgd, adam]}
  strategy.name: {choice: [ddp, fsdp, zero]}
  resources.workers: {choice: [2, 4]}
trials: 9
"""


def test_what_one_trial_has_by_default_is_in_no_others_way(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("DLSYS_HOME", str(tmp_path / "home"))
    (tmp_path / "job.yaml").write_text(JOB)
    (tmp_path / "sweep.yaml").write_text(SWEEP)
    began = load_any(
        tmp_path / "sweep.yaml", ("overrides.resources={workers: 2}", "overrides.strategy={name: ddp}")
    )
    assert isinstance(began, LoadedSweep)
    again = reopen(prepare(began))
    assert again.job.job == began.job.job
    for optimizer in ("sgd", "adam"):
        for strategy in ("ddp", "fsdp", "zero"):
            settings = {"optimizer.name": optimizer, "strategy.name": strategy, "resources.workers": 4}
            assert again.build(settings) == began.build(settings)
