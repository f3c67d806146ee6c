"""Parameters that a step does not use, on all workers or on some, are left as one worker leaves them."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Trained, in_workers, reference, train_worker, with_workers
from test_ddp_equals_single import spec
from torch import Tensor, nn
from torch.nn.parallel import DistributedDataParallel

from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.spec.card import Cut
from dlsys.train.strategies.ddp import DDPStrategy
from dlsys.train.trace import Trace, compare
from dlsys.train.world import World
from dlsys.zoo.layers.experts import MixtureOfExperts
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.workload import Loss, Phase

# Of 4 rows of a worker, often none is of this class.
CLASS = 3
ADAM = "optimizer={name: adamw, lr: 0.01, weight_decay: 0.1}"
SGD = "optimizer={name: sgd, lr: 0.1}"
PARTS = "gradient={accumulate: 2, clip_norm: 0.5}"


class Mixture(MixtureOfExperts):
    def __init__(self) -> None:
        super().__init__(4, 1, 12, 4, 12, group=1)

    def forward(self, x: Tensor) -> Tensor:  # type: ignore[override]
        return super().forward(x)[0]


class Parts(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 12)
        self.never = nn.Linear(12, 12)
        self.measured = nn.Linear(12, 1)
        self.odd_steps, self.shift = nn.Parameter(torch.ones(12)), nn.Parameter(torch.ones(12))
        self.output = nn.Linear(12, 10)
        self.calls = 0


class Idle(Classify):
    """Uses some of its parameters now and then: by the step, by the rows."""

    tensor_plan = {"output": Cut("gather")}  # noqa: RUF012
    accumulate = 2

    def build(self) -> nn.Module:
        return Parts()

    def hidden(self, model: Any, batch: Any) -> Tensor:
        x = torch.tanh(model.encode(batch["image"].flatten(1)))
        if model.training:
            x = x * model.odd_steps if model.calls // self.accumulate % 2 else x
            model.calls += 1
        rows = (batch["label"] == CLASS).nonzero().flatten()
        return x.index_add(0, rows, model.shift.expand(len(rows), -1)) if len(rows) else x

    def forward(self, model: Any, batch: Any, carry: Any) -> tuple[Tensor, Any]:
        return model.output(self.hidden(model, batch)), carry

    def phases(self) -> list[Phase]:
        def loss(model: Any, batch: Any, carry: Any) -> tuple[Loss, Any]:
            outputs, carry = self.forward(model, batch, carry)
            # A metric with a graph of its own, that backward never comes to.
            seen = model.measured(model.encode(batch["image"].flatten(1))).mean()
            return Loss(self.objective(outputs, batch).value, {"seen": seen}), carry

        return [Phase("main", loss)]


class IdleLayer(Idle):
    """A layer, not a parameter: fully sharded, calling it takes all workers."""

    def hidden(self, model: Any, batch: Any) -> Tensor:
        x = super().hidden(model, batch)
        rows = (batch["label"] == CLASS).nonzero().flatten()
        return x.index_add(0, rows, model.never(x[rows])) if len(rows) else x


class IdleMixture(Idle):
    def build(self) -> nn.Module:
        model = Parts()
        model.encode = nn.Sequential(nn.Linear(64, 12), Mixture())
        return model


class Block(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.dense, self.never, self.shift = (
            nn.Linear(64, 12),
            nn.Linear(12, 12),
            nn.Parameter(torch.ones(12)),
        )

    def forward(self, x: Tensor) -> Tensor:
        rows = (x.sum(1) > 21.5).nonzero().flatten()
        y = torch.tanh(self.dense(x))
        return y.index_add(0, rows, self.shift.expand(len(rows), -1)) if len(rows) else y


class IdleBlocks(Classify):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), Block(), nn.Linear(12, 10))


class Changing(Idle):
    """What is used changes at the third step, on all workers alike."""

    def hidden(self, model: Any, batch: Any) -> Tensor:
        x = torch.tanh(model.encode(batch["image"].flatten(1)))
        if model.training:
            x = x * model.shift if model.calls >= 2 else x
            model.calls += 1
        return x


class Used(Idle):
    """All is used at first, and something not later."""

    def build(self) -> nn.Module:
        model = Parts()
        del model.never, model.measured, model.odd_steps
        return model

    def phases(self) -> list[Phase]:
        return list(Classify.phases(self))

    def hidden(self, model: Any, batch: Any) -> Tensor:
        x = torch.tanh(model.encode(batch["image"].flatten(1)))
        if model.training:
            x = x * model.shift if model.calls < 2 else x
            model.calls += 1
        return x


class Complex(Idle):
    def build(self) -> nn.Module:
        model = Parts()
        model.turn = nn.Parameter(torch.ones(2, dtype=torch.complex64))
        return model


class Remember(nn.Module):
    """Keeps the mean of what it has seen, as no layer of torch's does."""

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("mean", torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        if self.training:
            self.mean.mul_(0.9).add_(0.1 * x.detach().mean())
        return x - self.mean


class Remembering(Classify):
    def build(self) -> nn.Module:
        return nn.Sequential(
            *(nn.Flatten(), Remember(), nn.Linear(64, 12)),
            *(Remember(), nn.Linear(12, 12), nn.Linear(12, 10)),
        )


class Normed(Classify):
    def build(self) -> nn.Module:
        norm = nn.InstanceNorm2d(1, track_running_stats=True)
        return nn.Sequential(nn.Conv2d(1, 1, 3), norm, nn.Flatten(), nn.Linear(36, 10))


def make(workload: str, *overrides: str) -> TrainJob:
    own = (f"workload={__name__}:{workload}", "batch_size=8", "stop={steps: 8}", "gradient.accumulate=2")
    return spec("softmax-regression", *own, *overrides)


def assert_same(truth: Trained, found: Trained, within: float) -> None:
    assert found.losses == pytest.approx(truth.losses, rel=within)
    assert found.points["train/grad_norm"] == pytest.approx(truth.points["train/grad_norm"], rel=10 * within)
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, found.weights[name], atol=within), name


