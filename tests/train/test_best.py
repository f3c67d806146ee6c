"""Which evaluation's checkpoint is the best, and which figures the loop has of every run."""

from __future__ import annotations

import math
from pathlib import Path

import pytest
import torch
from harness import QUICK, Trained, job, train

from dlsys.errors import UsageError
from dlsys.spec import TrainJob
from dlsys.train.best import Best
from dlsys.train.checkpoint import CheckpointStore
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.workload import Loss

NAN = math.nan
UP = "workload=test_best:Rising"


class Rising(Classify):
    """Measures what a test wants to see: by evaluation, the values of `VALUES`."""

    metrics = {"accuracy": "max", "seen": "max"}  # noqa: RUF012

    def build(self) -> torch.nn.Module:
        return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(64, 10))

    def objective(self, outputs, batch):
        value = super().objective(outputs, batch).value
        return Loss(value, {"size": value.detach() * 0 + 3.0})

    def measure(self, outputs, batch):
        return {**super().measure(outputs, batch), "seen": torch.zeros(())}

    def summarize(self, sums):
        return {**super().summarize(sums), "seen": VALUES.pop(0) if VALUES else 0.0}


class Odd(Rising):
    metrics = {"acc@5": "max"}  # noqa: RUF012


class OddLoss(Rising):
    def objective(self, outputs, batch):
        value = super().objective(outputs, batch).value
        return Loss(value, {"kl %": value.detach()})


VALUES: list[float] = []


def run(folder: Path, *overrides: str) -> Trained:
    return train(job_of(*overrides), folder)


def job_of(*overrides: str) -> TrainJob:
    usual = ("stop={steps: 50}", "evaluate='10 steps'", "checkpoint.every='1000 steps'")
    return job(QUICK, UP, *usual, *overrides)


def best(folder: Path) -> int | None:
    found = CheckpointStore(folder / "checkpoints", keep=9).best()
    return int(found.name[-10:]) if found else None


@pytest.mark.parametrize(
    ("mode", "values", "improved"),
    [
        ("max", [0.1, 0.3, 0.2], [True, True, False]),
        ("max", [NAN, 0.3, NAN, 0.4], [False, True, False, True]),
        ("max", [math.inf, 0.3], [True, False]),
        ("min", [NAN, NAN, 0.3], [False, False, True]),
        ("min", [0.3, 0.3, -math.inf, 0.1], [True, False, True, False]),
    ],
)
def test_the_order_of_values(mode: str, values: list[float], improved: list[bool]) -> None:
    watched = Best("valid/x", mode)  # type: ignore[arg-type]
    assert [watched.improves({"valid/x": value}) for value in values] == improved


def test_the_first_that_is_a_number_is_the_best_so_far(tmp_path: Path) -> None:
    VALUES[:] = [NAN, 0.4, NAN, 0.9, 0.8]
    run(tmp_path, "checkpoint.best=valid/seen")
    assert best(tmp_path) == 40


def test_a_figure_of_training_decides(tmp_path: Path) -> None:
    """It is as fresh as the evaluation's own: of the steps up to it."""
    VALUES[:] = [0.0] * 5
    found = run(tmp_path, "checkpoint.best=train/loss", "tracking.log_every=1000")
    losses = found.points["train/loss"]
    assert sorted(losses) == [10, 20, 30, 40, 50]
    assert best(tmp_path) == min(losses, key=lambda step: losses[step])


def test_another_metric_begins_anew_when_a_run_goes_on(tmp_path: Path) -> None:
    VALUES[:] = [0.5, 0.6, 0.2, 0.1, 0.1]
    run(tmp_path, "checkpoint.best=valid/loss", "stop={steps: 20}")
    found = run(tmp_path, "checkpoint.best=valid/seen")
    assert best(tmp_path) == 30, "the first after the change"
    assert any("was valid/loss; of valid/seen the next evaluation" in note for note in found.notes)


@pytest.mark.parametrize("metric", ["valid/seen", "valid/loss"])
def test_the_same_metric_goes_on(metric: str, tmp_path: Path) -> None:
    VALUES[:] = [0.5, 0.9, 0.7, 0.1, 0.1]
    run(tmp_path, f"checkpoint.best={metric}", "stop={steps: 20}")
    run(tmp_path, f"checkpoint.best={metric}", "optimizer.lr=1e-30")
    assert best(tmp_path) == 20 if metric == "valid/seen" else best(tmp_path) >= 20


def test_a_schedule_that_watches_another_metric_begins_anew(tmp_path: Path) -> None:
    VALUES[:] = [0.5, 0.9, 0.1, 0.2, 0.3]
    watched = "schedule={name: performance-schedule, patience: 0, gamma: 0.1, metric: %s}"
    run(tmp_path, watched % "valid/loss", "stop={steps: 20}")
    found = run(tmp_path, watched % "valid/seen")
    assert found.points["train/lr"][50] == pytest.approx(0.1), "0.1 was the best so far, and it rose"
    assert any("of valid/seen the next evaluation" in note for note in found.notes)


def test_a_run_shorter_than_a_log_interval_has_figures(tmp_path: Path) -> None:
    VALUES[:] = [0.0]
    found = run(tmp_path, "stop={steps: 8}", "tracking.log_every=10")
    assert found.result.metrics["train/loss"] == found.points["train/loss"][8]
    assert "perf/step_seconds" in found.points


def test_a_target_of_training_is_looked_at_with_the_last_value(tmp_path: Path) -> None:
    VALUES[:] = [0.0] * 5
    found = run(tmp_path, "tracking.log_every=1000", "stop={steps: 50, target: {train/size: '>= 3'}}")
    assert (found.result.reason, found.result.position.step) == ("target", 10)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (("workload=test_best:Odd",), "'acc@5' has @, and MLflow takes letters"),
        (("workload=test_best:OddLoss",), "'kl %' has %"),
        (
            ("checkpoint.best=train/sise",),
            "checkpoint.best: 'train/sise' is not measured. Did you mean 'train/size'?",
        ),
        (
            ("schedule={name: performance-schedule, metric: train/x}",),
            "schedule.metric: 'train/x' is not measured",
        ),
        (("expect={valid/sen: '> 1'}",), "expect.valid/sen: test_best:Rising measures no 'sen'"),
    ],
)
def test_a_wrong_name_is_told_before_a_second_step(
    overrides: tuple[str, ...], said: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError) as found:
        run(tmp_path, *overrides)
    assert said in str(found.value)
