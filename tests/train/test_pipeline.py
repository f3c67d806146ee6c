"""How a pipeline deals blocks out, what it refuses, and what it counts."""

from __future__ import annotations

import os
import sys
import tempfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.distributed as dist
from harness import in_workers, job, train
from torch import Tensor, nn

from dlsys import data
from dlsys.data.dataset import Batch
from dlsys.data.loader import MicroBatch, StepBatch
from dlsys.errors import NonFiniteError, UsageError
from dlsys.spec import TrainJob
from dlsys.spec.train.strategy import Pipeline, stage_blocks
from dlsys.train.regularize import Regularizers
from dlsys.train.strategies.base import Parts
from dlsys.train.strategies.pipeline import PipelineStrategy
from dlsys.train.world import World
from dlsys.zoo.load import load_workload
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.workload import Carry, Phase

LENET = """
kind: train
name: test
workload: lenet-5
data: {source: digits}
batch_size: 48
optimizer: {name: sgd, lr: 0.1}
strategy: {name: pipeline}
resources: {workers: 2}
stop: {steps: 3}
tracking: {log_every: 1}
"""
BLOCKS = ("a", "b", "c", "d", "e")


def test_stages_without_a_split_are_even() -> None:
    assert stage_blocks(BLOCKS, 2, sizes=[1, 1, 1, 1, 4]) == (("a", "b", "c", "d"), ("e",))
    assert stage_blocks(BLOCKS, 3, sizes=[100, 0, 50, 0, 10]) == (("a",), ("b", "c"), ("d", "e"))
    assert stage_blocks(BLOCKS, 5) == tuple((name,) for name in BLOCKS)


def test_a_split_names_the_blocks_that_begin_a_stage() -> None:
    assert stage_blocks(BLOCKS, 3, ["b", "e"]) == (("a",), ("b", "c", "d"), ("e",))


@pytest.mark.parametrize(
    ("stages", "split", "message"),
    [
        (6, [], "6 stages need as many blocks, the model has 5"),
        (2, ["x"], "no block 'x'"),
        (3, ["c", "b"], "later and later"),
        (2, ["a"], "not the first"),
        (3, ["b"], "3 stages are 2 cuts, got 1"),
    ],
)
def test_a_wrong_split_says_why(stages: int, split: list[str], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        stage_blocks(BLOCKS, stages, split)


@pytest.mark.parametrize(
    ("options", "workers", "message"),
    [
        ({}, 1, "2 or more, got 1"),
        ({"stages": 2}, 3, "3 workers cannot be divided into rows of 2"),
        ({"micro_batches": 3}, 4, "1f1b needs one for each of the 4 stages, got 3"),
        ({"micro_batches": 5, "schedule": "interleaved"}, 2, "in 2 equal rounds: use 4"),
        ({"schedule": "interleaved"}, 3, "6 stages need as many blocks"),
    ],
)
def test_workers_and_pieces_must_fit(options: dict[str, Any], workers: int, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        Pipeline(name="pipeline", **options).deal(BLOCKS, workers)


def built(world: World, spec: TrainJob) -> tuple[PipelineStrategy, data.Splits]:
    splits = data.load(spec.data, Path())
    workload = load_workload(spec.workload, spec.model, splits.shape)
    strategy = PipelineStrategy()
    strategy.setup(Parts(spec, workload, Regularizers(spec.regularize), world))
    return strategy, splits


def batch_of(splits: data.Splits, rows: int) -> MicroBatch:
    batch = splits.train.batch(np.arange(rows))
    return MicroBatch({**batch, "key": torch.arange(rows)}, 1.0, rows)


def own_weights(world: World, spec: TrainJob) -> dict[str, Tensor]:
    return dict(built(world, spec)[0]._model.state_dict())


def test_each_worker_keeps_its_own_part_of_the_seeded_model(tmp_path: Path) -> None:
    first, second = in_workers(2, own_weights, job(LENET))
    assert not first.keys() & second.keys()
    shares = [sum(weight.numel() for weight in part.values()) for part in (first, second)]
    assert max(shares) < 0.6 * sum(shares)
    one = job(LENET, "strategy.name=single", "resources.workers=1", "optimizer.lr=1.0e-30")
    whole = train(one, tmp_path).weights
    assert whole.keys() == first.keys() | second.keys()
    for name, weight in {**first, **second}.items():
        assert torch.equal(weight, whole[name]), name


def step_with_a_bad_gradient(world: World, spec: TrainJob, bad: int) -> tuple[str, bool]:
    """The error's message, and whether all is as it was."""
    strategy, splits = built(world, spec)
    before = {name: weight.clone() for name, weight in strategy._model.state_dict().items()}
    if world.rank == bad:
        next(strategy._model.parameters()).register_hook(lambda gradient: gradient * float("nan"))
    step = StepBatch([batch_of(splits, 8)], 8)
    with pytest.raises(NonFiniteError) as caught:
        strategy.train_step(step, 1, {"lr": 0.1, "momentum": None})
    after = strategy._model.state_dict()
    return str(caught.value), all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize("bad", [0, 1])
def test_a_bad_gradient_stops_all_stages(bad: int) -> None:
    found = in_workers(2, step_with_a_bad_gradient, job(LENET, "gradient.clip_norm=1.0"), bad)
    assert all(same for _, same in found)
    names = ["conv1.0.weight", "dense2.0.weight"]
    assert f"the gradient of {names[bad]} is not finite" in found[bad][0]
    assert "the gradient's norm is not finite" in found[1 - bad][0]


def communication_of_a_step(world: World, spec: TrainJob, rows: int) -> dict[str, float]:
    strategy, splits = built(world, spec)
    strategy.train_step(StepBatch([batch_of(splits, rows)], rows), 1, {"lr": 0.1, "momentum": None})
    counted = dict(strategy.communication())
    strategy.evaluate_step(batch_of(splits, rows), None)
    strategy.train_step(StepBatch([batch_of(splits, rows)], rows), 2, {"lr": 0.1, "momentum": None})
    again = dict(strategy.communication())
    assert again["bytes"] == counted["bytes"]
    return again


def test_bytes_are_those_of_the_cut() -> None:
    """10 rows make 4 pieces of 3. Between conv2 and dense1 are 16 maps of 2 × 2 floats a row."""
    spec = job(LENET, "strategy.split=[dense1]")
    for found in in_workers(2, communication_of_a_step, spec, 10):
        assert found["bytes"] == 12 * 64 * 4
        assert 0 < found["exposed_seconds"] == found["seconds"]


def test_bytes_of_several_rows_have_the_gradients_too() -> None:
    """Two rows: 2·(2−1)/2 times the own parameters' 4 bytes each, and a flag for each parameter."""
    found = in_workers(4, communication_of_a_step, job(LENET, "strategy.stages=2", "resources.workers=4"), 8)
    parts = in_workers(2, own_weights, job(LENET))
    sizes = [sum(4 * (weight.numel() + 1) for weight in part.values()) for part in parts]
    cut = 8 * 120 * 4
    assert [each["bytes"] for each in found] == [cut + size for size in (*sizes, *sizes)]


class Tied(Classify):
    """The first and the third block share a weight."""

    def build(self) -> nn.Module:
        first, third = nn.Linear(64, 64), nn.Linear(64, 64)
        third.weight = first.weight
        blocks = {"flat": nn.Flatten(), "first": first, "second": nn.Tanh(), "third": third}
        return nn.Sequential(OrderedDict(blocks, fourth=nn.Linear(64, 10)))


class Around(Classify):
    """Work before and after the model."""

    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 32), nn.Tanh(), nn.Linear(32, 10))

    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return 2 * model(batch["image"].flatten(1) - 0.5), carry


