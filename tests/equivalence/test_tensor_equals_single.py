"""One truth: layers cut among several workers compute what whole ones compute."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import (
    Trained,
    assert_equal,
    assert_same_figures,
    in_workers,
    job,
    reference,
    train,
    train_worker,
)
from test_ddp_equals_single import HEAD, STEPS, spec
from torch import nn
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlsys import data
from dlsys.errors import NonFiniteError, UsageError
from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.spec.card import uneven
from dlsys.spec.catalogue import WORKLOADS
from dlsys.train.collectives.mean import local
from dlsys.train.strategies import tensor
from dlsys.train.strategies.tensor import TensorStrategy
from dlsys.train.world import World
from dlsys.zoo.load import load_workload
from dlsys.zoo.tasks.classify import Classify
from dlsys.zoo.workload import Cut

pytestmark = pytest.mark.slow

ADAM = "optimizer={name: adam, lr: 0.002}"


class Grouped(Classify):
    """A user's own workload: a grouped convolution, and three affine layers behind it."""

    metrics = {"accuracy": "max"}  # noqa: RUF012
    tensor_plan = {  # noqa: RUF012
        "2": Cut("groups"),
        "5": Cut("column"),
        "7": Cut("row"),
        "9": Cut("gather"),
    }

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.Tanh(),
            nn.Conv2d(8, 16, 3, padding=1, groups=4),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Linear(64, 24),
            nn.Tanh(),
            nn.Linear(24, 12),
            nn.Tanh(),
            nn.Linear(12, 10),
        )


def grouped(*overrides: str) -> TrainJob:
    text = f"{HEAD}workload: {__name__}:Grouped\ndata: {{source: digits}}\nbatch_size: 48\n"
    return job(f"{text}optimizer: {{name: momentum, lr: 0.05}}\nstop: {{steps: {STEPS}}}\n", *overrides)


def alexnet(*overrides: str) -> TrainJob:
    text = f"{HEAD}workload: alexnet\nmodel: {{width: 0.04, dropout: 0}}\ndata: {{source: digits}}\n"
    text += f"batch_size: 48\noptimizer: {{name: momentum, lr: 0.01}}\nstop: {{steps: {STEPS}}}\n"
    return job(text, *overrides)


def cut(size: int, workers: int) -> tuple[str, ...]:
    return "strategy.name=tensor", f"strategy.size={size}", f"resources.workers={workers}"


def several(make: Callable[..., TrainJob], folder: Path, size: int, workers: int, *overrides: str) -> Trained:
    found: Trained = in_workers(
        workers, train_worker, make(*overrides, *cut(size, workers)), str(folder / "several")
    )[0]
    return found


def assert_same(truth: Trained, found: Trained, *, rel: float = 1e-5) -> None:
    assert truth.losses.keys() == found.losses.keys()
    norms = found.points["train/grad_norm"]
    for step, loss in truth.losses.items():
        assert found.losses[step] == pytest.approx(loss, rel=rel, abs=1e-6), f"step {step}"
        assert norms[step] == pytest.approx(truth.points["train/grad_norm"][step], rel=10 * rel), step
    assert truth.weights.keys() == found.weights.keys()
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, found.weights[name], atol=1e-4), name
    assert_same_figures(truth, found)


def workload_job(workload: str) -> Callable[..., TrainJob]:
    own = {"grouped": grouped, "alexnet": alexnet}
    return own.get(workload) or (lambda *overrides: spec(workload, *overrides))


@pytest.mark.parametrize("workload", ["softmax-regression", "lenet-5", "dlrm", "alexnet"])
def test_two_workers_equal_one(workload: str, tmp_path: Path) -> None:
    make = workload_job(workload)
    assert_same(reference(make()), several(make, tmp_path, 2, 2))


@pytest.mark.parametrize("workload", ["lenet-5", "grouped"])
def test_four_workers_equal_one(workload: str, tmp_path: Path) -> None:
    """Two groups of two, with two micro-batches each."""
    make = workload_job(workload)
    found = several(make, tmp_path, 2, 4, "gradient.accumulate=2")
    assert_same(reference(make()), found)


