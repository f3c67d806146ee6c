"""Workers joined by our own ring compute what one computes, and share its checkpoints."""

from __future__ import annotations

import dataclasses
import os
import signal
import tempfile
import threading
import time
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
import torch.multiprocessing as mp
from harness import Trained, assert_equal, assert_same_figures, in_workers, train, train_worker
from test_ddp_equals_single import JOBS, spec
from torch import nn

from dlsys.errors import NonFiniteError
from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.train.strategies import ring
from dlsys.train.strategies.ring import RingDataParallel, RingStrategy
from dlsys.train.trace import Trace, compare
from dlsys.train.world import World
from dlsys.zoo.tasks.classify import Classify

pytestmark = pytest.mark.slow

RARE = "test_ring_equals_single:RareClassifier"
# Few rows, so that a worker often sees none of a kind; AdamW, which shrinks what has a gradient of 0.
JOBS_AND_OWN = {
    **JOBS,
    RARE: "data: {source: digits}\noptimizer: {name: adamw, lr: 0.001, weight_decay: 0.1}\n",
}
# Clipped, accumulated, and with an evaluation between steps.
PARTS = ("gradient={accumulate: 2, clip_norm: 0.5}", "evaluate='4 steps'")


class RareModel(nn.Module):
    """Layers of more than a bucket each, which some batches, some workers or nobody uses."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Linear(64, 512)
        self.nines, self.unused, self.eights = (nn.Linear(512, 512) for _ in range(3))
        self.frozen = nn.Parameter(torch.randn(512), requires_grad=False)
        self.output = nn.Linear(512, 10)
        self.tied = nn.Linear(64, 512)
        self.tied.weight = self.encode.weight


class RareClassifier(Classify):
    """Rows of two classes go through layers of their own, which run only if there are such rows."""

    def build(self) -> nn.Module:
        return RareModel()

    def forward(self, model: Any, batch: Any, carry: Any) -> tuple[torch.Tensor, Any]:
        image, label = batch["image"].flatten(1), batch["label"]
        hidden = torch.tanh(model.encode(image) + model.tied(image) + model.frozen)
        for layer, digit in ((model.nines, 9), (model.eights, 8)):
            if (label == digit).any():
                hidden = hidden + (label == digit)[:, None] * layer(hidden)
        return model.output(hidden), carry


def ring_job(size: int, workload: str, *overrides: str) -> TrainJob:
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(JOBS, workload, JOBS_AND_OWN[workload])
        return spec(workload, *overrides, f"resources.workers={size}")


def ringed(size: int, folder: Path, workload: str, *overrides: str, stop_after: int | None = None) -> Trained:
    job = ring_job(size, workload, "strategy.name=ring", *overrides)
    return in_workers(size, train_silently, job, str(folder), stop_after)[0]


def alone(folder: Path, workload: str, *overrides: str, stop_after: int | None = None) -> Trained:
    return train(ring_job(1, workload, *overrides), folder, stop_after=stop_after)


def train_silently(world: World, job: TrainJob, folder: str, stop_after: int | None) -> Trained:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = train_worker(world, job, folder, stop_after)
    assert_no_thread()
    return found


def assert_no_thread() -> None:
    deadline = time.monotonic() + 5
    while ringing := [t for t in threading.enumerate() if t.name == "dlsys-ring"]:
        assert time.monotonic() < deadline, f"threads left: {ringing}"
        time.sleep(0.01)


def assert_agree(truth: Trained, other: Trained) -> None:
    found = compare(Trace.of(truth.points, truth.weights), Trace.of(other.points, other.weights))
    assert found.agrees, found.problems
    assert_same_figures(truth, other)


@pytest.mark.parametrize("workload", JOBS_AND_OWN)
def test_two_workers_equal_one(workload: str, tmp_path: Path) -> None:
    assert_agree(alone(tmp_path / "one", workload), ringed(2, tmp_path / "two", workload))


@pytest.mark.parametrize("workload", ["lenet-5", "gan", "char-rnn"])
def test_parts_of_a_step_change_nothing(workload: str, tmp_path: Path) -> None:
    truth = alone(tmp_path / "one", workload, *PARTS)
    assert_agree(truth, ringed(4, tmp_path / "four", workload, *PARTS))


def test_a_gradient_that_only_some_workers_have(tmp_path: Path) -> None:
    """Buckets of one layer each go round in one order, though hooks fire in another or not at all."""
    overrides = ("batch_size=6", "stop.steps=6", "strategy.bucket_mb=1")
    truth = alone(tmp_path / "one", RARE, *overrides[:2])
    several = ringed(3, tmp_path / "three", RARE, *overrides)
    assert_agree(truth, several)
    # Neither decayed nor moved: nobody has a gradient for it.
    assert torch.equal(truth.weights["unused.weight"], several.weights["unused.weight"])


def test_a_last_batch_smaller_than_the_workers(tmp_path: Path) -> None:
    """479 × 3 = 1,437 rows: the last batch of an epoch has 1 row for 4 workers."""
    overrides = ("batch_size=1436", "stop={steps: 4}")
    truth = alone(tmp_path / "one", "softmax-regression", *overrides)
    assert_agree(truth, ringed(4, tmp_path / "four", "softmax-regression", *overrides))


@pytest.mark.parametrize("workload", ["gan", RARE])
def test_checkpoints_open_under_single_and_back(workload: str, tmp_path: Path) -> None:
    whole = alone(tmp_path / "whole", workload)
    ringed(2, tmp_path / "there", workload, stop_after=6)
    alone(tmp_path / "back", workload, stop_after=6)
    for rest in (alone(tmp_path / "there", workload), ringed(3, tmp_path / "back", workload)):
        assert min(rest.losses) == 7
        for step, loss in rest.losses.items():
            assert loss == pytest.approx(whole.losses[step], rel=1e-4), step
        for name, weight in whole.weights.items():
            assert torch.allclose(weight, rest.weights[name], atol=1e-4), name


@pytest.mark.parametrize(
    ("workload", "override"), [("gan", "strategy.bucket_mb=1"), ("resnet", "model.norm=batch")]
)
def test_resumes_bit_for_bit(workload: str, override: str, tmp_path: Path) -> None:
    """Running statistics among it, of which every worker would have its own."""
    overrides = ("evaluate='4 steps'", override)
    whole = ringed(2, tmp_path / "whole", workload, *overrides)
    ringed(2, tmp_path / "part", workload, *overrides, stop_after=6)
    rest = ringed(2, tmp_path / "part", workload, *overrides)
    assert_equal(whole.weights, rest.weights)
    assert {s: v for s, v in whole.losses.items() if s > 6} == rest.losses
    for name, value in whole.result.metrics.items():
        if name.startswith(("valid/", "test/")):
            assert rest.result.metrics[name] == value, name


@pytest.mark.parametrize("wire", ["bf16", "fp16"])
def test_a_narrow_wire_trains_as_well_and_sends_half(wire: str, tmp_path: Path) -> None:
    truth = ringed(2, tmp_path / "same", "lenet-5")
    narrow = ringed(2, tmp_path / "narrow", "lenet-5", f"strategy.wire={wire}", stop_after=6)
    sent = "perf/sent_bytes_per_step"
    assert narrow.points[sent][3] == truth.points[sent][3] / 2
    for step, loss in narrow.losses.items():
        assert loss == pytest.approx(truth.losses[step], rel=0.02), step
    assert narrow.losses != {step: truth.losses[step] for step in narrow.losses}
    # The residual stays with its worker: another number of them goes on without it.
    rest = ringed(3, tmp_path / "narrow", "lenet-5", f"strategy.wire={wire}")
    assert rest.losses[12] == pytest.approx(truth.losses[12], rel=0.02)


def test_bytes_sent(tmp_path: Path) -> None:
    run = ringed(4, tmp_path, "lenet-5", "stop.steps=3", "gradient.accumulate=2", "evaluate='2 steps'")
    # Every weight, and for every tensor a flag.
    numbers = sum(weight.numel() for weight in run.weights.values()) + len(run.weights)
    for sent in run.points["perf/sent_bytes_per_step"].values():
        assert sent == pytest.approx(2 * 3 / 4 * 4 * numbers, abs=2 * 3 * 4)


def test_buckets_leave_while_backward_goes_on() -> None:
    """In the last micro-batch of a step, each as soon as its own gradients are there."""
    job = ring_job(
        2,
        "lenet-5",
        "model.width=6",
        "strategy={name: ring, bucket_mb: 1}",
        "gradient.accumulate=2",
        "stop.steps=2",
    )
    for steps in in_workers(2, missing_when_sent, job):
        assert len(steps) == 2
        for missing in steps:
            assert len(missing) > 2
            assert missing[-1] == 0
            assert missing == sorted(set(missing), reverse=True)


def missing_when_sent(world: World, job: TrainJob) -> list[list[int]]:
    """For each step, gradients that were still to come when each of its buckets left."""
    missing: list[list[int]] = []

    class Watched(RingDataParallel):
        def forward(self, *arguments: Any) -> Any:
            if self._syncs:
                missing.append([])
            return super().forward(*arguments)

        def _send_full(self) -> None:
            before = self._next
            super()._send_full()
            count = sum(len(bucket.missing) for bucket in self._buckets)
            missing[-1].extend([count] * (self._next - before))

        def finish(self) -> None:
            assert self._next == len(self._buckets), "buckets were left for after backward"
            super().finish()

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(ring, "RingDataParallel", Watched)
        train(job, Path(folder), world=world)
    return missing


def test_a_nan_stops_every_worker_and_changes_nothing() -> None:
    job = ring_job(3, "lenet-5", "strategy.name=ring")
    for error, unchanged in in_workers(3, poison, job):
        assert "step 3" in error
        assert "conv1.0.weight" in error
        assert unchanged


def poison(world: World, job: TrainJob) -> tuple[str, bool]:
    """Trains until one worker's gradient of one tensor is NaN."""
    before: dict[str, torch.Tensor] = {}

    class Poisoned(RingStrategy):
        def train_step(self, batch: Any, step: int, hyper: Any) -> Any:
            if step == 3:
                before.update({name: value.clone() for name, value in self._model.state_dict().items()})
                if world.rank == 1:
                    name, parameter = self._phases[0].named[0]
                    assert name == "conv1.0.weight"
                    parameter.register_hook(lambda gradient: gradient * torch.nan)
            return super().train_step(batch, step, hyper)

    poisoned = Poisoned()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: lambda: poisoned)
        with pytest.raises(NonFiniteError) as found:
            train(job, Path(folder), world=world)
    assert_no_thread()
    after = poisoned._model.state_dict()
    return str(found.value), all(torch.equal(before[name], after[name]) for name in before)


