"""One truth: experts dealt out to several workers compute what one worker's experts do."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Trained, assert_equal, in_workers, job, reference, train, train_worker
from test_ddp_equals_single import HEAD, STEPS
from test_tensor_equals_single import assert_same, run_watched, train_and_state
from torch import Tensor, nn
from torch.utils._python_dispatch import TorchDispatchMode

from dlsys.errors import NonFiniteError, UsageError
from dlsys.spec import TrainJob
from dlsys.train.collectives.mean import local
from dlsys.train.strategies.moe import MoEStrategy
from dlsys.train.world import World
from dlsys.zoo.layers.experts import MixtureOfExperts
from dlsys.zoo.tasks.classify import Classify

pytestmark = pytest.mark.slow

# Whole groups on each of four workers, in two micro-batches too: room and balance are the same.
MIXTURE = f"""{HEAD}
workload: mixture-of-experts
model: {{width: 12, hidden: 10, capacity: 1.0, group: 4, balance: 0.1}}
data: {{source: piecewise, rows: 400}}
batch_size: 32
optimizer: {{name: adam, lr: 0.005}}
stop: {{steps: {STEPS}}}
"""


class Mixed(nn.Module):
    """Pixels are a token of one number each; two mixtures follow each other."""

    def __init__(self) -> None:
        super().__init__()
        self.first = MixtureOfExperts(4, 2, 8, 6, 5)
        self.second = MixtureOfExperts(8, 1, 5, 3, 2)
        self.head = nn.Linear(16, 10)

    def forward(self, image: Tensor) -> Tensor:
        tokens, _ = self.first(image.flatten(1).unflatten(1, (8, 8)))
        tokens, _ = self.second(tokens)
        return self.head(tokens.flatten(1))


class Own(Classify):
    """A user's own workload."""

    metrics = {"accuracy": "max"}  # noqa: RUF012

    def build(self) -> nn.Module:
        return Mixed()


class Without(Own):
    def build(self) -> nn.Module:
        return nn.Sequential(nn.Flatten(), nn.Linear(64, 10))


OWN = f"""{HEAD}
workload: {__name__}:Own
data: {{source: digits}}
batch_size: 48
optimizer: {{name: momentum, lr: 0.05}}
stop: {{steps: {STEPS}}}
"""


def dealt(size: int, workers: int) -> tuple[str, ...]:
    return "strategy.name=moe", f"strategy.size={size}", f"resources.workers={workers}"


def several(text: str, folder: Path, size: int, workers: int, *overrides: str) -> Trained:
    described = job(text, *overrides, *dealt(size, workers))
    found: Trained = in_workers(workers, train_worker, described, str(folder / "several"))[0]
    return found


@pytest.mark.parametrize("text", [MIXTURE, OWN], ids=["mixture", "own"])
@pytest.mark.parametrize(("size", "workers"), [(2, 2), (4, 4), (2, 4)])
def test_several_workers_equal_one(text: str, size: int, workers: int, tmp_path: Path) -> None:
    assert_same(reference(job(text)), several(text, tmp_path, size, workers))


def test_micro_batches_and_sets_of_experts(tmp_path: Path) -> None:
    found = several(MIXTURE, tmp_path, 2, 4, "gradient.accumulate=2")
    assert_same(reference(job(MIXTURE)), found)


def test_a_last_batch_smaller_than_the_workers(tmp_path: Path) -> None:
    """321 rows: the last batch of an epoch has 1 row for 4 workers."""
    # With a row in no whole group, only what does not depend on groups can be the same.
    # (Adam would make a whole step of a gradient that is nothing but rounding.)
    own = ("optimizer={name: momentum, lr: 0.05}", "model={balance: 0.0}")
    overrides = ("data.rows=401", "batch_size=320", "stop={steps: 4}", *own)
    truth = reference(job(MIXTURE, *overrides))
    assert_same(truth, several(MIXTURE, tmp_path, 2, 4, *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("gradient.clip_norm=0.2", "regularize=[{name: max-norm, limit: 0.5}]"),
        ("gradient.clip_value=0.01", "regularize=[{name: l1, strength: 0.001}]"),
    ],
    ids=["clip-norm and max-norm", "clip-value and l1"],
)
def test_clipping_and_regularizers_see_all_experts(overrides: tuple[str, ...], tmp_path: Path) -> None:
    plain, truth = reference(job(MIXTURE)), reference(job(MIXTURE, *overrides))
    assert truth.losses[STEPS] != plain.losses[STEPS]
    assert_same(truth, several(MIXTURE, tmp_path, 2, 2, *overrides))


@pytest.mark.parametrize("name", ["momentum", "adadelta", "adamax", "nadam", "yogi", "adamw"])
def test_every_optimizer_takes_dealt_experts(name: str, tmp_path: Path) -> None:
    overrides = (f"optimizer={{name: {name}, lr: 0.001}}", "stop.steps=4")
    truth = reference(job(MIXTURE, *overrides))
    assert_same(truth, several(MIXTURE, tmp_path, 2, 2, *overrides), rel=1e-4)