def test_a_last_batch_smaller_than_the_workers(tmp_path: Path) -> None:
    """1,437 rows: the last batch of an epoch has 1 row for 2 groups."""
    overrides = ("batch_size=1436", "stop={steps: 4}")
    truth = reference(spec("softmax-regression", *overrides))
    assert_same(truth, several(workload_job("softmax-regression"), tmp_path, 2, 4, *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("gradient.clip_norm=0.2", "regularize=[{name: max-norm, limit: 0.5}]"),
        ("gradient.clip_norm=null", "gradient.clip_value=0.01", "regularize=[{name: l1, strength: 0.001}]"),
        ("regularize=[{name: weight-decay, strength: 0.5}]",),
    ],
    ids=["clip-norm and max-norm", "clip-value and l1", "weight-decay"],
)
def test_clipping_and_regularizers_see_whole_layers(overrides: tuple[str, ...], tmp_path: Path) -> None:
    plain = reference(spec("lenet-5", "gradient.clip_norm=null", "regularize=[]"))
    truth = reference(spec("lenet-5", *overrides))
    assert truth.losses[STEPS] != plain.losses[STEPS]
    assert_same(truth, several(workload_job("lenet-5"), tmp_path, 2, 2, *overrides))


@pytest.mark.parametrize("name", ["rmsprop", "adadelta", "adamax", "nadam", "yogi", "adamw"])
def test_every_optimizer_takes_cut_parameters(name: str, tmp_path: Path) -> None:
    overrides = (f"optimizer={{name: {name}, lr: 0.001}}", "stop.steps=4")
    truth = reference(spec("lenet-5", *overrides))
    assert_same(truth, several(workload_job("lenet-5"), tmp_path, 2, 2, *overrides), rel=1e-4)


