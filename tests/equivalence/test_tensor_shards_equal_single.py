"""`tensor` with `data: shard`: a mesh of 2 × 2, cut along both axes, computes what one worker computes."""

from __future__ import annotations

import dataclasses
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from harness import Trained, assert_equal, in_workers, reference, train, train_worker, with_workers
from test_ddp_equals_single import spec
from test_fsdp_equals_single import OddClassifier, ScalarClassifier, assert_agree
from test_tensor_equals_single import ADAM, Grouped, run_watched, train_and_state, workload_job
from torch import nn
from torch.distributed.fsdp import MixedPrecisionPolicy
from torch.distributed.tensor import DTensor
from torch.utils._python_dispatch import TorchDispatchMode

from dlsys.data import load
from dlsys.errors import NonFiniteError, UsageError
from dlsys.spec import TrainJob
from dlsys.spec.catalogue import WORKLOADS
from dlsys.spec.train.strategy_rules import suits_workload
from dlsys.train.collectives.mean import local
from dlsys.train.strategies import tensor
from dlsys.train.strategies.tensor import TensorStrategy
from dlsys.train.world import World
from dlsys.zoo.load import load_workload
from dlsys.zoo.workload import Cut

pytestmark = pytest.mark.slow

BOTH = ("strategy={name: tensor, size: 2, data: shard}", "resources.workers=4")
PARTS = ("gradient={accumulate: 2, clip_norm: 0.2}", "evaluate='8 steps'")


class OddTensor(OddClassifier):
    """Tied, frozen and unused parameters, and more parameters than workers, around one cut layer."""

    tensor_plan = {"output": Cut("gather")}  # noqa: RUF012


class Normed(Grouped):
    """With a batch norm, whose statistics every group of workers has its own of."""

    tensor_plan = {"2": Cut("groups"), "6": Cut("column"), "8": Cut("row")}  # noqa: RUF012

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, 8, 3, padding=1),
            nn.BatchNorm2d(8, momentum=0.9),
            nn.Conv2d(8, 16, 3, padding=1, groups=4),
            nn.AdaptiveMaxPool2d(2),
            nn.Flatten(),
            nn.Identity(),
            nn.Linear(64, 24),
            nn.Tanh(),
            nn.Linear(24, 10),
        )


class ScalarTensor(ScalarClassifier):
    tensor_plan = {"output": Cut("gather")}  # noqa: RUF012


class TiedTensor(OddClassifier):
    tensor_plan = {"second": Cut("gather")}  # noqa: RUF012


def make(workload: str, *overrides: str) -> TrainJob:
    if workload in ("OddTensor", "Normed", "ScalarTensor", "TiedTensor"):
        return spec("softmax-regression", f"workload={__name__}:{workload}", ADAM, *overrides)
    return workload_job(workload)(*overrides)


def both(workload: str, folder: Path, *overrides: str, stop_after: int | None = None) -> Trained:
    found: Trained = in_workers(
        4, train_silently, make(workload, *overrides, *BOTH), str(folder / "both"), stop_after
    )[0]
    return found


def train_silently(world: World, job: TrainJob, folder: str, stop_after: int | None) -> Trained:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        return train_worker(world, job, folder, stop_after)


@pytest.mark.parametrize(
    ("workload", "overrides"),
    [
        # Its 5 rows for each of two workers are then cut into 3 and 2.
        ("softmax-regression", ("stop.steps=20",)),
        ("lenet-5", ("stop.steps=20",)),
        ("dlrm", ("stop.steps=6",)),
        ("lenet-5", (*PARTS, ADAM, "stop.steps=20")),
        ("dlrm", (*PARTS, "optimizer={name: momentum, lr: 0.05}", "stop.steps=6")),
        ("grouped", PARTS),
        ("OddTensor", PARTS),
    ],
)
def test_four_workers_equal_one(workload: str, overrides: tuple[str, ...], tmp_path: Path) -> None:
    assert_agree(reference(make(workload, *overrides)), both(workload, tmp_path, *overrides))


def test_in_double_precision_they_are_equal_to_the_last_digits(tmp_path: Path) -> None:
    """A gradient that was left out of the norm, or averaged twice, could not hide in rounding."""
    overrides = (*PARTS, ADAM, "precision=fp64", "stop.steps=8")
    truth, found = reference(make("lenet-5", *overrides)), both("lenet-5", tmp_path, *overrides)
    for name in ("train/loss", "train/grad_norm"):
        assert found.points[name] == pytest.approx(truth.points[name], rel=1e-12)
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, found.weights[name], atol=1e-12), name


def test_a_last_batch_smaller_than_the_workers(tmp_path: Path) -> None:
    """1,437 rows: the last batch of an epoch has 1 row for 2 groups."""
    overrides = ("batch_size=1436", "stop={steps: 4}")
    truth = reference(make("lenet-5", *overrides))
    assert_agree(truth, both("lenet-5", tmp_path, *overrides))


