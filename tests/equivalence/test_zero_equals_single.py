"""DeepSpeed's workers compute what one computes, at every stage, and share its checkpoints."""

from __future__ import annotations

import os
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import Trained, assert_equal, assert_same_figures, in_workers, reference, train, train_worker
from test_ddp_equals_single import JOBS
from test_ddp_equals_single import spec as catalogue_spec
from test_fsdp_equals_single import assert_same_form

from dlsys.errors import NonFiniteError, SpecError, UsageError
from dlsys.registry import STRATEGIES
from dlsys.spec import TrainJob
from dlsys.spec.train.strategy import approximates
from dlsys.train.strategies.zero import ZeroStrategy
from dlsys.train.trace import Trace, compare
from dlsys.train.world import World

pytestmark = pytest.mark.slow

# Tied, frozen, unused and uneven parameters, and a model that is never called.
OWN = "test_fsdp_equals_single:OddClassifier"
STAGES = (0, 1, 2, 3)
needs_compiler = pytest.mark.skipif(
    not (shutil.which("g++") and shutil.which("ninja")), reason="DeepSpeed compiles its Adam by g++ and ninja"
)


def spec(workload: str, *overrides: str) -> TrainJob:
    if workload in JOBS:
        return catalogue_spec(workload, *overrides)
    own = (f"workload={workload}", "optimizer={name: adam, lr: 0.01}")
    return catalogue_spec("softmax-regression", *own, *overrides)


def zero(stage: int, workers: int = 2) -> tuple[str, ...]:
    return f"strategy={{name: zero, stage: {stage}}}", f"resources.workers={workers}"


def cut(
    size: int, stage: int, folder: Path, workload: str, *overrides: str, stop_after: int | None = None
) -> Trained:
    job = spec(workload, *zero(stage, size), *overrides)
    return in_workers(size, train_silently, job, str(folder), stop_after)[0]


def train_silently(world: World, job: TrainJob, folder: str, stop_after: int | None) -> Trained:
    """Nothing is written and no warning raised, by Python or by C++."""
    kept = [os.dup(1), os.dup(2)]
    with tempfile.TemporaryFile() as heard, warnings.catch_warnings():
        warnings.simplefilter("error")
        warnings.simplefilter("ignore", DeprecationWarning)  # Python does not show them either
        for descriptor in (1, 2):
            os.dup2(heard.fileno(), descriptor)
        try:
            found = train_worker(world, job, folder, stop_after)
        finally:
            for descriptor, before in zip((1, 2), kept, strict=True):
                os.dup2(before, descriptor)
                os.close(before)
        heard.seek(0)
        assert heard.read() == b""
    return found


def assert_agree(truth: Trained, other: Trained) -> None:
    found = compare(Trace.of(truth.points, truth.weights), Trace.of(other.points, other.weights))
    assert found.agrees, found.problems
    for step, loss in truth.losses.items():
        assert other.losses[step] == pytest.approx(loss, rel=1e-5), step
    assert_same_figures(truth, other)


@pytest.mark.parametrize(
    ("workload", "stage"),
    [
        ("softmax-regression", 0),
        ("lenet-5", 1),
        ("resnet", 2),
        ("char-rnn", 2),
        ("dlrm", 3),
        (OWN, 3),
    ],
)
def test_two_workers_equal_one(workload: str, stage: int, tmp_path: Path) -> None:
    assert_agree(reference(spec(workload)), cut(2, stage, tmp_path / "two", workload))


@pytest.mark.parametrize("stage", STAGES)
def test_gradients_and_weights_are_treated_as_one_worker_does(stage: int, tmp_path: Path) -> None:
    """Micro-batches, both ways of clipping, a schedule, penalties and what follows an update."""
    overrides = (
        "gradient={accumulate: 2, clip_norm: 0.5, clip_value: 0.05}",
        "schedule={name: one-cycle, max_lr: 0.1}",
        "regularize=[{name: l1, strength: 0.0005}, {name: elastic-net, strength: 0.01}, "
        "{name: weight-decay, strength: 0.1}, {name: max-norm, limit: 0.5}]",
        "stop.steps=6",
    )
    truth = reference(spec("lenet-5", *overrides))
    assert_agree(truth, cut(2, stage, tmp_path / "two", "lenet-5", *overrides))


@pytest.mark.parametrize("stage", [2, 3])
def test_a_last_batch_smaller_than_the_workers(stage: int, tmp_path: Path) -> None:
    """479 × 3 = 1,437 rows: the last batch of an epoch has 1 row for 4 workers."""
    overrides = ("batch_size=1436", "stop={steps: 4}")
    truth = reference(spec("softmax-regression", *overrides))
    assert_agree(truth, cut(4, stage, tmp_path / "four", "softmax-regression", *overrides))


