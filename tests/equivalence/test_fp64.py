"""`precision: fp64`: with rounding out of the way, several workers compute what one does to 1e-12."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import Trained, assert_equal, reference, train, with_workers
from test_ddp_equals_single import spec

from dlsys.spec import TrainJob
from dlsys.train.trace import Trace, compare

pytestmark = pytest.mark.slow

STEPS = 8
# Sums in another order differ in the last bits of a double, about 1e-16. A single fp32 number on the
# way would make it 1e-8.
LOSS, NORM, WEIGHT = 1e-13, 1e-12, 1e-12
STRATEGIES = ("ddp", "ring", "ps", "fsdp", "pipeline", "tensor")


def double(workload: str, *overrides: str) -> TrainJob:
    return spec(workload, "precision=fp64", f"stop.steps={STEPS}", *overrides)


def on(strategy: str) -> tuple[str, str]:
    return f"strategy.name={strategy}", "resources.workers=2"


def assert_double(run: Trained) -> None:
    for name, weight in run.weights.items():
        assert weight.dtype == torch.float64, name


@pytest.mark.parametrize(
    ("workload", "strategy"),
    [
        *(("lenet-5", strategy) for strategy in STRATEGIES),
        ("char-rnn", "fsdp"),  # carries state
        ("dlrm", "tensor"),  # has a plan with embeddings
        ("gan", "ddp"),  # two phases, and noise of its own
    ],
)
def test_two_workers_equal_one_to_the_last_digits(workload: str, strategy: str, tmp_path: Path) -> None:
    truth = reference(double(workload))
    other = with_workers(double(workload, *on(strategy)), tmp_path / "two")
    assert_double(truth)
    assert_double(other)
    found = compare(Trace.of(truth.points, truth.weights), Trace.of(other.points, other.weights))
    assert found.agrees, found.problems
    assert len(truth.losses) == STEPS
    assert found.loss < LOSS
    assert found.norm < NORM
    assert found.weight < WEIGHT
    for name, value in truth.result.metrics.items():
        if name.startswith(("valid/", "test/")):
            assert other.result.metrics[name] == pytest.approx(value, rel=1e-12), name


@pytest.mark.parametrize("strategy", ["single", *STRATEGIES])
def test_interrupted_and_resumed_is_the_same_bit_for_bit(strategy: str, tmp_path: Path) -> None:
    places = () if strategy == "single" else on(strategy)
    # Its product of momenta is a number of its own, in fp32.
    job = double("lenet-5", "optimizer={name: nadam, lr: 0.001}", *places)
    whole = with_workers(job, tmp_path / "whole")
    part = with_workers(job, tmp_path / "part", stop_after=STEPS // 2)
    assert part.result.reason == "interrupted"
    rest = with_workers(job, tmp_path / "part")
    assert_double(rest)
    assert_equal(whole.weights, rest.weights)
    assert rest.losses[STEPS] == whole.losses[STEPS]


@pytest.mark.parametrize(("before", "after"), [("fp32", "fp64"), ("fp64", "fp32")])
def test_a_run_may_change_its_precision(before: str, after: str, tmp_path: Path) -> None:
    """In the middle of an epoch: the carried state changes with the rest."""
    begun = double("char-rnn", f"precision={before}")
    train(begun, tmp_path, stop_after=STEPS // 2)
    rest = train(double("char-rnn", f"precision={after}"), tmp_path)
    whole = reference(double("char-rnn"))
    assert min(rest.losses) == STEPS // 2 + 1
    for name, weight in whole.weights.items():
        assert rest.weights[name].dtype == (torch.float64 if after == "fp64" else torch.float32), name
        assert torch.allclose(weight, rest.weights[name].double(), atol=1e-5), name
