"""A pipeline computes what one worker computes, and the state goes both ways."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import (
    Trained,
    assert_equal,
    assert_same_figures,
    in_workers,
    job,
    reference,
    train,
    train_worker,
)

from dlsys.spec import TrainJob

pytestmark = pytest.mark.slow

HEAD = "kind: train\nname: test\ntracking: {log_every: 1}\n"
JOBS = {
    "lenet-5": "data: {source: digits}\noptimizer: {name: sgd, lr: 0.05, momentum: 0.9}\n"
    "gradient: {clip_norm: 1.0}\nregularize: [{name: l2, strength: 0.001}, {name: max-norm, limit: 3}]\n",
    "resnet": "model: {depth: 8, width: 8, norm: group}\ndata: {source: digits}\n"
    "optimizer: {name: adam, lr: 0.001}\n",
}
STEPS = 12
# 1,437 digits are 2 × 480 + 477: an epoch's last batch is smaller, and divides into no pieces of 4.
LENET = ("batch_size=480",)


def spec(workload: str, *overrides: str) -> TrainJob:
    text = f"{HEAD}workload: {workload}\n{JOBS[workload]}batch_size: 48\nstop: {{steps: {STEPS}}}\n"
    return job(text, *overrides)


def pipeline(workload: str, size: int, *overrides: str) -> TrainJob:
    return spec(workload, *overrides, "strategy.name=pipeline", f"resources.workers={size}")


def assert_same(truth: Trained, several: Trained, *, losses: float = 1e-5) -> None:
    """Of the steps that `several` did."""
    assert several.losses
    for step, loss in several.losses.items():
        assert loss == pytest.approx(truth.losses[step], rel=losses, abs=losses / 10), f"step {step}"
        norm = truth.points["train/grad_norm"][step]
        assert several.points["train/grad_norm"][step] == pytest.approx(norm, rel=losses, abs=losses / 10)
    assert truth.weights.keys() == several.weights.keys()
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, several.weights[name], atol=1e-4), name
    assert_same_figures(truth, several)


def check(workload: str, tmp_path: Path, size: int, common: tuple[str, ...], *own: str) -> None:
    truth = reference(spec(workload, *common))
    several = in_workers(
        size, train_worker, pipeline(workload, size, *common, *own), str(tmp_path / "several")
    )[0]
    assert truth.losses.keys() == several.losses.keys()
    assert_same(truth, several)


@pytest.mark.parametrize("workload", JOBS)
@pytest.mark.parametrize("schedule", ["gpipe", "1f1b", "interleaved"])
def test_two_stages_equal_one(workload: str, schedule: str, tmp_path: Path) -> None:
    check(workload, tmp_path, 2, LENET if workload == "lenet-5" else (), f"strategy.schedule={schedule}")


def test_four_stages_and_two_rows_of_two_equal_one(tmp_path: Path) -> None:
    check("lenet-5", tmp_path / "row", 4, LENET)
    check("lenet-5", tmp_path / "rows", 4, LENET, "strategy.stages=2")


def test_accumulation(tmp_path: Path) -> None:
    check("lenet-5", tmp_path, 2, (*LENET, "gradient.accumulate=2"))


def test_fewer_rows_than_pieces_and_a_row_of_workers_without_any(tmp_path: Path) -> None:
    """1,437 = 1,436 + 1: the last batch is one row, for two rows of workers and pieces of 4."""
    overrides = ("batch_size=1436", "stop={steps: 4}")
    check("lenet-5", tmp_path, 4, overrides, "strategy.stages=2")


def test_bf16_is_near(tmp_path: Path) -> None:
    overrides = (*LENET, "precision=bf16")
    truth = reference(spec("lenet-5", *overrides))
    several = in_workers(2, train_worker, pipeline("lenet-5", 2, *overrides), str(tmp_path / "two"))[0]
    for step, loss in truth.losses.items():
        assert several.losses[step] == pytest.approx(loss, rel=1e-2), f"step {step}"


@pytest.mark.parametrize("schedule", ["1f1b", "interleaved"])
def test_state_goes_to_one_worker_and_back(schedule: str, tmp_path: Path) -> None:
    overrides = (*LENET, "optimizer={name: adam, lr: 0.003}")
    one = spec("lenet-5", *overrides)
    two = pipeline("lenet-5", 2, *overrides, f"strategy.schedule={schedule}")
    whole = reference(one)

    part = in_workers(2, train_worker, two, str(tmp_path / "there"), 6)[0]
    assert part.result.reason == "interrupted"
    assert_same(whole, train(one, tmp_path / "there"), losses=1e-4)

    part = train(one, tmp_path / "back", stop_after=6)
    assert part.result.reason == "interrupted"
    rest = in_workers(2, train_worker, two, str(tmp_path / "back"))[0]
    assert min(rest.losses) > 6
    assert_same(whole, rest, losses=1e-4)


def test_stopped_and_resumed_equals_uninterrupted(tmp_path: Path) -> None:
    """Bit for bit, and with dropout, whose random numbers go on where they were."""
    two = pipeline("lenet-5", 2, *LENET, "model.dropout=0.5")
    whole = in_workers(2, train_worker, two, str(tmp_path / "whole"))[0]
    in_workers(2, train_worker, two, str(tmp_path / "part"), 5)
    rest = in_workers(2, train_worker, two, str(tmp_path / "part"))[0]
    assert 0 < len(rest.losses) < STEPS
    assert_equal(whole.weights, rest.weights)


class Strided(torch.nn.Module):
    """Gives out, and passes back, what lies in pieces in memory."""

    def __init__(self, kind: str) -> None:
        super().__init__()
        self.kind = kind
        self.register_buffer("turn", torch.polar(torch.ones(16), torch.arange(16.0)))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        if self.kind == "complex":
            return (x * self.turn).real
        return (
            x.unflatten(1, (4, 4)).transpose(1, 2).flatten(1) if self.kind == "input" else x.T.contiguous().T
        )


def strided(kind: str) -> torch.nn.Sequential:
    layers = torch.nn.Linear(64, 16), Strided(kind), torch.nn.Linear(16, 16), Strided(kind)
    return torch.nn.Sequential(torch.nn.Flatten(), *layers, torch.nn.Linear(16, 10))


@pytest.mark.parametrize("split", ["['2']", "['3']"])
@pytest.mark.parametrize("kind", ["complex", "input", "output"])
def test_what_lies_in_pieces_is_sent(kind: str, split: str, tmp_path: Path) -> None:
    text = (
        f"{HEAD}workload: test_pipeline_equals_single:strided\nmodel: {{kind: {kind}}}\n"
        "data: {source: digits}\noptimizer: {name: sgd, lr: 0.05}\nbatch_size: 48\nstop: {steps: 4}\n"
    )
    truth = reference(job(text))
    cut = job(text, f"strategy={{name: pipeline, split: {split}}}", "resources.workers=2")
    assert_same(truth, in_workers(2, train_worker, cut, str(tmp_path))[0])