@pytest.mark.parametrize(
    ("workload", "optimizer", "strategy", "workers"),
    [
        ("IdleLayer", ADAM, "{name: ddp}", 2),
        ("IdleLayer", ADAM, "{name: ddp, bucket_mb: 1, find_unused: true}", 4),
        ("IdleLayer", ADAM, "{name: ring}", 2),
        ("IdleLayer", ADAM, "{name: ps}", 2),
        ("Idle", ADAM, "{name: fsdp}", 2),
        ("Idle", ADAM, "{name: fsdp, replicas: 2, reshard: false}", 4),
        ("IdleLayer", ADAM, "{name: zero, stage: 0}", 2),
        ("IdleLayer", SGD, "{name: zero, stage: 1}", 2),
        ("IdleLayer", ADAM, "{name: tensor, size: 2}", 4),
        ("Idle", ADAM, "{name: tensor, size: 2, data: shard}", 4),
        ("IdleMixture", ADAM, "{name: moe}", 2),
        ("IdleBlocks", ADAM, "{name: pipeline, stages: 2, micro_batches: 2}", 4),
    ],
)
def test_several_workers_equal_one(
    workload: str, optimizer: str, strategy: str, workers: int, tmp_path: Path
) -> None:
    # DeepSpeed computes in fp32 at most.
    shape = (optimizer, PARTS) if "zero" in strategy else (optimizer, PARTS, "precision=fp64")
    several = make(workload, *shape, f"strategy={strategy}", f"resources.workers={workers}")
    within = 1e-5 if "zero" in strategy else 1e-10
    assert_same(reference(make(workload, *shape)), with_workers(several, tmp_path), within)


