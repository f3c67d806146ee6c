"""Averages of weights: what they are, and that they are what is measured, saved, resumed and exported."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch
from harness import QUICK, Trained, job, train, with_workers
from safetensors.torch import load_file
from torch import Tensor, nn

from dlsys.errors import SpecError
from dlsys.train.average import Average, averaged
from dlsys.train.checkpoint import CheckpointStore, Saved
from dlsys.train.checkpoint.export import export
from dlsys.train.checkpoint.store import read

EMA = ("optimizer={name: adam, lr: 0.01}", "average={name: ema, decay: 0.9}")
EACH = ("checkpoint={every: 1 step, keep: 100}",)


def each(folder: Path) -> dict[int, Saved]:
    """A run's checkpoints by step."""
    found = [read(path) for path in CheckpointStore(folder / "checkpoints").list()]
    return {saved.position.step: saved for saved in found}


def test_ema_is_what_it_says(tmp_path: Path) -> None:
    trained = train(job(QUICK, *EMA, *EACH), tmp_path)
    expected: dict[str, Tensor] = {}
    for step, saved in each(tmp_path).items():
        for name, weight in saved.model.items():
            decay = min(0.9, step / (9 + step)) if step > 1 else 0.0
            before = expected.get(name, torch.zeros(()))
            expected[name] = decay * before.double() + (1 - decay) * weight.double()
            torch.testing.assert_close(saved.weights[name].double(), expected[name], atol=1e-6, rtol=1e-5)
    last = each(tmp_path)[12]
    assert not any(torch.equal(last.weights[name], last.model[name]) for name in last.model), "no average"
    # What is measured are these: a run of the exported weights that does not train finds the same.
    export(tmp_path / "checkpoints", tmp_path / "mean.safetensors")
    for name, tensor in load_file(tmp_path / "mean.safetensors").items():
        assert torch.equal(tensor, last.weights[name])
    assert measured(tmp_path / "mean.safetensors", tmp_path / "still") == trained.result.metrics["valid/loss"]


def measured(weights: Path, folder: Path, *overrides: str) -> float:
    """`valid/loss` of weights in a file."""
    still = (f"init={{file: {weights}}}", "optimizer={name: sgd, lr: 1.0e-30}", "stop.steps=1")
    return train(job(QUICK, *overrides, *still), folder).result.metrics["valid/loss"]


def test_training_itself_is_that_without(tmp_path: Path) -> None:
    """Also behind evaluations and checkpoints, which put the averages in place and the weights back."""
    often = ("evaluate=2 steps", "checkpoint.every=3 steps")
    with_it = train(job(QUICK, *EMA, *often), tmp_path / "with")
    without = train(job(QUICK, EMA[0], *often), tmp_path / "without")
    assert with_it.losses == without.losses
    for name, tensor in without.weights.items():
        assert torch.equal(with_it.weights[name], tensor)
    assert with_it.points["valid/loss"] != without.points["valid/loss"]


def test_swa_is_the_mean_of_what_entered(tmp_path: Path) -> None:
    train(job(QUICK, *EACH, "average={name: swa, after: 4 steps, every: 3 steps}"), tmp_path)
    points = each(tmp_path)
    for name, weight in points[6].model.items():
        assert torch.equal(points[6].weights[name], weight), "nothing has entered yet"
        mean = torch.stack([points[step].model[name] for step in (7, 10)]).mean(0)
        torch.testing.assert_close(points[12].weights[name], mean)


def test_swa_counts_in_epochs(tmp_path: Path) -> None:
    small = ("batch_size=480", "stop={epochs: 4}", "checkpoint={every: 1 epoch, keep: 9}")
    train(job(QUICK, *small, "average={name: swa, after: 1 epoch}"), tmp_path)
    points = [*each(tmp_path).values()]
    assert len(points) == 4
    for name in points[-1].model:
        mean = torch.stack([saved.model[name] for saved in points[1:]]).mean(0)
        torch.testing.assert_close(points[-1].weights[name], mean)


@pytest.mark.parametrize("options", [EMA, ("average={name: swa, after: 2 steps, every: 2 steps}",)])
def test_resumed_is_uninterrupted(options: tuple[str, ...], tmp_path: Path) -> None:
    whole = train(job(QUICK, *options), tmp_path / "whole")
    half = train(job(QUICK, *options), tmp_path / "half", stop_after=7)
    assert half.result.reason == "interrupted"
    rest = train(job(QUICK, *options), tmp_path / "half")
    first, second = last(tmp_path / "whole"), last(tmp_path / "half")
    for name in first.model:
        assert torch.equal(first.model[name], second.model[name])
        assert torch.equal(first.weights[name], second.weights[name])
    assert rest.result.metrics["valid/loss"] == whole.result.metrics["valid/loss"]


def test_a_run_that_goes_on_may_begin_one(tmp_path: Path) -> None:
    train(job(QUICK, EMA[0], "stop.steps=6"), tmp_path)
    train(job(QUICK, *EMA), tmp_path)
    assert last(tmp_path).optimizers["main/averaged"]["param_groups"][0]["count"] == 6


