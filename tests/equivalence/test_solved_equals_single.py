"""Several workers that solve for a model from sums over their rows come to what one does."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import in_workers, job, reference, train, train_worker

from dlsys.errors import NonFiniteError, UsageError
from dlsys.spec import TrainJob
from dlsys.zoo.solved import Solved
from dlsys.zoo.tasks.classify import Classify

HEAD = "kind: train\nname: test\ntracking: {log_every: 1}\nstop: {steps: 12}\n"
# Batches that leave a last, smaller one: 1,437 digits are 7 × 192 + 93.
JOBS = {
    "k-means": "model: {clusters: 4, starts: 2}\ndata: {source: digits}\nbatch_size: 192\n",
    "naive-bayes": "data: {source: digits}\nmodel: {kind: bernoulli}\nbatch_size: 192\n",
}
OWN = "test_solved_equals_single:Nearest"


def spec(workload: str, *overrides: str) -> TrainJob:
    own = "data: {source: digits}\nbatch_size: 192\n"
    return job(f"{HEAD}workload: {workload}\n{JOBS.get(workload, own)}", *overrides)


class Nearest(Solved, Classify):
    """A workload of one's own: the nearest class's mean image."""

    def build(self) -> torch.nn.Module:
        model = torch.nn.Linear(64, 10)
        return model.requires_grad_(False)

    def forward(self, model, batch, carry):
        return model(batch["image"].flatten(1)), carry

    def statistics(self, model, batch):
        one_hot = torch.nn.functional.one_hot(batch["label"], 10).double()
        loss = self.objective(self.forward(model, batch, None)[0], batch).value * len(one_hot)
        return {
            "loss": loss,
            "sum": one_hot.T @ batch["image"].flatten(1).double(),
            "rows": one_hot.sum(0),
            **self.besides(batch),
        }

    def besides(self, batch):
        return {}

    def solve(self, model, sums):
        means = sums["sum"] / sums["rows"].clamp(min=1)[:, None]
        model.weight.copy_(means)
        model.bias.copy_(-(means**2).sum(1) / 2)
        return {}


class Broken(Nearest):
    def besides(self, batch):
        return {"logarithm": batch["image"].log().sum()}  # pixels of 0 have none


@pytest.mark.parametrize("strategy", ["ddp", "ring"])
@pytest.mark.parametrize("workload", [*JOBS, OWN])
def test_several_workers_equal_one(workload: str, strategy: str, tmp_path: Path) -> None:
    truth = reference(spec(workload))
    told = (f"strategy.name={strategy}", "resources.workers=2", "gradient.accumulate=2")
    several = in_workers(2, train_worker, spec(workload, *told), str(tmp_path))[0]
    assert several.losses == pytest.approx(truth.losses, rel=1e-6)
    assert several.weights.keys() == truth.weights.keys()
    for name, weight in truth.weights.items():
        torch.testing.assert_close(several.weights[name], weight, rtol=1e-5, atol=1e-6, msg=name)
    assert any(bool(weight.any()) for weight in truth.weights.values())
    for name, value in truth.result.metrics.items():
        if name.startswith("valid/"):
            assert several.result.metrics[name] == pytest.approx(value, rel=1e-5), name


def test_a_worker_without_a_row_adds_nothing(tmp_path: Path) -> None:
    """1,437 rows in batches of 1,436: the last has one row for two workers."""
    overrides = ("batch_size=1436", "stop={steps: 6}")
    truth = reference(spec("k-means", *overrides))
    told = (*overrides, "strategy.name=ddp", "resources.workers=2")
    several = in_workers(2, train_worker, spec("k-means", *told), str(tmp_path))[0]
    assert several.losses == pytest.approx(truth.losses, rel=1e-6)


def test_a_checkpoint_of_two_workers_goes_on_with_one(tmp_path: Path) -> None:
    told = ("strategy.name=ddp", "resources.workers=2", "stop.steps=7")
    in_workers(2, train_worker, spec("k-means", *told), str(tmp_path))
    went_on = train(spec("k-means"), tmp_path)
    truth = reference(spec("k-means"))
    assert min(went_on.losses) == 8
    for name, weight in truth.weights.items():
        torch.testing.assert_close(went_on.weights[name], weight, rtol=1e-5, atol=1e-6, msg=name)


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        (("optimizer={name: adam, lr: 0.1}",), "optimizer: .* learns from sums over rows, without gradients"),
        (("precision=bf16",), "precision: sums over all rows need more digits than bf16 has"),
        (
            ("strategy.name=fsdp", "resources.workers=2"),
            "strategy.name: .* is solved for as a whole, which it is under single, ddp, ring",
        ),
    ],
)
def test_what_only_gradients_have_is_refused_of_own_workloads_too(
    changes: tuple[str, ...], told: str, tmp_path: Path
) -> None:
    with pytest.raises(UsageError, match=told):
        train(spec(OWN, *changes), tmp_path)


def test_a_sum_that_is_not_finite_is_told_by_its_name(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match="step 1: the sum over rows of logarithm is not finite"):
        train(spec("test_solved_equals_single:Broken"), tmp_path)
