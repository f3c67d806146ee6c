"""Fully sharded workers compute what one computes, and share its checkpoints."""

from __future__ import annotations

import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Trained, assert_equal, assert_same_figures, in_workers, reference, train, train_worker
from test_ddp_equals_single import JOBS
from test_ddp_equals_single import spec as catalogue_spec
from torch import nn
from torch.distributed.fsdp import FSDPModule, MixedPrecisionPolicy
from torch.distributed.tensor import DTensor

from dlsys.errors import NonFiniteError, UsageError
from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.train.checkpoint import CheckpointStore
from dlsys.train.strategies.fsdp import FSDPStrategy
from dlsys.train.trace import Trace, compare
from dlsys.train.world import World
from dlsys.zoo.tasks.classify import Classify

pytestmark = pytest.mark.slow

OWN = "test_fsdp_equals_single:OddClassifier"


class OddModel(nn.Module):
    """What FSDP might stumble over: few rows, one element, odd sizes, parameters of the root, a
    shared and a frozen one, a list of layers, a block whose output is a view."""

    def __init__(self) -> None:
        super().__init__()
        self.encode = nn.Sequential(nn.Flatten(), nn.Linear(64, 7), nn.Unflatten(1, (1, 7)), nn.Flatten())
        self.layers = nn.ModuleList(nn.Linear(7, 7) for _ in range(2))
        self.shift = nn.Parameter(torch.randn(3, 7))
        self.scale = nn.Parameter(torch.ones(1))
        self.frozen = nn.Parameter(torch.randn(7), requires_grad=False)
        self.first, self.second = nn.Linear(7, 7), nn.Linear(7, 7)
        self.second.weight = self.first.weight
        self.unused = nn.Linear(7, 5)
        self.output = nn.Linear(7, 10)


class OddClassifier(Classify):
    """Never calls its model, but uses parts of it."""

    def build(self) -> nn.Module:
        return OddModel()

    def forward(self, model: Any, batch: Any, carry: Any) -> tuple[torch.Tensor, Any]:
        x = model.encode(batch["image"])
        x += model.shift.sum(0) * model.scale
        for layer in model.layers:
            x = torch.tanh(layer(x))
        return model.output(model.second(model.first(x) + model.frozen)), carry


class ScalarClassifier(OddClassifier):
    def build(self) -> nn.Module:
        model = OddModel()
        model.scale = nn.Parameter(torch.tensor(1.0))
        return model


def spec(workload: str, *overrides: str) -> TrainJob:
    if workload in JOBS:
        return catalogue_spec(workload, *overrides)
    own = (f"workload={workload}", "optimizer={name: adam, lr: 0.01}")
    return catalogue_spec("softmax-regression", *own, *overrides)


def sharded(
    size: int, folder: Path, workload: str, *overrides: str, stop_after: int | None = None
) -> Trained:
    job = spec(workload, *overrides, "strategy.name=fsdp", f"resources.workers={size}")
    return in_workers(size, train_silently, job, str(folder), stop_after)[0]


def train_silently(world: World, job: TrainJob, folder: str, stop_after: int | None) -> Trained:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return train_worker(world, job, folder, stop_after)


def assert_agree(truth: Trained, other: Trained) -> None:
    found = compare(Trace.of(truth.points, truth.weights), Trace.of(other.points, other.weights))
    assert found.agrees, found.problems
    assert_same_figures(truth, other)


@pytest.mark.parametrize("workload", [*JOBS, OWN])
def test_two_workers_equal_one(workload: str, tmp_path: Path) -> None:
    assert_agree(reference(spec(workload)), sharded(2, tmp_path / "two", workload))


PARTS = ("gradient={accumulate: 2, clip_norm: 0.5}",)


@pytest.mark.parametrize(
    ("workload", "options"),
    [
        ("gan", "strategy.reshard=false"),
        (OWN, "strategy.replicas=2"),
        (OWN, "activation_checkpointing=true"),
    ],
)
def test_options_change_nothing(workload: str, options: str, tmp_path: Path) -> None:
    """With the gradient clipped and accumulated, and an evaluation between steps."""
    overrides = (*PARTS, "evaluate='4 steps'", "stop.steps=6")
    truth = reference(spec(workload, *overrides))
    assert_agree(truth, sharded(4, tmp_path / "four", workload, *overrides, options))


def test_a_last_batch_smaller_than_the_workers(tmp_path: Path) -> None:
    """479 × 3 = 1,437 rows: the last batch of an epoch has 1 row for 4 workers."""
    overrides = ("batch_size=1436", "stop={steps: 4}")
    truth = reference(spec("lenet-5", *overrides))
    assert_agree(truth, sharded(4, tmp_path / "four", "lenet-5", *overrides))