@pytest.mark.parametrize(
    "overrides",
    [
        ("gradient.clip_norm=0.2", "regularize=[{name: max-norm, limit: 0.5}]"),
        ("gradient={clip_value: 0.01}", "regularize=[{name: elastic-net, strength: 0.1}]"),
        ("regularize=[{name: l1, strength: 0.001}, {name: weight-decay, strength: 0.5}]",),
    ],
    ids=["clip-norm and max-norm", "clip-value and elastic-net", "l1 and weight-decay"],
)
def test_regularizers_see_whole_layers(overrides: tuple[str, ...], tmp_path: Path) -> None:
    truth = reference(make("lenet-5", *overrides))
    assert_agree(truth, both("lenet-5", tmp_path, *overrides))


@pytest.mark.parametrize("name", ["adadelta", "adamax", "adamw", "nadam", "rmsprop", "yogi"])
def test_optimizers_update_parts_of_parts(name: str, tmp_path: Path) -> None:
    overrides = (f"optimizer={{name: {name}, lr: 0.001}}", "stop.steps=4")
    assert_agree(reference(make("lenet-5", *overrides)), both("lenet-5", tmp_path, *overrides))


PLACES = {
    "single": (),
    "both": BOTH,
    "fsdp": ("strategy={name: fsdp}", "resources.workers=2"),
    "ddp": ("strategy={name: ddp}", "resources.workers=2"),
    "tensor": ("strategy={name: tensor}", "resources.workers=2"),
}


@pytest.mark.parametrize(
    "places",
    [("single", "both", "single"), ("both", "fsdp", "both"), ("ddp", "both", "tensor")],
    ids=" to ".join,
)
def test_a_checkpoint_opens_elsewhere(places: tuple[str, ...], tmp_path: Path) -> None:
    truth = reference(spec("lenet-5", ADAM))
    losses = {}
    for place, stop in zip(places, (4, 8, None), strict=True):
        described = spec("lenet-5", ADAM, *PLACES[place])
        part = with_workers(described, tmp_path / "parts", stop_after=stop)
        assert not losses.keys() & part.losses.keys()
        losses |= part.losses
    assert losses == pytest.approx(truth.losses, rel=1e-5)
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, part.weights[name], atol=1e-4), name


def test_the_state_is_in_the_form_of_single(tmp_path: Path) -> None:
    """On the first worker; the others need not hold it."""
    truth = train_and_state(World(), spec("lenet-5", ADAM, "stop.steps=2"), str(tmp_path / "one"))
    described = spec("lenet-5", ADAM, "stop.steps=2", *BOTH)
    first, *others = in_workers(4, train_and_state, described, str(tmp_path / "four"))
    assert first == truth
    assert others == [({}, {})] * 3


@pytest.mark.parametrize(("workload", "override"), [("lenet-5", "model.dropout=0.5"), ("Normed", "seed=1")])
def test_resume_is_exact(workload: str, override: str, tmp_path: Path) -> None:
    """Bit for bit: numbers drawn for dropout, and running statistics."""
    overrides = (override, "evaluate='4 steps'")
    whole = both(workload, tmp_path / "whole", *overrides)
    both(workload, tmp_path / "parts", *overrides, stop_after=6)
    rest = both(workload, tmp_path / "parts", *overrides)
    assert rest.losses == {step: loss for step, loss in whole.losses.items() if step > 6}
    assert_equal(whole.weights, rest.weights)
    assert rest.points["valid/loss"] == {s: v for s, v in whole.points["valid/loss"].items() if s > 6}


@pytest.mark.parametrize("data", ["replicate", "shard"])
def test_evaluation_is_with_the_statistics_that_are_saved(data: str, tmp_path: Path) -> None:
    """Each group has its own until then; what is saved are the first worker's."""
    several = make("Normed", *BOTH, f"strategy.data={data}", "stop={steps: 4}")
    found = in_workers(4, train_worker, several, str(tmp_path))[0]
    splits = load(several.data, tmp_path)
    workload = load_workload(several.workload, several.model, splits.shape)
    model = workload.build().eval()
    model.load_state_dict(found.weights)
    batch = splits.valid.batch(np.arange(len(splits.valid)))
    with torch.no_grad():
        loss = workload.objective(workload.forward(model, batch, None)[0], batch).value
    assert found.result.metrics["valid/loss"] == pytest.approx(float(loss), rel=1e-6)


def test_a_nan_in_one_part_stops_every_worker(tmp_path: Path) -> None:
    for error, unchanged in in_workers(4, poisoned, spec("lenet-5", *BOTH), str(tmp_path)):
        assert "step 3: the gradient of dense1.0.weight is not finite" in error
        assert unchanged