@pytest.mark.parametrize(
    ("optimizer", "stage"),
    [("rmsprop", 1), ("adadelta", 2), ("adamax", 3), ("nadam", 2), ("yogi", 3)],
)
def test_optimizers_and_their_state(optimizer: str, stage: int, tmp_path: Path) -> None:
    overrides = (f"optimizer={{name: {optimizer}, lr: 0.01}}",)
    truth = reference(spec("softmax-regression", *overrides))
    cut(2, stage, tmp_path / "two", "softmax-regression", *overrides, stop_after=4)
    there = train(spec("softmax-regression", *overrides), tmp_path / "two", stop_after=8)
    back = cut(3, stage, tmp_path / "two", "softmax-regression", *overrides)
    for part in (there, back):
        for step, loss in part.losses.items():
            assert loss == pytest.approx(truth.losses[step], rel=1e-5), step
    assert (min(there.losses), min(back.losses)) == (5, 9)


def test_stage_3_updates_in_sub_groups(tmp_path: Path) -> None:
    """Several flat tensors of the optimizer, whose state goes through a checkpoint."""
    many = ("strategy.deepspeed={zero_optimization: {sub_group_size: 1000}}",)
    truth = reference(spec("resnet"))
    first = cut(2, 3, tmp_path / "two", "resnet", *many, stop_after=6)
    rest = cut(3, 3, tmp_path / "two", "resnet", *many)
    # Rounding grows from step to step: on one kind of CPU it was 2e-5 at the last one.
    for step, loss in {**first.losses, **rest.losses}.items():
        assert loss == pytest.approx(truth.losses[step], rel=1e-4), step
    assert min(rest.losses) == 7


@pytest.mark.parametrize("stage", STAGES)
def test_one_worker_without_a_process_group(stage: int, tmp_path: Path) -> None:
    """It gets one for the time of its training."""
    job = spec("lenet-5", *zero(stage, 1))
    alone = train(job, tmp_path / "zero")
    assert not torch.distributed.is_initialized()
    assert_agree(reference(spec("lenet-5")), alone)
    assert set(alone.points["perf/sent_bytes_per_step"].values()) == {0.0}


@pytest.mark.parametrize(("workload", "stage"), [("dlrm", 1), ("lenet-5", 2), ("char-rnn", 3), (OWN, 3)])
def test_checkpoints_open_under_single_and_back(workload: str, stage: int, tmp_path: Path) -> None:
    whole = reference(spec(workload))
    cut(2, stage, tmp_path / "there", workload, stop_after=6)
    train(spec(workload), tmp_path / "back", stop_after=6)
    if workload != OWN:  # which has parameters without gradients: zeros here, None there
        assert_same_form(tmp_path / "back", tmp_path / "there")
    for rest in (train(spec(workload), tmp_path / "there"), cut(3, stage, tmp_path / "back", workload)):
        assert min(rest.losses) == 7
        for step, loss in rest.losses.items():
            assert loss == pytest.approx(whole.losses[step], rel=1e-4), step
        for name, weight in whole.weights.items():
            assert torch.allclose(weight, rest.weights[name], atol=1e-4), name


@pytest.mark.parametrize("stage", [1, 3])
def test_resumes_bit_for_bit(stage: int, tmp_path: Path) -> None:
    """Running statistics among it, which every worker has its own of."""
    overrides = ("model.norm=batch", "evaluate='4 steps'")
    whole = cut(2, stage, tmp_path / "whole", "resnet", *overrides)
    cut(2, stage, tmp_path / "part", "resnet", *overrides, stop_after=6)
    rest = cut(2, stage, tmp_path / "part", "resnet", *overrides)
    assert_equal(whole.weights, rest.weights)
    assert {step: loss for step, loss in whole.losses.items() if step > 6} == rest.losses
    assert whole.result.metrics["valid/loss"] == rest.result.metrics["valid/loss"]


@pytest.mark.parametrize("stage", STAGES)
def test_a_nan_stops_every_worker_and_changes_nothing(stage: int) -> None:
    for error, unchanged in in_workers(2, poison, spec("lenet-5", *zero(stage))):
        assert "step 3" in error
        assert unchanged


def poison(world: World, job: TrainJob) -> tuple[str, bool]:
    """Trains until one worker's loss is NaN."""
    kept: list[dict[str, torch.Tensor]] = []

    class Poisoned(ZeroStrategy):
        def train_step(self, batch: Any, step: int, hyper: Any) -> Any:
            self.bad = step == 3 and world.rank == 1
            kept.append({name: value.clone() for name, value in self.state_out().model.items()})
            try:
                return super().train_step(batch, step, hyper)
            except NonFiniteError:
                kept.append(self.state_out().model)
                raise

        def backward(self, module: Any, loss: torch.Tensor) -> None:
            super().backward(module, loss * torch.nan if self.bad else loss)

    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", lambda name: Poisoned)
        with pytest.raises(NonFiniteError) as found:
            train(job, Path(folder), world=world)
    *_, before, after = kept
    return str(found.value), all(torch.equal(before[name], after[name]) for name in before)