@pytest.mark.parametrize(
    "optimizer", ["adadelta", "adagrad", "adamax", "adamw", "momentum", "nadam", "rmsprop", "yogi"]
)
def test_optimizers_update_shards(optimizer: str, tmp_path: Path) -> None:
    overrides = (f"optimizer={{name: {optimizer}, lr: 0.01}}", "stop.steps=5")
    truth = reference(spec("softmax-regression", *overrides))
    assert_agree(truth, sharded(2, tmp_path / "two", "softmax-regression", *overrides))


@pytest.mark.parametrize(
    "regularizers",
    [
        "[{name: l1, strength: 0.01}, {name: weight-decay, strength: 0.1}]",
        "[{name: elastic-net, strength: 0.1}, {name: max-norm, limit: 0.5}]",
    ],
)
def test_regularizers_see_whole_weights(regularizers: str, tmp_path: Path) -> None:
    overrides = (f"regularize={regularizers}", "gradient={clip_value: 0.01}", "stop.steps=5")
    truth = reference(spec("lenet-5", *overrides))
    assert_agree(truth, sharded(2, tmp_path / "two", "lenet-5", *overrides))


def test_checkpointing_repeats_dropout_and_keeps_running_statistics(tmp_path: Path) -> None:
    for workload, override in (("lenet-5", "model.dropout=0.5"), ("resnet", "model.norm=batch")):
        plain = sharded(2, tmp_path / f"{workload}-plain", workload, override)
        again = sharded(
            2, tmp_path / f"{workload}-again", workload, override, "activation_checkpointing=true"
        )
        assert_equal(plain.weights, again.weights)


@pytest.mark.parametrize("workload", ["lenet-5", "gan", OWN])
def test_checkpoints_open_under_single_and_back(workload: str, tmp_path: Path) -> None:
    whole = reference(spec(workload))
    sharded(2, tmp_path / "there", workload, stop_after=6)
    train(spec(workload), tmp_path / "back", stop_after=6)
    assert_same_form(tmp_path / "back", tmp_path / "there")
    for rest in (train(spec(workload), tmp_path / "there"), sharded(3, tmp_path / "back", workload)):
        assert min(rest.losses) == 7
        for step, loss in rest.losses.items():
            assert loss == pytest.approx(whole.losses[step], rel=1e-4), step
        for name, weight in whole.weights.items():
            assert torch.allclose(weight, rest.weights[name], atol=1e-4), name


def assert_same_form(one: Path, other: Path) -> None:
    """Checkpoints hold plain, whole tensors under the same names, all of them close."""
    first, second = (CheckpointStore(folder / "checkpoints").latest() for folder in (one, other))
    assert first is not None
    assert second is not None
    assert first.model.keys() == second.model.keys()
    assert first.optimizers.keys() == second.optimizers.keys()
    for phase, saved in first.optimizers.items():
        found = second.optimizers[phase]
        assert [group["params"] for group in found["param_groups"]] == [
            group["params"] for group in saved["param_groups"]
        ]
        assert found["state"].keys() == saved["state"].keys()
        for name, values in saved["state"].items():
            assert found["state"][name].keys() == values.keys()
            for key, value in values.items():
                assert type(found["state"][name][key]) is type(value)
                if isinstance(value, torch.Tensor):
                    assert torch.allclose(found["state"][name][key], value, atol=1e-4), (name, key)


@pytest.mark.parametrize(("workload", "override"), [("gan", ""), ("resnet", "model.norm=batch")])
def test_resumes_bit_for_bit(workload: str, override: str, tmp_path: Path) -> None:
    """Running statistics among it, which every worker has its own of."""
    overrides = ("evaluate='4 steps'", *([override] if override else []))
    whole = sharded(2, tmp_path / "whole", workload, *overrides)
    sharded(2, tmp_path / "part", workload, *overrides, stop_after=6)
    rest = sharded(2, tmp_path / "part", workload, *overrides)
    assert_equal(whole.weights, rest.weights)
    assert {s: v for s, v in whole.losses.items() if s > 6} == rest.losses
    assert whole.result.metrics == {**rest.result.metrics, **_times(whole)}


def _times(run: Trained) -> dict[str, float]:
    return {n: v for n, v in run.result.metrics.items() if not n.startswith(("train/", "valid/", "test/"))}


def test_a_nan_stops_every_worker_and_changes_nothing() -> None:
    job = spec("lenet-5", "strategy.name=fsdp", "resources.workers=2")
    for error, unchanged in in_workers(2, poison, job):
        assert "step 3" in error
        assert "conv1.0.weight" in error
        assert unchanged


def poison(world: World, job: TrainJob) -> tuple[str, bool]:
    """Trains until one worker's shard of a gradient is NaN."""

    class Poisoned(FSDPStrategy):
        before: dict[str, torch.Tensor]

        def update(self, trained: Any, step: int, hyper: Any, sums: Any) -> torch.Tensor:
            if step == 3:
                type(self).before = {n: p.to_local().clone() for n, p in trained.named}
                type(self).after = {n: p.to_local() for n, p in trained.named}
                if world.rank == 1:
                    trained.parameters[0].grad.to_local().fill_(torch.nan)
            return super().update(trained, step, hyper, sums)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Poisoned)
        with pytest.raises(NonFiniteError) as found:
            train(job, Path(folder), world=world)
    return str(found.value), all(torch.equal(Poisoned.before[n], Poisoned.after[n]) for n in Poisoned.before)


