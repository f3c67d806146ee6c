"""DDP's options: what stays exact, and what is an approximation that learns all the same."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import assert_equal, in_workers, reference, train, train_worker
from test_ddp_equals_single import spec

pytestmark = pytest.mark.slow

TWO = ("strategy.name=ddp", "resources.workers=2")


def two(folder: Path, *overrides: str):
    return in_workers(2, train_worker, spec("lenet-5", *TWO, *overrides), str(folder))[0]


@pytest.mark.parametrize("option", ["bucket_mb=1", "static_graph=true"])
def test_options_that_compute_the_same(option: str, tmp_path: Path) -> None:
    plain = two(tmp_path / "plain")
    found = two(tmp_path / "option", f"strategy.{option}")
    assert found.losses == pytest.approx(plain.losses, rel=1e-5)


@pytest.mark.parametrize(("hook", "near"), [("fp16", 1e-2), ("powersgd", None)])
def test_compressed_gradients_are_near(hook: str, near: float | None, tmp_path: Path) -> None:
    exact = reference(spec("lenet-5"))
    found = two(tmp_path / "two", f"strategy.hook={hook}")
    assert found.losses != exact.losses, "the hook did nothing"
    if near:
        assert found.losses == pytest.approx(exact.losses, rel=near)
    assert found.losses[12] < found.losses[1]


def test_local_sgd_averages_when_it_should(tmp_path: Path) -> None:
    """With an average after every update, plain SGD computes the same as DDP."""
    plain = ("optimizer={name: sgd, lr: 0.05}", "gradient={}", "regularize=[]")
    exact = two(tmp_path / "ddp", *plain)
    found = two(tmp_path / "each", *plain, "strategy.local_sgd={every: 1}")
    assert found.losses == pytest.approx(exact.losses, rel=1e-5)
    apart = two(tmp_path / "third", *plain, "strategy.local_sgd={every: 3}")
    assert apart.losses[2] == pytest.approx(exact.losses[2], rel=0.1)
    assert apart.losses[5] != pytest.approx(exact.losses[5], rel=1e-6)
    for name, weight in exact.weights.items():
        assert torch.allclose(weight, apart.weights[name], atol=0.05), name


@pytest.mark.parametrize(
    "option", ["hook=powersgd", "hook=fp16", "local_sgd={every: 2}", "static_graph=true"]
)
def test_an_only_worker_does_nothing_of_them(option: str, tmp_path: Path) -> None:
    """An elastic run that has shrunk to one worker keeps them for when it grows."""
    exact = train(spec("lenet-5"), tmp_path / "single")
    found = train(spec("lenet-5", "strategy.name=ddp", f"strategy.{option}"), tmp_path / "ddp")
    assert found.losses == exact.losses
    assert_equal(found.weights, exact.weights)


def test_what_is_sent(tmp_path: Path) -> None:
    sent = "perf/sent_bytes_per_step"
    found = two(tmp_path / "ddp")
    gradients = sum(4 * weight.numel() for weight in found.weights.values())
    used = 4 * len(found.weights)  # who has used which parameter, until it is known that all are
    assert found.points[sent][1] == gradients + used
    assert found.points[sent][12] == gradients
    assert two(tmp_path / "all", "strategy.find_unused=true").points[sent][12] == gradients + used
    assert two(tmp_path / "half", "strategy.hook=fp16").points[sent][12] == gradients / 2
    assert two(tmp_path / "local", "strategy.local_sgd={every: 4}").points[sent][12] == gradients / 4