@pytest.mark.parametrize(
    ("first", "second"),
    [(cut(2, 2), ()), ((), cut(2, 2)), (cut(2, 4), cut(4, 4))],
    ids=["tensor to single", "single to tensor", "2×2 to 4"],
)
def test_a_checkpoint_opens_elsewhere(
    first: tuple[str, ...], second: tuple[str, ...], tmp_path: Path
) -> None:
    def run(overrides: tuple[str, ...], stop_after: int | None) -> Trained:
        described = spec("lenet-5", ADAM, *overrides)
        arguments = (described, str(tmp_path / "resumed"), stop_after)
        found: Trained = in_workers(described.resources.workers, train_worker, *arguments)[0]
        return found

    truth = reference(spec("lenet-5", ADAM))
    assert run(first, STEPS // 2).result.position.step == STEPS // 2
    rest = run(second, None)
    assert set(rest.losses) == set(range(STEPS // 2 + 1, STEPS + 1))
    for step, loss in rest.losses.items():
        assert loss == pytest.approx(truth.losses[step], rel=1e-4), f"step {step}"
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, rest.weights[name], atol=1e-4), name


def test_the_state_is_in_the_form_of_single(tmp_path: Path) -> None:
    truth = train_and_state(World(), spec("lenet-5", ADAM, "stop.steps=2"), str(tmp_path / "one"))
    described = spec("lenet-5", ADAM, "stop.steps=2", *cut(2, 2))
    for found in in_workers(2, train_and_state, described, str(tmp_path / "two")):
        assert found == truth


def train_and_state(world: World, job: TrainJob, folder: str) -> Any:
    """What a strategy's state is made of after a run: types, names and shapes."""
    strategy = run_watched(world, job, folder, STRATEGIES.load(job.strategy.name))
    state = strategy.state_out()

    def form(value: Any) -> Any:
        if isinstance(value, dict):
            return {k: form(v) for k, v in value.items() if k not in ("fused", "foreach")}
        if isinstance(value, list):
            return [form(item) for item in value]
        return (type(value), value.shape, value.dtype) if isinstance(value, torch.Tensor) else value

    return form(state.model), form(state.optimizers)


def run_watched(world: World, job: TrainJob, folder: str, cls: type[Any]) -> Any:
    """Trains under a strategy class; returns its instance."""
    made: list[Any] = []

    def load(name: str) -> Callable[[], Any]:
        return lambda: made.append(cls()) or made[-1]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", load)
        train(job, Path(folder), world=world)
    return made[0]


def test_resume_is_exact(tmp_path: Path) -> None:
    """Bit for bit, dropout on: whole layers and cut ones draw the numbers they would have drawn."""
    described = spec("lenet-5", "model.dropout=0.5", *cut(2, 4))
    whole = in_workers(4, train_worker, described, str(tmp_path / "whole"))[0]
    in_workers(4, train_worker, described, str(tmp_path / "parts"), STEPS // 2)
    rest = in_workers(4, train_worker, described, str(tmp_path / "parts"))[0]
    assert rest.losses == {step: whole.losses[step] for step in range(STEPS // 2 + 1, STEPS + 1)}
    assert_equal(whole.weights, rest.weights)


def test_whole_layers_stay_equal(tmp_path: Path) -> None:
    """On all workers, dropout on, from a checkpoint whose workers each drew their own numbers."""
    overrides = ("model.dropout=0.5", "regularize=[{name: mc-dropout, samples: 2}]")
    before = spec("lenet-5", *overrides, "strategy.name=ddp", "resources.workers=4")
    in_workers(4, train_worker, before, str(tmp_path), STEPS // 2)
    hashes = in_workers(4, train_and_hash, spec("lenet-5", *overrides, *cut(2, 4)), str(tmp_path))
    assert len(set(hashes)) == 1


def train_and_hash(world: World, job: TrainJob, folder: str) -> str:
    strategy = run_watched(world, job, folder, TensorStrategy)
    state = strategy._model.state_dict()
    whole = [v for v in state.values() if not isinstance(v, DTensor)]
    assert 0 < len(whole) < len(state)
    return hashlib.sha256(b"".join(v.numpy().tobytes() for v in whole)).hexdigest()


def test_a_nan_in_one_part_stops_every_worker(tmp_path: Path) -> None:
    found = in_workers(4, poisoned, spec("lenet-5", "gradient.clip_norm=null", *cut(2, 4)), str(tmp_path))
    assert all("step 3: the gradient of dense1.0.weight is not finite" in text for text in found)


def poisoned(world: World, job: TrainJob, folder: str) -> str:
    """The error of a run in which one worker's part of one gradient goes bad in step 3."""
    held: dict[str, torch.Tensor] = {}

    class Poisoned(TensorStrategy):
        def train_step(self, batch: Any, step: int, hyper: Any) -> Any:
            self.bad = step == 3
            if self.bad:
                mine = {k: local(v) for k, v in self._model.state_dict().items()}
                held.update({name: value.clone() for name, value in mine.items()})
            try:
                return super().train_step(batch, step, hyper)
            except NonFiniteError:
                for name, value in self._model.state_dict().items():
                    assert torch.equal(local(value), held[name]), name
                raise

        def reduce(self, trained: Any) -> None:
            if self.bad and world.rank == 1:
                local(dict(trained.named)["dense1.0.weight"].grad)[0, 0] = float("nan")
            super().reduce(trained)

    with pytest.raises(NonFiniteError) as caught:
        run_watched(world, job, folder, Poisoned)
    assert held
    return str(caught.value)


@pytest.mark.parametrize(
    ("workload", "precision"), [("lenet-5", "fp32"), ("dlrm", "fp32"), ("grouped", "bf16")]
)
def test_bytes_are_what_collectives_send(workload: str, precision: str, tmp_path: Path) -> None:
    overrides = ("regularize=[]", "stop.steps=2", f"precision={precision}")
    described = workload_job(workload)(*overrides, *cut(2, 4))
    for counted, told in in_workers(4, count_bytes, described, str(tmp_path)):
        assert told == pytest.approx(counted)
        assert told > 0


def count_bytes(world: World, job: TrainJob, folder: str) -> tuple[float, float]:
    """Bytes of the last step: by every collective that torch ran, and as the strategy tells them."""
    found: list[tuple[float, float]] = []

    class Counting(TorchDispatchMode):
        sent = 0.0

        def __torch_dispatch__(self, func, types, args=(), kwargs=None):
            if DTensor in types:
                return NotImplemented  # it comes again with what the workers hold
            name, size = str(func), 2  # groups of two, in both dims of the mesh
            if "all_reduce" in name or "allreduce_" in name:
                moved = args[0][0] if isinstance(args[0], list) else args[0]
                self.sent += 2 * (size - 1) / size * moved.numel() * moved.element_size()
            elif "all_gather" in name:
                self.sent += (size - 1) * args[0].numel() * args[0].element_size()
            else:
                assert "c10d" not in name or "wait_tensor" in name or "wrap_tensor" in name, name
            return func(*args, **(kwargs or {}))

    class Counted(TensorStrategy):
        def train_step(self, *arguments: Any) -> Any:
            with Counting() as mode:
                result = super().train_step(*arguments)
            found.append((mode.sent, self._traffic.sent))
            return result

    run_watched(world, job, folder, Counted)
    return found[-1]


@pytest.mark.parametrize("name", ["lenet-5", "softmax-regression", "dlrm"])
def test_cards_know_what_is_cut(name: str, tmp_path: Path) -> None:
    source = "{source: synthetic-ctr, rows: 100}" if name == "dlrm" else "{source: digits}"
    models = {
        "lenet-5": ({}, {"width": 0.5}),
        "softmax-regression": ({},),
        "dlrm": ({}, {"bottom": [], "top": [6]}, {"bottom": [8, 4, 2], "top": [4, 6, 8, 10]}),
    }
    card = WORKLOADS.load(name)
    assert card.tensor_plan is not None
    shape = data.load(spec(name, f"data={source}").data, tmp_path).shape
    for options in models[name]:
        workload = load_workload(name, options, shape)
        layers = tensor._layers(workload.build(), card.tensor_plan(workload.options))
        for layer, (module, made) in layers.items():
            assert made.units in (None, tensor._units(layer, module, made)), layer


def test_uneven_cuts_are_refused(tmp_path: Path) -> None:
    assert uneven({"a": Cut("column", 12), "b": Cut("row", 8), "c": Cut("gather")}, 4) == ""
    said = uneven({"a": Cut("column", 12), "b": Cut("row", 8), "c": Cut("gather")}, 3)
    assert (
        said == "3 workers cannot share the 8 inputs of b equally: use a size that divides 4, such as 2 or 4"
    )
    card = WORKLOADS.load("lenet-5")
    assert "120 outputs of dense1.0" in card.uneven_cuts(card.options(), 7)
    with pytest.raises(
        UsageError, match=r"strategy.size: 7 workers cannot share the 120 outputs of dense1.0"
    ):
        train(spec("lenet-5", *cut(7, 7), "batch_size=49"), tmp_path, world=World(size=7))
    with pytest.raises(UsageError, match=r"3 workers cannot share the 10 outputs of 1 equally"):
        train(spec("softmax-regression", *cut(3, 3)), tmp_path, world=World(size=3))


@pytest.mark.parametrize(
    ("plan", "said"),
    [
        ({}, "Grouped has no plan: give the Workload class a tensor_plan"),
        ({"dense": Cut("row")}, "has no layer 'dense'. Known: 0, 1, 2"),
        ({"1": Cut("column")}, "1 is a Tanh, which 'column' cannot cut"),
        ({"0": Cut("groups")}, "2 workers cannot share the 1 groups of 0"),
    ],
)
def test_plans_that_fit_no_model_are_refused(
    plan: dict[str, Cut], said: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(Grouped, "tensor_plan", plan)
    with pytest.raises(UsageError) as caught:
        train(grouped(*cut(2, 2)), tmp_path, world=World(size=2))
    assert said in str(caught.value)