def poisoned(world: World, job: TrainJob, folder: str) -> tuple[str, bool]:
    """The error of a run in which one worker's part of one gradient goes bad in step 3."""
    before: dict[str, torch.Tensor] = {}
    after: dict[str, torch.Tensor] = {}

    class Poisoned(TensorStrategy):
        def update(self, trained: Any, step: int, hyper: Any, sums: Any) -> torch.Tensor:
            if step == 3:
                before.update({name: local(p).clone() for name, p in trained.named})
                after.update({name: local(p) for name, p in trained.named})
                if world.rank == 1:
                    local(dict(trained.named)["dense1.0.weight"].grad)[0, 0] = float("nan")
            return super().update(trained, step, hyper, sums)

    with pytest.raises(NonFiniteError) as caught:
        run_watched(world, job, folder, Poisoned)
    return str(caught.value), bool(before) and all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("workload", "more"), [("lenet-5", ()), ("dlrm", ("gradient.accumulate=2",)), ("grouped", ())]
)
def test_bytes_are_what_collectives_send(workload: str, more: tuple[str, ...], tmp_path: Path) -> None:
    described = make(workload, "regularize=[]", "stop.steps=2", *more, *BOTH)
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
            if "c10d" not in name:
                pass
            elif "all_reduce" in name or "allreduce_" in name:
                moved = args[0][0] if isinstance(args[0], list) else args[0]
                self.sent += 2 * (size - 1) / size * moved.nbytes
            elif "_allgather_base_" in name or "alltoall_base_" in name:
                gathers = "_allgather_base_" in name
                self.sent += (size - 1) * args[1].nbytes / (1 if gathers else size)
            elif "all_gather" in name:
                self.sent += (size - 1) * args[0].nbytes
            else:
                assert "wait_tensor" in name or "wrap_tensor" in name, name
            return func(*args, **(kwargs or {}))

    class Counted(TensorStrategy):
        def train_step(self, *arguments: Any) -> Any:
            self.communication()
            with Counting() as mode:
                result = super().train_step(*arguments)
            found.append((mode.sent, self.communication()["bytes"]))
            return result

    run_watched(world, job, folder, Counted)
    return found[-1]


def test_bf16_parameters_keep_an_fp32_master(tmp_path: Path) -> None:
    """What happens on GPUs: blocks are gathered in bf16, gradients averaged in fp32."""
    overrides = ("precision=bf16", "regularize=[]")
    truth = reference(make("lenet-5", *overrides))
    described = make("lenet-5", *overrides, *BOTH)
    plain = both("lenet-5", tmp_path, *overrides)
    run, kinds = in_workers(4, train_in_bf16, described, str(tmp_path / "bf16"))[0]
    assert kinds == {torch.float32}
    sent = "perf/sent_bytes_per_step"
    assert run.points[sent][1] < 0.8 * plain.points[sent][1]
    for step, loss in truth.losses.items():
        assert plain.losses[step] == pytest.approx(loss, rel=0.02), step
        assert run.losses[step] == pytest.approx(loss, rel=0.02), step


def train_in_bf16(world: World, job: TrainJob, folder: str) -> tuple[Trained, set[torch.dtype]]:
    kinds: set[torch.dtype] = set()
    policy = MixedPrecisionPolicy(torch.bfloat16, torch.float32, cast_forward_inputs=False)
    update = TensorStrategy.update

    def watched(self: Any, trained: Any, *arguments: Any) -> torch.Tensor:
        for parameter in trained.parameters:
            kinds.update((parameter.dtype, parameter.grad.dtype))
        return update(self, trained, *arguments)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(tensor, "gathered_as", lambda parts: policy)
        patch.setattr(TensorStrategy, "update", watched)
        return train(job, Path(folder), world=world), kinds


def test_a_card_without_fsdp_is_refused() -> None:
    described = spec("lenet-5", *BOTH)
    card = WORKLOADS.load("lenet-5")
    assert not list(suits_workload(described, card))
    without = dataclasses.replace(card, without=("fsdp",))
    ((path, text),) = suits_workload(described, without)
    assert path == ("strategy", "data")
    assert text == "shard works as fsdp does, under which lenet-5 does not run: leave data out"


@pytest.mark.parametrize(
    ("workload", "data", "said"),
    [
        ("ScalarTensor", "shard", "scale has none: give it the shape (1,), or leave data: shard out"),
        # Cut, `second` would no longer have the weight that it shares with `first`.
        ("TiedTensor", "replicate", "another layer shares second.weight"),
    ],
)
def test_what_cannot_be_cut_is_refused(workload: str, data: str, said: str, tmp_path: Path) -> None:
    described = make(workload, *BOTH, f"strategy.data={data}")
    for error in in_workers(4, refusal, described, str(tmp_path)):
        assert said in error


def refusal(world: World, job: TrainJob, folder: str) -> str:
    with pytest.raises(UsageError) as found:
        train(job, Path(folder), world=world)
    return str(found.value)