def test_running_statistics_are_equal_on_all_workers() -> None:
    job = ring_job(3, "resnet", "strategy.name=ring", "model.norm=batch", "stop.steps=3")
    first, *others = in_workers(3, running_statistics, job)
    assert first
    for other in others:
        assert_equal(first, other)


def running_statistics(world: World, job: TrainJob) -> dict[str, torch.Tensor]:
    strategy = RingStrategy()
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: lambda: strategy)
        train(job, Path(folder), world=world)
    return dict(strategy._model.named_buffers())


def test_a_killed_peer_is_an_error_and_no_hang(tmp_path: Path) -> None:
    job = ring_job(2, "lenet-5", "strategy.name=ring")
    context = mp.get_context("spawn")
    ours, theirs = context.Pipe()
    members = [
        context.Process(target=lose_a_peer, args=(rank, str(tmp_path), job, theirs)) for rank in (0, 1)
    ]
    for member in members:
        member.start()
    try:
        assert ours.poll(60), "the survivor hangs"
        kind, text = ours.recv()
        assert kind == "RuntimeError"
        assert "gloo" in text
        for member in members:
            member.join(30)
        assert [member.exitcode for member in members] == [0, -signal.SIGKILL]
    finally:
        for member in members:
            member.kill()


def lose_a_peer(rank: int, folder: str, job: TrainJob, pipe: Any) -> None:
    """Rank 1 kills itself in the backward pass of its third step."""
    torch.set_num_threads(1)
    torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)

    class Mortal(RingStrategy):
        def train_step(self, batch: Any, step: int, hyper: Any) -> Any:
            if step == 3 and rank == 1:
                self._phases[0].parameters[0].register_hook(lambda _: os.kill(os.getpid(), signal.SIGKILL))
            return super().train_step(batch, step, hyper)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Mortal)
        try:
            train(job, Path(folder, str(rank)), world=World(rank, rank, 2, backend="gloo"))
        except Exception as error:
            pipe.send((type(error).__name__, str(error)))
    assert_no_thread()


@pytest.mark.gpu
def test_gradients_of_a_gpu_go_round_too(tmp_path: Path) -> None:
    truth = alone(tmp_path / "one", "lenet-5")
    job = ring_job(2, "lenet-5", "strategy.name=ring")
    several = in_workers(2, train_on_gpu, job, str(tmp_path / "two"))[0]
    assert several.losses[12] == pytest.approx(truth.losses[12], rel=1e-3)


def train_on_gpu(world: World, job: TrainJob, folder: str) -> Trained:
    """Both workers on the one GPU, which gloo does not mind."""
    return train_worker(dataclasses.replace(world, device=torch.device("cuda", 0)), job, folder)