@pytest.mark.parametrize(
    ("stage", "workers", "passes"),
    # An all-reduce passes everything twice. Stages 1 to 3 also gather parameters once: small models
    # stay gathered in stage 3, which scatters gradients in one pass.
    [(0, 2, 2), (1, 2, 3), (2, 4, 3), (3, 4, 2)],
)
def test_bytes_sent(stage: int, workers: int, passes: int, tmp_path: Path) -> None:
    run = cut(workers, stage, tmp_path, "resnet", "stop.steps=3", "evaluate='2 steps'")
    weights = sum(weight.nbytes for weight in run.weights.values())
    expected = passes * (workers - 1) / workers * weights
    for step, sent in run.points["perf/sent_bytes_per_step"].items():
        if step > 1:  # before which nothing is gathered
            assert sent == pytest.approx(expected, rel=0.01)  # padding


@pytest.mark.parametrize("stage", [0, 2, 3])
def test_bf16_is_close_to_single(stage: int, tmp_path: Path) -> None:
    overrides = ("precision=bf16", "stop.steps=6")
    truth = reference(spec("resnet", *overrides))
    several = cut(2, stage, tmp_path / "two", "resnet", *overrides)
    for step, loss in truth.losses.items():
        assert several.losses[step] == pytest.approx(loss, rel=0.02), step
    assert {weight.dtype for weight in several.weights.values()} == {torch.float32}


@needs_compiler
@pytest.mark.slow  # the first use on a machine compiles for a minute
@pytest.mark.parametrize(("optimizer", "stage"), [("adam", 2), ("adamw", 3)])
def test_offload_equals_single(optimizer: str, stage: int, tmp_path: Path) -> None:
    overrides = (
        f"optimizer={{name: {optimizer}, lr: 0.005, weight_decay: 0.01}}",
        "gradient={accumulate: 2, clip_norm: 0.5}",
        "regularize=[{name: l2, strength: 0.1}]",
    )
    truth = reference(spec("lenet-5", *overrides))
    several = cut(2, stage, tmp_path / "two", "lenet-5", *overrides, "strategy.offload=true", stop_after=6)
    rest = cut(2, stage, tmp_path / "two", "lenet-5", *overrides, "strategy.offload=true")
    back = train(spec("lenet-5", *overrides), tmp_path / "two")
    for step, loss in truth.losses.items():
        assert {**several.losses, **rest.losses}[step] == pytest.approx(loss, rel=1e-4), step
        norm = {**several.points["train/grad_norm"], **rest.points["train/grad_norm"]}[step]
        assert norm == pytest.approx(truth.points["train/grad_norm"][step], rel=1e-3), step
    for name, weight in truth.weights.items():
        assert torch.allclose(weight, back.weights[name], atol=1e-4), name


@needs_compiler
@pytest.mark.slow
def test_one_worker_offloads(tmp_path: Path) -> None:
    truth = reference(spec("resnet"))
    alone = train(spec("resnet", *zero(2, 1), "strategy.offload=true"), tmp_path / "zero")
    for step, loss in truth.losses.items():
        assert alone.losses[step] == pytest.approx(loss, rel=1e-4), step


def test_offload_is_refused_without_a_compiler() -> None:
    adam = spec("resnet", *zero(2), "strategy.offload=true")
    for error, hint in in_workers(2, refusal, adam, "no-compiler"):
        assert "could not be compiled" in error
        assert "g++ and ninja" in hint


def refusal(world: World, job: TrainJob, compiler: str = "") -> tuple[str, str]:
    with tempfile.TemporaryDirectory() as folder, pytest.MonkeyPatch.context() as patch:
        if compiler:
            from deepspeed.ops.op_builder import CPUAdamBuilder

            def fail(builder: CPUAdamBuilder) -> None:
                raise RuntimeError(f"{compiler}: not found")

            patch.setattr(CPUAdamBuilder, "load", fail)
        with pytest.raises(UsageError) as found:
            train(job, Path(folder), world=world)
    return str(found.value), found.value.hint


