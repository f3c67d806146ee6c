"""Synchronous parameter servers compute what one worker computes."""

from __future__ import annotations

from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Trained, assert_equal, in_workers, reference, train
from parameter_servers import serving
from test_ddp_equals_single import JOBS, STEPS, spec

from dlsys.errors import NonFiniteError
from dlsys.registry import STRATEGIES
from dlsys.spec.train.job import TrainJob
from dlsys.train.ps.shards import share_out
from dlsys.train.ps.wire import Servers
from dlsys.train.strategies import ps as strategy
from dlsys.train.strategies.base import StepResult
from dlsys.train.strategies.ps import PSStrategy
from dlsys.train.world import World

pytestmark = pytest.mark.slow

# The middle of the epochs, each of which ends with a smaller batch: 1,437 digits are 2 × 480 + 477.
CUT_SHORT = "batch_size=480"


def worker(world: World, job: TrainJob, folder: str, stop_after: int | None, servers: Servers) -> Trained:
    """Trains with shards of half a KiB: these models are smaller than any `split_mb`."""

    def shred(phases, tables, *, servers: int, split_bytes: int):
        return share_out(phases, tables, servers=servers, split_bytes=512)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(strategy, "share_out", shred)
        return train(job, Path(folder), world=world, stop_after=stop_after, servers=servers)


def under_ps(
    workload: str, size: int, folder: Path, *overrides: str, stop_after: int | None = None
) -> list[Trained]:
    job = spec(workload, "strategy.name=ps", "strategy.servers=2", f"resources.workers={size}", *overrides)
    with serving(job) as servers:
        return in_workers(size, worker, job, str(folder), stop_after, servers)


def assert_same(truth: Trained, several: Trained, *, rel: float = 1e-5) -> None:
    logged = [name for name in truth.points if name.startswith(("train/loss", "train/grad_norm"))]
    for name in logged:
        assert truth.points[name].keys() == several.points[name].keys()
        for step, value in truth.points[name].items():
            # Norms are held to less: near a minimum, a gradient is a small difference of large sums.
            near = pytest.approx(value, rel=rel if "loss" in name else 100 * rel, abs=1e-6)
            assert several.points[name][step] == near, (name, step)
    for name, weight in truth.weights.items():
        if weight.is_floating_point():
            assert torch.allclose(weight, several.weights[name], atol=1e-4), name
    for name, value in truth.result.metrics.items():
        if name.startswith(("valid/", "test/")):
            assert several.result.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("workload", JOBS)
def test_two_workers_equal_one(workload: str, tmp_path: Path) -> None:
    truth = reference(spec(workload))
    assert_same(truth, under_ps(workload, 2, tmp_path / "several")[0])


@pytest.mark.parametrize(
    ("size", "overrides"),
    [
        (4, ("batch_size=1436",)),  # the last batch of an epoch has one row for four workers
        (2, (CUT_SHORT, "gradient.accumulate=2", "gradient.clip_norm=0.5")),
        (2, (CUT_SHORT, "gradient={clip_norm: 0.5, clip_value: 0.01}")),
        (2, ("regularize=[{name: elastic-net, strength: 0.01}, {name: weight-decay, strength: 0.1}]",)),
        (2, ("optimizer={name: nadam, lr: 0.001}", "schedule={name: one-cycle, max_lr: 0.01}")),
        (2, ("strategy.mode=ssp",)),
    ],
    ids=["four", "accumulated", "clipped", "penalized", "scheduled", "ssp-0"],
)
def test_options_equal_one(size: int, overrides: tuple[str, ...], tmp_path: Path) -> None:
    short = "stop={steps: 6}"
    own = [text for text in overrides if not text.startswith("strategy.")]
    truth = reference(spec("softmax-regression", *own, short))
    assert_same(truth, under_ps("softmax-regression", size, tmp_path / "several", *overrides, short)[0])


@pytest.mark.parametrize("workload", ["lenet-5", "char-rnn"])
def test_a_run_goes_on_under_another_strategy(workload: str, tmp_path: Path) -> None:
    """Half of the steps on two servers and half alone, and the other way round."""
    truth = reference(spec(workload))
    half = STEPS // 2
    begun = under_ps(workload, 2, tmp_path / "there", stop_after=half)[0]
    assert begun.result.position.step == half
    ended = train(spec(workload), tmp_path / "there")
    train(spec(workload), tmp_path / "back", stop_after=half)
    returned = under_ps(workload, 2, tmp_path / "back")[0]
    for other in (ended, returned):
        assert other.losses.keys() == set(range(half + 1, STEPS + 1))
        for step, loss in other.losses.items():
            assert loss == pytest.approx(truth.losses[step], rel=1e-4), step
        for name, weight in truth.weights.items():
            assert torch.allclose(weight, other.weights[name], atol=1e-4), name


def test_interrupted_and_resumed_is_the_same_bit_for_bit(tmp_path: Path) -> None:
    whole = under_ps("lenet-5", 2, tmp_path / "whole", "model.dropout=0.3")[0]
    under_ps("lenet-5", 2, tmp_path / "parts", "model.dropout=0.3", stop_after=5)
    parts = under_ps("lenet-5", 2, tmp_path / "parts", "model.dropout=0.3")[0]
    assert_equal(whole.weights, parts.weights)
    assert parts.losses[STEPS] == whole.losses[STEPS]


