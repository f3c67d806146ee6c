"""One truth: several workers compute what one computes."""

from __future__ import annotations

import hashlib
import tempfile
from pathlib import Path

import pytest
import torch
from harness import in_workers, job, reference, train, train_worker

from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.train.strategies.ddp import DDPStrategy
from dlsys.train.world import World

HEAD = "kind: train\nname: test\ntracking: {log_every: 1}\n"
JOBS = {
    "softmax-regression": "data: {source: digits}\noptimizer: {name: nesterov, lr: 0.1}\n",
    "lenet-5": "data: {source: digits}\noptimizer: {name: sgd, lr: 0.05, momentum: 0.9}\n"
    "gradient: {clip_norm: 1.0}\nregularize: [{name: l2, strength: 0.001}, {name: max-norm, limit: 3}]\n",
    "resnet": "model: {depth: 8, norm: group}\ndata: {source: digits}\noptimizer: {name: adam, lr: 0.001}\n",
    "char-rnn": "model: {hidden: 16, embedding: 8}\ndata: {source: pydoc, limit: 20000, window: 16}\n"
    "optimizer: {name: adam, lr: 0.01}\n",
    "dlrm": "data: {source: synthetic-ctr, rows: 2000, cardinality: 20}\n"
    "optimizer: {name: adagrad, lr: 0.05}\n",
    "ssd": "model: {channels: [8, 16, 16], levels: 2, sizes: [0.3, 0.6]}\n"
    "data: {source: shapes, rows: 150, size: 32, sides: [8, 16]}\n"
    "optimizer: {name: sgd, lr: 0.02, momentum: 0.9}\n",
    "gan": "data: {source: gaussian-ring, rows: 1000}\noptimizer: {name: adam, lr: 0.001}\n",
}
STEPS = 12


def spec(workload: str, *overrides: str):
    # A batch that leaves a last, smaller one: 1,437 digits are 29 × 48 + 45.
    text = f"{HEAD}workload: {workload}\n{JOBS[workload]}batch_size: 48\nstop: {{steps: {STEPS}}}\n"
    return job(text, *overrides)


def assert_same_computation(workload: str, tmp_path: Path, size: int, *overrides: str) -> None:
    truth = reference(spec(workload, *overrides))
    several = in_workers(
        size,
        train_worker,
        spec(workload, *overrides, "strategy.name=ddp", f"resources.workers={size}"),
        str(tmp_path / "several"),
    )[0]
    assert truth.losses.keys() == several.losses.keys()
    for step, loss in truth.losses.items():
        assert several.losses[step] == pytest.approx(loss, rel=1e-5, abs=1e-6), f"step {step}"
    for name, weight in truth.weights.items():
        if weight.is_floating_point():
            assert torch.allclose(weight, several.weights[name], atol=1e-4), name
    for name, value in truth.result.metrics.items():
        if name.startswith(("valid/", "test/")):
            assert several.result.metrics[name] == pytest.approx(value, rel=1e-3, abs=1e-3), name


@pytest.mark.parametrize("workload", JOBS)
def test_two_workers_equal_one(workload: str, tmp_path: Path) -> None:
    assert_same_computation(workload, tmp_path, 2)


def test_varied_and_mixed_images(tmp_path: Path) -> None:
    varied = "{name: data-augmentation, rotate: 15, crop: 0.6, contrast: 0.3, mixup: 0.4, cutmix: 1.0}"
    assert_same_computation("lenet-5", tmp_path, 2, f"regularize=[{varied}]")


def test_a_last_batch_smaller_than_the_workers(tmp_path: Path) -> None:
    """479 × 3 = 1,437 rows: the last batch of an epoch has 1 row for 4 workers."""
    overrides = ("batch_size=1436", "stop={steps: 4}")
    assert_same_computation("softmax-regression", tmp_path, 4, *overrides)


def test_accumulation_equals_a_large_batch(tmp_path: Path) -> None:
    whole = reference(spec("lenet-5"))
    parts = train(spec("lenet-5", "gradient.accumulate=4"), tmp_path / "parts")
    for step, loss in whole.losses.items():
        assert parts.losses[step] == pytest.approx(loss, rel=1e-5)
    for name, weight in whole.weights.items():
        assert torch.allclose(weight, parts.weights[name], atol=1e-5), name


def test_workers_keep_equal_weights(tmp_path: Path) -> None:
    """Replicas are equal on all ranks after every step, though dropout differs between them."""
    overrides = ("model.dropout=0.5", "strategy.name=ddp", "resources.workers=3")
    found = in_workers(3, weights_after_each_step, spec("lenet-5", *overrides))
    assert len(found[0]) == STEPS
    assert found[0] == found[1] == found[2]


def weights_after_each_step(world: World, job: TrainJob) -> list[str]:
    """A hash of this worker's weights after each step."""
    hashes = []

    class Watched(DDPStrategy):
        def train_step(self, *arguments):
            result = super().train_step(*arguments)
            state = self._model.state_dict()
            hashes.append(hashlib.sha256(b"".join(v.numpy().tobytes() for v in state.values())).hexdigest())
            return result

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Watched)
        train(job, Path(folder), world=world)
    return hashes
