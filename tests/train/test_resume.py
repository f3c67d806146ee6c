"""Stopped and resumed equals uninterrupted, bit for bit."""

from __future__ import annotations

from pathlib import Path

import pytest
from harness import QUICK, assert_equal, in_workers, job, train, train_worker

LENET = QUICK.replace("softmax-regression", "lenet-5")
CHARS = """
kind: train
name: test
workload: char-rnn
model: {hidden: 16, embedding: 8, dropout: 0.1}
data: {source: pydoc, limit: 8000, window: 16}
batch_size: 8
optimizer: {name: adam, lr: 0.01}
schedule: {name: one-cycle, max_lr: 0.02}
gradient: {accumulate: 2, clip_norm: 1.0}
stop: {epochs: 2}
checkpoint: {every: 7 steps}
tracking: {log_every: 3}
"""
GAN = """
kind: train
name: test
workload: gan
data: {source: gaussian-ring, rows: 500}
batch_size: 64
optimizer: {name: adam, lr: 0.001}
stop: {steps: 14}
checkpoint: {every: 5 steps}
tracking: {log_every: 1}
"""
VARIED = "'torchvision.transforms.v2:RandAugment'"
CLUSTERS = """
kind: train
name: test
workload: k-means
model: {clusters: 4, starts: 2, update: mini-batch}
data: {source: digits}
batch_size: 200
stop: {steps: 14}
checkpoint: {every: 5 steps}
tracking: {log_every: 1}
"""
CASES = {
    "plateau": (QUICK, ["schedule.name=performance-schedule", "evaluate='2 steps'", "stop.steps=20"]),
    "dropout": (LENET, ["model.dropout=0.5", "optimizer.name=adam", "optimizer.lr=0.01"]),
    "shuffled-epochs": (LENET, ["batch_size=400", "stop={epochs: 4}", "data.prefetch=2"]),
    "augmented": (LENET, ["regularize=[{name: data-augmentation, shift: 1, noise: 0.1}]"]),
    "transforms": (
        LENET,
        [
            f"regularize=[{{name: data-augmentation, transforms: [{{name: {VARIED}}}]}}]",
            "data.normalize=measured",
            "model.dropout=0.5",
        ],
    ),
    "carried-state": (CHARS, []),
    "two-phases": (GAN, []),
    "solved": (CLUSTERS, []),
}


@pytest.mark.parametrize("case", CASES)
def test_stopped_and_resumed_equals_uninterrupted(case: str, tmp_path: Path) -> None:
    text, overrides = CASES[case]
    spec = job(text, *overrides)
    whole = train(spec, tmp_path / "whole")
    for stop_after in (3, 9):
        part = train(spec, tmp_path / f"part-{stop_after}", stop_after=stop_after)
        assert part.result.reason == "interrupted"
        assert 0 < part.result.position.step < whole.result.position.step
        rest = train(spec, tmp_path / f"part-{stop_after}")
        assert_equal(whole.weights, rest.weights)
        both = {name: {**part.points.get(name, {}), **rest.points[name]} for name in rest.points}
        for name in ("train/loss", "valid/loss", "train/lr", "train/grad_norm"):
            assert both.get(name) == whole.points.get(name), name


def test_two_workers_resume_exactly(tmp_path: Path) -> None:
    spec = job(CHARS, "strategy.name=ddp", "resources.workers=2")
    whole = in_workers(2, train_worker, spec, str(tmp_path / "whole"))[0]
    part = in_workers(2, train_worker, spec, str(tmp_path / "part"), 5)[0]
    assert part.result.reason == "interrupted"
    rest = in_workers(2, train_worker, spec, str(tmp_path / "part"))[0]
    assert_equal(whole.weights, rest.weights)


def test_a_checkpoint_of_two_workers_opens_under_one(tmp_path: Path) -> None:
    """Carried state is cut anew; without dropout nothing else depends on the workers."""
    text = CHARS.replace("dropout: 0.1", "dropout: 0.0")
    two = job(text, "strategy.name=ddp", "resources.workers=2")
    one = job(text)
    whole = train(one, tmp_path / "whole")
    in_workers(2, train_worker, two, str(tmp_path / "part"), 5)
    rest = train(one, tmp_path / "part")
    for name, weight in whole.weights.items():
        assert (weight - rest.weights[name]).abs().max() < 1e-5, name