def test_a_nan_ends_every_worker_before_anything_moves(tmp_path: Path) -> None:
    job = spec("lenet-5", "strategy.name=ps", "strategy.servers=2", "resources.workers=2")
    with serving(job) as servers:
        found = in_workers(2, poisoned, job, str(tmp_path), servers)
    assert all(text.startswith("step 3: the gradient") for text, _ in found)
    assert "the gradient of conv1.0.weight is not finite" in found[1][0]
    assert all(unmoved for _, unmoved in found)


def poisoned(world: World, job: TrainJob, folder: str, servers: Servers) -> tuple[str, bool]:
    """What ends this worker when rank 1's gradient is NaN in step 3; whether servers kept the weights."""
    unmoved = []

    class Poisoned(PSStrategy):
        def update(self, trained: Any, step: int, hyper: Any, sums: Any) -> torch.Tensor:
            if step == 3 and world.rank == 1:
                dict(trained.named)["conv1.0.weight"].grad.fill_(torch.nan)
            before = {name: weight.detach().clone() for name, weight in trained.named}
            try:
                return super().update(trained, step, hyper, sums)
            except NonFiniteError:
                self._client.pull()
                unmoved.append(all(torch.equal(before[name], weight) for name, weight in trained.named))
                raise

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Poisoned)
        with pytest.raises(NonFiniteError) as caught:
            train(job, Path(folder), world=world, servers=servers)
    return str(caught.value), unmoved == [True]


def test_updates_of_one_step_equal_one_worker(tmp_path: Path) -> None:
    """The mean of what SGD changes is what SGD changes by the mean gradient; momentum is linear too."""
    own = "optimizer={name: sgd, lr: 0.1, momentum: 0.9}"
    truth = reference(spec("softmax-regression", own))
    several = under_ps("softmax-regression", 2, tmp_path / "several", own, "strategy.push=updates")[0]
    for step, loss in truth.losses.items():
        assert several.losses[step] == pytest.approx(loss, rel=1e-5), step
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, several.weights[name], atol=1e-4), name


def test_replicas_are_equal_after_local_steps(tmp_path: Path) -> None:
    """Four own steps a push: a quarter of the bytes, and still it learns the same digits."""
    train_job = partial(under_ps, "softmax-regression", 2)
    longer = ("stop={steps: 60}", "batch_size=96", "tracking.log_every=60")
    often = train_job(tmp_path / "often", *longer, "strategy.push=updates")[0]
    rarely = train_job(
        tmp_path / "rarely", *longer, "strategy={name: ps, servers: 2, push: updates, local_steps: 4}"
    )[0]
    sent = "perf/sent_bytes_per_step"
    assert rarely.points[sent][60] == pytest.approx(often.points[sent][60] / 4, rel=0.1)
    accuracy = rarely.result.metrics["valid/accuracy"]
    assert accuracy == pytest.approx(often.result.metrics["valid/accuracy"], abs=0.05)
    assert accuracy > 0.85


def test_of_embeddings_only_touched_rows_travel(tmp_path: Path) -> None:
    """At most 1.2 times their bytes, each way; and it is still what one worker computes."""
    # Not adagrad: the first step of a row is ± lr, whatever rounding makes of a tiny gradient.
    own = ("data.cardinality=3000", "data.rows=5000", "stop.steps=6", "optimizer={name: sgd, lr: 0.1}")
    truth = reference(spec("dlrm", *own))
    job = spec("dlrm", *own, "strategy.name=ps", "strategy.servers=2", "resources.workers=2")
    with serving(job) as servers:
        (first, mine), (_, theirs) = in_workers(2, touching, job, str(tmp_path / "two"), servers)
    assert_same(truth, first)
    dense = sum(w.nbytes for name, w in first.weights.items() if not name.startswith("tables."))
    row = first.weights["tables.0.weight"][0].nbytes
    headers = 1500  # a few for each server, that list its shards
    for step in range(2, 7):  # with the first update, the servers send all that they hold
        sent = first.points["perf/sent_bytes_per_step"][step] - dense
        received = first.points["ps/received_bytes_per_step"][step] - dense
        assert sent <= 1.2 * row * len(mine[step - 1]) + headers
        assert received <= 1.2 * row * len(mine[step - 1] | theirs[step - 1]) + headers
        assert sent > row * len(mine[step - 1])


def touching(
    world: World, job: TrainJob, folder: str, servers: Servers
) -> tuple[Trained, list[set[tuple[int, int]]]]:
    """Trains, and notes the (table, row) pairs in each step's batch of this worker."""
    touched: list[set[tuple[int, int]]] = []

    class Noting(PSStrategy):
        def train_step(self, batch: Any, step: int, hyper: Any) -> StepResult:
            sparse = torch.cat([micro.batch["sparse"] for micro in batch.micros])
            touched.append({(i, int(v)) for i in range(sparse.shape[1]) for v in sparse[:, i]})
            return super().train_step(batch, step, hyper)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Noting)
        return train(job, Path(folder), world=world, servers=servers), touched
