"""What a comparison of strategies must catch: real strategies with one thing wrong."""

from __future__ import annotations

from pathlib import Path
from typing import ClassVar

import pytest
import torch
from harness import Trained, in_workers, train
from test_ddp_equals_single import spec
from torch import nn

from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.train.strategies.ddp import DDPStrategy
from dlsys.train.trace import Trace, compare
from dlsys.train.world import World

JOB = ("schedule={name: one-cycle, max_lr: 0.1}", "gradient={accumulate: 2}", "stop={steps: 12}")


class NoAverage(DDPStrategy):
    """Every worker keeps its own gradient."""

    def wrap(self, module: nn.Module) -> nn.Module:
        return module


class TwiceSeen(DDPStrategy):
    """Every worker takes the first one's share of the data."""

    @property
    def data_place(self) -> tuple[int, int]:
        return 0, self._parts.world.size


class DroppedScheduleStep(DDPStrategy):
    """One update is made with the rate of the update before."""

    last: ClassVar[dict] = {}

    def train_step(self, batch, step, hyper):
        used = self.last if step == 7 else hyper
        type(self).last = dict(hyper)
        return super().train_step(batch, step, used)


class UnscaledAccumulation(DDPStrategy):
    """Micro-batches' gradients are added without their weights."""

    def _backward(self, trained, batch):
        found = super()._backward(trained, batch)
        for parameter in trained.parameters:
            parameter.grad.mul_(len(batch.micros))
        return found


FAULTS = {cls.__name__: cls for cls in (DDPStrategy, NoAverage, TwiceSeen, DroppedScheduleStep)}
FAULTS["UnscaledAccumulation"] = UnscaledAccumulation


def faulty_worker(world: World, job: TrainJob, folder: str, fault: str) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: FAULTS[fault])
        return train(job, Path(folder), world=world)


@pytest.fixture(scope="module")
def truth(tmp_path_factory: pytest.TempPathFactory) -> Trace:
    single = train(spec("lenet-5", *JOB), tmp_path_factory.mktemp("single"))
    return Trace.of(single.points, single.weights)


def found(fault: str, folder: Path) -> Trace:
    job = spec("lenet-5", *JOB, "strategy.name=ddp", "resources.workers=2")
    several = in_workers(2, faulty_worker, job, str(folder), fault)[0]
    return Trace.of(several.points, several.weights)


def test_the_sound_strategy_agrees(truth: Trace, tmp_path: Path) -> None:
    difference = compare(truth, found("DDPStrategy", tmp_path))
    assert difference.agrees, difference


@pytest.mark.parametrize(
    ("fault", "first_step"),
    [("NoAverage", 1), ("TwiceSeen", 1), ("DroppedScheduleStep", 8), ("UnscaledAccumulation", 1)],
)
def test_a_planted_fault_is_caught(fault: str, first_step: int, truth: Trace, tmp_path: Path) -> None:
    difference = compare(truth, found(fault, tmp_path))
    assert not difference.agrees
    assert difference.first_step == first_step
    assert any("differs by" in problem for problem in difference.problems)


def trace(loss: float = 1.0, weight: float = 0.0, norm: float = 1.0) -> Trace:
    return Trace({1: 1.0, 2: loss}, {1: 1.0, 2: norm}, {"w": torch.full((2,), weight)})


@pytest.mark.parametrize(
    ("other", "says"),
    [
        (trace(loss=1.00002), "loss differs from step 2"),
        (trace(loss=float("nan")), "loss differs from step 2"),
        (trace(norm=1.01), "norm differs from step 2"),
        (trace(weight=2e-4), "w differs"),
        (trace(weight=float("nan")), "w differs"),
        (Trace({1: 1.0}, {1: 1.0}, {"w": torch.zeros(2)}), "logged 1 steps, not 2"),
        (Trace({1: 1.0, 2: 1.0}, {1: 1.0, 2: 1.0}, {}), "only one has w"),
    ],
)
def test_what_is_out_of_tolerance_is_said(other: Trace, says: str) -> None:
    difference = compare(trace(), other)
    assert not difference.agrees
    assert any(says in problem for problem in difference.problems), difference.problems


def test_equal_infinities_are_no_difference() -> None:
    one, other = trace(), trace()
    one.weights["mask"] = other.weights["mask"] = torch.tensor([0.0, -torch.inf])
    assert compare(one, other).agrees
    other.weights["mask"] = torch.tensor([0.0, torch.inf])
    assert not compare(one, other).agrees


def test_rounding_is_within_tolerance() -> None:
    assert compare(trace(), trace(loss=1.000005, weight=5e-5)).agrees