def test_the_state_is_in_the_form_of_single(tmp_path: Path) -> None:
    truth = train_and_state(World(), job(MIXTURE, "stop.steps=2"), str(tmp_path / "one"))
    described = job(MIXTURE, "stop.steps=2", *dealt(2, 2))
    for found in in_workers(2, train_and_state, described, str(tmp_path / "two")):
        assert found == truth


def test_resume_is_exact(tmp_path: Path) -> None:
    described = job(MIXTURE, *dealt(2, 4))
    whole = in_workers(4, train_worker, described, str(tmp_path / "whole"))[0]
    in_workers(4, train_worker, described, str(tmp_path / "parts"), STEPS // 2)
    parts = in_workers(4, train_worker, described, str(tmp_path / "parts"))[0]
    assert sorted(parts.losses) == list(range(STEPS // 2 + 1, STEPS + 1))
    assert_equal(whole.weights, parts.weights)


def test_each_worker_holds_its_experts_alone(tmp_path: Path) -> None:
    described = job(MIXTURE, "stop.steps=2", *dealt(2, 4))
    for rank, held in enumerate(in_workers(4, held_experts, described, str(tmp_path))):
        first = 4 * (rank % 2)
        assert held == list(range(first, first + 4)), rank


def held_experts(world: World, job: TrainJob, folder: str) -> list[int]:
    """The numbers of the experts whose weights are in this process."""
    strategy = run_watched(world, job, folder, MoEStrategy)
    whole = strategy.state_out().model["mixture.experts.up"]
    mine = local(strategy._model.state_dict()["mixture.experts.up"])
    return [next(i for i, other in enumerate(whole) if torch.equal(expert, other)) for expert in mine]


def test_a_bad_gradient_is_named_on_every_worker(tmp_path: Path) -> None:
    found = in_workers(4, poisoned, job(MIXTURE, "gradient.clip_norm=1.0", *dealt(2, 4)), str(tmp_path))
    assert all("step 3: the gradient of mixture.experts.down is not finite" in text for text in found)


def poisoned(world: World, job: TrainJob, folder: str) -> str:
    """The error of a run in which one worker's part of one gradient goes bad in step 3."""

    class Poisoned(MoEStrategy):
        def reduce(self, trained: Any) -> None:
            if self._traffic.steps == 3 and world.rank == 1:
                local(dict(trained.named)["mixture.experts.down"].grad)[0, 0] = float("nan")
            super().reduce(trained)

        def communication(self) -> dict[str, float]:
            return {}  # it would start to count anew

    with pytest.raises(NonFiniteError) as caught:
        run_watched(world, job, folder, Poisoned)
    return str(caught.value)


@pytest.mark.parametrize("text", [MIXTURE, OWN], ids=["mixture", "own"])
def test_bytes_are_what_collectives_send(text: str, tmp_path: Path) -> None:
    described = job(text, "stop.steps=2", *dealt(2, 4))
    for counted, told in in_workers(4, count_bytes, described, str(tmp_path)):
        assert told == pytest.approx(counted)
        assert told > 0


def count_bytes(world: World, job: TrainJob, folder: str) -> tuple[float, float]:
    """Bytes of the last step: by every collective that torch ran, and as the strategy tells them."""
    found: list[tuple[float, float]] = []

    class Counting(TorchDispatchMode):
        sent = 0.0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if any(issubclass(kind, torch.distributed.tensor.DTensor) for kind in types):
                return NotImplemented  # it comes again with what the workers hold
            name = str(func)
            if "allreduce_" in name:
                moved, group = args[0][0], torch.distributed.ProcessGroup.unbox(args[1])
                self.sent += 2 * (group.size() - 1) / group.size() * moved.nbytes
            elif "alltoall_base_" in name:  # the counts, in equal parts to groups of two
                self.sent += args[1].nbytes / 2
            elif "all_to_all_single" in name:
                tokens, _, outgoing = args[0], args[1], args[2]
                away = sum(outgoing) - outgoing[world.rank % 2]
                self.sent += away * tokens.shape[1] * tokens.element_size()
            else:
                assert "c10d" not in name or "wait_tensor" in name or "wrap_tensor" in name, name
            return func(*args, **(kwargs or {}))

    class Counted(MoEStrategy):
        def train_step(self, *arguments: Any) -> Any:
            before = self._traffic.sent
            with Counting() as mode:
                result = super().train_step(*arguments)
            found.append((mode.sent, self._traffic.sent - before))
            return result

    run_watched(world, job, folder, Counted)
    return found[-1]


def test_a_model_without_experts_is_refused(tmp_path: Path) -> None:
    described = job(OWN.replace(":Own", ":Without"), *dealt(2, 2))
    with pytest.raises(UsageError, match=r"Sequential has none: build it with dlsys.zoo.layers.experts"):
        train(described, tmp_path, world=World(size=2))


def test_experts_that_do_not_divide_are_refused(tmp_path: Path) -> None:
    described = job(OWN, *dealt(3, 3))
    with pytest.raises(UsageError, match=r"the 4 experts of first.experts cannot be dealt out to 3 workers"):
        train(described, tmp_path, world=World(size=3))