def last(folder: Path) -> Saved:
    saved = CheckpointStore(folder / "checkpoints").latest()
    assert saved is not None
    return saved


CONVOLUTIONS = ("workload=lenet-5", "model={width: 0.5}", *EMA, "stop.steps=4")


@pytest.mark.slow
@pytest.mark.parametrize(
    "strategy", ["ddp", "ring", "fsdp", "tensor", "pipeline", "{name: tensor, size: 2, data: shard}"]
)
def test_it_is_the_same_under_every_strategy(strategy: str, tmp_path: Path) -> None:
    several = strategy.startswith("{")
    asked = f"strategy={strategy}" if several else f"strategy.name={strategy}"
    single = compared(train, (), tmp_path / "one")
    found = compared(with_workers, (asked, f"resources.workers={4 if several else 2}"), tmp_path / "two")
    for name, tensor in single[1].weights.items():
        torch.testing.assert_close(found[1].weights[name], tensor, atol=1e-5, rtol=1e-5)
        assert not torch.equal(tensor, single[1].model[name])
    close = pytest.approx(single[0].result.metrics["valid/loss"], abs=1e-5)
    assert found[0].result.metrics["valid/loss"] == close
    # Resumed as one worker, it goes on with the same average.
    longer = train(job(QUICK, *CONVOLUTIONS, "stop.steps=6"), tmp_path / "two")
    assert longer.result.position.step == 6
    assert last(tmp_path / "two").optimizers["main/averaged"]["param_groups"][0]["count"] == 6


def compared(how: object, overrides: tuple[str, ...], folder: Path) -> tuple[Trained, Saved]:
    assert callable(how)
    return how(job(QUICK, *CONVOLUTIONS, *overrides), folder), last(folder)


class Normed(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.body = nn.Sequential(nn.Flatten(), nn.Linear(64, 16), nn.BatchNorm1d(16), nn.Linear(16, 10))
        self.register_buffer("mask", torch.full((10,), float("-inf")))

    def forward(self, x: Tensor) -> Tensor:
        return self.body(x)


@pytest.mark.parametrize("strategy", ["single", "ddp", "ring", "fsdp"])
@pytest.mark.parametrize("average", ["", "average={name: ema, decay: 0.5}"])
def test_what_is_measured_is_what_is_saved(strategy: str, average: str, tmp_path: Path) -> None:
    """Running statistics too: of several workers, rank 0's are saved."""
    mine = (f"workload={__name__}:Normed", "optimizer={name: adam, lr: 0.01}", *filter(None, [average]))
    workers = 1 if strategy == "single" else 2
    asked = (f"strategy.name={strategy}", f"resources.workers={workers}")
    trained = with_workers(job(QUICK, *mine, *asked), tmp_path / "run")
    export(tmp_path / "run" / "checkpoints", tmp_path / "mean.safetensors")
    saved = last(tmp_path / "run")
    moved = {name for name, tensor in saved.weights.items() if not torch.equal(tensor, saved.model[name])}
    assert ("body.2.running_mean" in moved) == ("body.1.weight" in moved) == bool(average)
    model = Normed()
    model.load_state_dict(load_file(tmp_path / "mean.safetensors"))
    model.eval()
    assert trained.result.metrics["valid/loss"] == pytest.approx(loss_of(model), rel=1e-5)


def loss_of(model: nn.Module) -> float:
    """The cross-entropy of the digits' validation rows."""
    from dlsys.data import load

    rows = load(job(QUICK).data, Path()).valid
    batch = rows.batch(torch.arange(len(rows)).numpy())
    with torch.no_grad():
        return float(nn.functional.cross_entropy(model(batch["image"]), batch["label"]))


def test_tied_weights_have_one_average() -> None:
    first, second = nn.Linear(3, 3, bias=False), nn.Linear(3, 3, bias=False)
    second.weight = first.weight
    both = nn.ModuleDict({"first": first, "second": second})
    average = Average([*both.named_parameters()], job(QUICK, *EMA).average, 1)  # type: ignore[arg-type]
    average.take(1)
    with torch.no_grad():
        first.weight.zero_()
    average.take(2)
    names = {"state": {"first.weight": average.state[first.weight]}}
    found = averaged(both.state_dict(), {"main/averaged": names})
    assert found["second.weight"] is found["first.weight"]
    assert not torch.equal(found["first.weight"], first.weight)


@pytest.mark.parametrize(
    ("overrides", "said"),
    [
        (
            ("strategy.name=zero", "resources.workers=2"),
            "average: is for .* and moe, got strategy zero",
        ),
        (
            ("strategy.name=ps", "resources.workers=2"),
            "average: is for .* and moe, got strategy ps",
        ),
        (
            ("strategy={name: ddp, local_sgd: {every: 2}}", "resources.workers=2"),
            "average: under local_sgd workers train apart",
        ),
        (("average={name: swa, after: 12 steps}",), r"average.after: 12 steps is not before the end, stop"),
        (("average={name: ema, decay: 1}",), "average.decay"),
    ],
)
def test_where_it_cannot_be_is_told(overrides: tuple[str, ...], said: str) -> None:
    with pytest.raises(SpecError, match=said):
        job(QUICK, *EMA, *overrides)