@pytest.mark.parametrize(
    ("workload", "optimizer", "strategy", "said"),
    [
        ("Idle", ADAM, "{name: zero, stage: 1}", "has no gradient in step 1"),
        (
            "Changing",
            ADAM.replace("0.1}", "0}"),
            "{name: zero, stage: 2}",
            "shift has its first gradient in step 3",
        ),
        (
            "Changing",
            ADAM.replace("0.1}", "0}"),
            "{name: zero, stage: 3}",
            "shift has its first gradient in step 3",
        ),
        ("IdleLayer", SGD, "{name: zero, stage: 2}", "1 of 2 use "),
        ("Idle", SGD, "{name: zero, stage: 3}", "1 of 2 use shift"),
        ("IdleLayer", SGD, "{name: zero, stage: 3}", "came to never"),
        ("IdleLayer", SGD, "{name: fsdp}", "came to never"),
        ("Used", SGD, "{name: ddp}", "strategy.find_unused: shift has no gradient in this step"),
        ("Changing", SGD, "{name: ddp, static_graph: true}", "static_graph: shift has a gradient in some"),
        ("Changing", SGD, "{name: ddp, hook: powersgd}", "powersgd compresses the gradients of all"),
        ("Complex", SGD, "{name: zero, stage: 1}", "turn is complex"),
        ("Remembering", SGD, "{name: pipeline, micro_batches: 2}", ".mean, and in a pipeline a block"),
        ("Normed", SGD, "{name: pipeline, micro_batches: 2}", "1 keeps running statistics"),
    ],
)
def test_what_is_not_served_is_refused_by_name(
    workload: str, optimizer: str, strategy: str, said: str, tmp_path: Path
) -> None:
    several = make(
        workload, optimizer, "gradient.accumulate=1", f"strategy={strategy}", "resources.workers=2"
    )
    with pytest.raises(AssertionError) as found:
        in_workers(2, train_worker, several, str(tmp_path))
    assert "UsageError: strategy" in str(found.value)
    assert said in str(found.value)


class IdleBucket(DDPStrategy):
    """A parameter without a gradient leaves the others of its bucket as this worker has them."""

    def wrap(self, module: nn.Module) -> nn.Module:
        return DistributedDataParallel(module)

    def _check_promise(self, trained: Any) -> None:
        """Nobody looks."""


def planted(world: World, job: TrainJob, folder: str) -> Trained:
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: IdleBucket)
        return train_worker(world, job, folder)


def test_a_bucket_that_is_not_averaged_would_be_caught(tmp_path: Path) -> None:
    """After one step, which is as far as torch goes with it."""
    one = ("stop={steps: 1}", "gradient.accumulate=1", SGD)
    truth = reference(make("Idle", *one))
    several = in_workers(
        2, planted, make("Idle", *one, "strategy={name: ddp}", "resources.workers=2"), str(tmp_path)
    )
    difference = compare(
        Trace.of(truth.points, truth.weights), Trace.of(several[0].points, several[0].weights)
    )
    assert difference.first_step == 1
    assert any("norm differs" in problem for problem in difference.problems)


def test_what_is_used_at_first_may_be_idle_later(tmp_path: Path) -> None:
    one = ("gradient.accumulate=1", ADAM, "precision=fp64")
    several = make("Used", *one, "strategy={name: ddp, find_unused: true}", "resources.workers=2")
    assert_same(reference(make("Used", *one)), with_workers(several, tmp_path), 1e-10)


def test_local_steps_leave_a_state_that_all_can_read(tmp_path: Path) -> None:
    """Each worker's optimizer has a state of what its own rows have used."""
    apart = ("strategy={name: ddp, local_sgd: {every: 2}}", "resources.workers=2")
    several = make("IdleLayer", ADAM, "batch_size=4", "gradient.accumulate=1", *apart)
    with_workers(several, tmp_path, stop_after=3)
    assert max(with_workers(several, tmp_path).losses) == 8