def test_deepspeed_gets_its_own_settings_and_refuses_wrong_ones(tmp_path: Path) -> None:
    given = (
        "strategy.deepspeed={zero_optimization: {stage3_param_persistence_threshold: 0, "
        "stage3_max_live_parameters: 0, stage3_max_reuse_distance: 0}}"
    )
    kept = cut(2, 3, tmp_path / "kept", "resnet", "stop.steps=3")
    freed = cut(2, 3, tmp_path / "freed", "resnet", "stop.steps=3", given)
    sent = "perf/sent_bytes_per_step"
    assert kept.losses == pytest.approx(freed.losses)
    assert freed.points[sent][3] > kept.points[sent][3]
    wrong = "strategy.deepspeed={zero_optimization: {reduce_bucket_size: many}}"
    for error, _ in in_workers(2, refusal, spec("resnet", *zero(2), wrong)):
        assert "strategy.deepspeed: DeepSpeed refuses" in error
        assert "reduce_bucket_size" in error


@pytest.mark.parametrize(
    ("stage", "deepspeed", "reason"),
    [
        (0, "communication_data_type: BF16", "communication_data_type: bf16 rounds gradients"),
        (3, "communication_data_type: fp16", "communication_data_type: fp16 rounds gradients"),
        (3, "zero_optimization: {zero_quantized_weights: true}", "zero_quantized_weights rounds parameters"),
        (
            3,
            "zero_optimization: {zero_quantized_gradients: true}",
            "zero_quantized_gradients rounds gradients",
        ),
        (
            3,
            "zero_optimization: {zero_quantized_nontrainable_weights: true}",
            "zero_quantized_nontrainable_weights rounds frozen parameters",
        ),
        (2, "zero_optimization: {zero_quantized_gradients: true}", ""),  # which stage 2 passes over
        (3, "zero_optimization: {zero_quantized_gradients: false}", ""),
        (2, "communication_data_type: fp32, zero_optimization: {overlap_comm: true}", ""),
        (2, "", ""),
    ],
)
def test_what_rounds_is_named_as_an_approximation(stage: int, deepspeed: str, reason: str) -> None:
    strategy = spec("resnet", *zero(stage), f"strategy.deepspeed={{{deepspeed}}}").strategy
    assert strategy is not None
    found = approximates(strategy)
    assert found.endswith(reason)
    assert bool(found) == bool(reason)


def test_rounded_gradients_differ(tmp_path: Path) -> None:
    """Or they would be no approximation; of the others, DeepSpeed has no kernels for CPUs."""
    exact = cut(2, 2, tmp_path / "exact", "resnet", "stop.steps=3")
    kept = "strategy.deepspeed={zero_optimization: {zero_quantized_gradients: true}}"
    assert cut(2, 2, tmp_path / "kept", "resnet", "stop.steps=3", kept).losses == exact.losses
    rounds = "strategy.deepspeed={communication_data_type: bf16}"
    assert cut(2, 2, tmp_path / "bf16", "resnet", "stop.steps=3", rounds).losses != exact.losses


@pytest.mark.parametrize(
    ("overrides", "path", "text"),
    [
        (
            "strategy.deepspeed={optimizer: {type: Adam}}",
            "strategy.deepspeed",
            "optimizer: say it in optimizer",
        ),
        (
            "strategy.deepspeed={zero_optimization: {stage: 3}, train_batch_size: 8}",
            "strategy.deepspeed",
            "train_batch_size: say it in batch_size; zero_optimization.stage: say it in strategy.stage",
        ),
        (
            "strategy.deepspeed={zero_optimization: {round_robin_gradients: true}}",
            "strategy.deepspeed",
            "checkpoints would be wrong: leave it out",
        ),
        ("strategy.deepspeed={zero_optimization: 3}", "strategy.deepspeed", "must be a mapping, got 3"),
        ("strategy={name: zero, stage: 0, offload: true}", "strategy.offload", "needs stage 1, 2 or 3"),
    ],
)
def test_what_dlsys_decides_is_refused_at_check_time(overrides: str, path: str, text: str) -> None:
    with pytest.raises(SpecError) as found:
        spec("resnet", *zero(2), overrides)
    (problem,) = found.value.problems
    assert problem.path == path
    assert text in problem.text


def test_leaves_the_process_as_it_was() -> None:
    for before, after in in_workers(2, surroundings, spec("softmax-regression", *zero(3), "stop.steps=2")):
        assert before == after


def surroundings(world: World, job: TrainJob) -> tuple[Any, Any]:
    def now() -> tuple[Any, ...]:
        from deepspeed.comm import comm
        from deepspeed.utils import groups

        linear = torch.nn.functional.linear
        return dict(os.environ), linear.__module__, linear.__name__, comm.cdb, groups._WORLD_GROUP

    with tempfile.TemporaryDirectory() as folder:
        train(job, Path(folder), world=world)  # imports DeepSpeed
        before = now()
        train(job, Path(folder) / "again", world=world)
    return before, now()