@pytest.mark.parametrize(
    ("workers", "options", "passes"),
    [
        (2, (), 3),
        (2, ("strategy.reshard=false",), 2),
        (4, (), 3),
        # With replicas, each of 2 shards is averaged with the other replica's: 2·(1/2)·S/2 more.
        (4, ("strategy.replicas=2",), 4),
    ],
)
def test_bytes_sent(workers: int, options: tuple[str, ...], passes: int, tmp_path: Path) -> None:
    overrides = ("model.width=4", "stop.steps=3", "evaluate='2 steps'", *options)
    run = sharded(workers, tmp_path, "lenet-5", *overrides)
    shards = 2 if "strategy.replicas=2" in options else workers
    weights = sum(weight.nbytes for weight in run.weights.values())
    expected = passes * (shards - 1) / shards * weights
    for sent in run.points["perf/sent_bytes_per_step"].values():
        assert sent == pytest.approx(expected, rel=0.01)  # padding


def test_bf16_is_close_to_single(tmp_path: Path) -> None:
    truth = reference(spec("resnet", "precision=bf16"))
    several = sharded(2, tmp_path / "two", "resnet", "precision=bf16")
    for step, loss in truth.losses.items():
        assert several.losses[step] == pytest.approx(loss, rel=0.02), step


@pytest.mark.parametrize(("workload", "override"), [("gan", "seed=0"), ("resnet", "model.norm=batch")])
def test_bf16_parameters_keep_an_fp32_master(workload: str, override: str, tmp_path: Path) -> None:
    """What happens on GPUs: blocks are gathered in bf16, gradients averaged in fp32."""
    overrides = ("precision=bf16", override)
    truth = sharded(2, tmp_path / "autocast", workload, *overrides)
    job = spec(workload, *overrides, "strategy.name=fsdp", "resources.workers=2")
    run, kinds = in_workers(2, train_in_bf16, job, str(tmp_path / "bf16"))[0]
    assert kinds == {torch.float32}
    sent = "perf/sent_bytes_per_step"
    # Of three passes or more, all but the gradients' take half.
    assert run.points[sent][1] < 0.7 * truth.points[sent][1]
    for step, loss in truth.losses.items():
        assert run.losses[step] == pytest.approx(loss, rel=0.02), step


def train_in_bf16(world: World, job: TrainJob, folder: str) -> tuple[Trained, set[torch.dtype]]:
    kinds: set[torch.dtype] = set()

    class OnGPU(FSDPStrategy):
        def precision(self) -> MixedPrecisionPolicy:
            return MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)

        def update(self, trained: Any, *arguments: Any) -> torch.Tensor:
            for parameter in trained.parameters:
                kinds.update((parameter.dtype, parameter.grad.dtype))
            return super().update(trained, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: OnGPU)
        run = train(job, Path(folder), world=world)
    return run, kinds


def test_cuts_what_the_card_names(tmp_path: Path) -> None:
    job = spec(OWN, "strategy.name=fsdp", "resources.workers=2")
    names = {"encode", "layers.0", "layers.1", "unused", "output"}  # `first` and `second` share
    for found, cut in in_workers(2, cut_modules, job, str(tmp_path / "own")):
        assert found == names
        assert cut
    job = spec("char-rnn", "strategy.name=fsdp", "resources.workers=2", "model.layers=2")
    for found, cut in in_workers(2, cut_modules, job, str(tmp_path)):
        assert found == {"embedding", "recurrent.0", "recurrent.1", "output"}
        assert cut


def cut_modules(world: World, job: TrainJob, folder: str) -> tuple[set[str], bool]:
    """The names of the blocks, and whether every parameter is cut before the first step."""
    found: list[tuple[set[str], bool]] = []

    class Watched(FSDPStrategy):
        def setup(self, parts: Any) -> None:
            super().setup(parts)
            modules = self._model.named_modules()
            names = {name for name, module in modules if isinstance(module, FSDPModule)}
            found.append((names, all(isinstance(p, DTensor) for p in self._model.parameters())))

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Watched)
        train(job, Path(folder), world=world)
    return found[0]


def test_refuses_a_parameter_without_dims() -> None:
    scalar = OWN.replace("OddClassifier", "ScalarClassifier")
    job = spec(scalar, "strategy.name=fsdp", "resources.workers=2")
    for error in in_workers(2, refusal, job):
        assert "scale" in error
        assert "(1,)" in error


def refusal(world: World, job: TrainJob) -> str:
    with tempfile.TemporaryDirectory() as folder, pytest.raises(UsageError) as found:
        train(job, Path(folder), world=world)
    return str(found.value)