def plain(width: int) -> nn.Module:
    return nn.Sequential(nn.Flatten(), nn.Linear(64, width), nn.Dropout(0.0), nn.Linear(width, 10))


class TwoInputs(Around):
    def forward(self, model: nn.Module, batch: Batch, carry: Carry) -> tuple[Tensor, Carry]:
        return model(batch["image"], batch["key"]), carry


class Streams(Around):
    order = "streams"


class Phases(Around):
    def phases(self) -> list[Phase]:
        return [Phase("main", super().phases()[0].loss)]


class NoSequential(Around):
    def build(self) -> nn.Module:
        return nn.Linear(64, 10)


class Stateless(Around):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Linear(64, 10), nn.Tanh())


def own(target: str, *overrides: str) -> TrainJob:
    return job(LENET, f"workload=test_pipeline:{target}", *overrides)


def watched_run(world: World, spec: TrainJob) -> tuple[dict[str, float], str]:
    """The last metrics, and all that was printed."""
    with tempfile.TemporaryFile("w+") as printed, tempfile.TemporaryDirectory() as folder:
        kept = os.dup(1), os.dup(2)
        try:
            for number in (1, 2):
                os.dup2(printed.fileno(), number)
            found = train(spec, Path(folder), world=world)
            sys.stdout.flush()
            sys.stderr.flush()
        finally:
            for number, old in zip((1, 2), kept, strict=True):
                os.dup2(old, number)
                os.close(old)
        printed.seek(0)
        return found.result.metrics, printed.read()


@pytest.mark.parametrize(
    ("target", "overrides"),
    [
        ("Tied", ["strategy.split=[fourth]"]),
        ("Around", []),
        ("plain", ["model={width: 16}", "regularize=[{name: mc-dropout, samples: 3}]"]),
    ],
)
def test_a_users_workload_equals_one_worker_and_prints_nothing(target: str, overrides: list[str]) -> None:
    one, _ = watched_run(World(), own(target, *overrides, "strategy={name: single}", "resources.workers=1"))
    assert {"train/loss", "train/grad_norm", "valid/loss", "valid/accuracy"} <= one.keys()
    for metrics, printed in in_workers(2, watched_run, own(target, *overrides)):
        assert metrics == pytest.approx(one, rel=1e-5)
        assert printed == ""


def evaluated(world: World, spec: TrainJob) -> None:
    strategy, splits = built(world, spec)
    strategy.evaluate_step(batch_of(splits, 8), None)


def refusal(world: World, spec: TrainJob) -> str:
    with pytest.raises(UsageError) as caught:
        evaluated(world, spec)
    dist.barrier()  # gloo does not bear a member that leaves while another still joins
    return str(caught.value)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        (lambda: own("Tied"), "first.weight and third.weight are one weight, but workers 0 and 1"),
        (lambda: own("Stateless"), "worker 1 would train nothing: 1 have no parameters"),
        (lambda: own("NoSequential"), "cuts an nn.Sequential, and NoSequential.build gives a Linear"),
        (lambda: own("Phases"), "Phases has phases of its own"),
        (lambda: own("Streams"), "or carries state"),
        (lambda: own("TwoInputs"), "TwoInputs.forward calls its model with something else"),
        (lambda: job(LENET, "workload=resnet"), "stem.1 is a batch norm"),
        (lambda: own("Around", "strategy.split=['7']"), "strategy.split: no block '7'"),
    ],
)
def test_what_cannot_be_cut_is_refused_by_all(spec: Callable[[], TrainJob], message: str) -> None:
    for found in in_workers(2, refusal, spec()):
        assert message in found
