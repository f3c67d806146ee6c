"""`precision: fp16`: the loss scale, the steps that it skips, and what all workers know of them."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch
from harness import QUICK, Servers, assert_equal, in_workers, job, train, with_workers
from parameter_servers import serving
from test_resume import CHARS, GAN
from torch import Tensor, nn

from dlsys.errors import NonFiniteError
from dlsys.registry import STRATEGIES
from dlsys.spec.train.job import TrainJob
from dlsys.train import precision
from dlsys.train.precision import LossScaler
from dlsys.train.world import World

LENET = (
    "workload=lenet-5",
    "precision=fp16",
    "stop.steps=5",
    "optimizer={name: adam, lr: 0.002}",
    "gradient={clip_norm: 0.5}",
)
SCALE, SKIPPED = "train/gradient_scale", "train/skipped_steps"


def test_the_rule_is_torchs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(precision, "_INTERVAL", 3)
    ours, theirs = LossScaler(enabled=True), torch.amp.GradScaler("cpu", growth_interval=3)
    weight = nn.Parameter(torch.zeros(2))
    optimizer = torch.optim.SGD([weight], lr=0.1)
    for step, bad in enumerate([0, 0, 1, 0, 0, 0, 0, 1, 1, 0, 0, 0, 0, 0, 0, 0]):
        gradient = torch.tensor([float("inf") if bad else 1.0, 0.5])
        weight.grad = gradient.clone()
        theirs.scale(torch.zeros(()))
        theirs.unscale_(optimizer)
        theirs.step(optimizer)
        theirs.update()
        weight.grad = gradient * ours.scale
        ours.unscale([weight])
        if bad:
            assert ours.overflow()
        else:
            assert torch.equal(weight.grad, gradient)
        ours.update()
        assert ours.scale == theirs.get_scale(), step
    assert ours.skipped == 3


@pytest.mark.parametrize("text", [CHARS, GAN], ids=["carried-state", "two-phases"])
def test_stopped_and_resumed_equals_uninterrupted(
    text: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Also where the scale falls before the checkpoint, and rises behind it."""
    monkeypatch.setattr(precision, "_FIRST", 2.0**26)
    monkeypatch.setattr(precision, "_INTERVAL", 4)
    spec = job(text, "precision=fp16", "tracking.log_every=1", "stop={steps: 16}", "checkpoint={}")
    whole = train(spec, tmp_path / "whole")
    part = train(spec, tmp_path / "part", stop_after=9)
    assert part.result.position.step == 9
    rest = train(spec, tmp_path / "part")
    assert_equal(whole.weights, rest.weights)
    for name in (SCALE, SKIPPED, "train/loss", "train/loss/critic", "train/grad_norm"):
        both = {**part.points.get(name, {}), **rest.points.get(name, {})}
        assert both == whole.points.get(name, {}), name
    scales = whole.points[SCALE]
    assert 0 < part.points[SKIPPED][9] <= whole.points[SKIPPED][16]
    assert min(scales.values()) < 2.0**26
    assert any(scales[step + 1] > scales[step] for step in range(1, 16))


def test_a_skipped_step_changes_nothing_and_has_no_norm(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(precision, "_FIRST", 2.0**40)
    spec = job(QUICK, *LENET, "stop.steps=1", "regularize=[{name: weight-decay, strength: 0.1}]")
    run = train(spec, tmp_path)
    assert run.points[SKIPPED] == {1: 1.0}
    assert run.points[SCALE] == {1: 2.0**39}
    assert "train/grad_norm" not in run.points
    still = train(job(QUICK, *LENET, "stop.steps=1", "optimizer.lr=1.0e-30"), tmp_path / "still")
    monkeypatch.undo()
    for name, weight in run.weights.items():
        assert torch.equal(weight, still.weights[name]), name


def test_what_no_scale_mends_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(LossScaler, "scaled", lambda self, loss: loss * float("nan"))
    with pytest.raises(NonFiniteError, match=r"step 17: the gradient of .* is not finite"):
        train(job(QUICK, "precision=fp16", "stop.steps=20"), tmp_path)


def test_a_checkpoint_without_a_scale_resumes(tmp_path: Path) -> None:
    """Those of another precision have none, and those of fp16 open in another precision."""
    before = train(job(QUICK, "stop.steps=3"), tmp_path)
    (folder,) = (tmp_path / "checkpoints").glob("step-*3")
    assert json.loads((folder / "state.json").read_text()).keys() == {"position", "loop", "tied", "tree"}
    half = train(job(QUICK, "precision=fp16", "stop.steps=6"), tmp_path)
    assert half.points[SCALE] == dict.fromkeys((4, 5, 6), 2.0**16)
    rest = train(job(QUICK, "stop.steps=9"), tmp_path)
    assert sorted({**before.losses, **half.losses, **rest.losses}) == list(range(1, 10))


STRATEGY = {
    "ddp": "{name: ddp}",
    "ddp-hook": "{name: ddp, hook: fp16}",
    "ring": "{name: ring}",
    "ring-wire": "{name: ring, wire: fp16, error_feedback: false}",
    "ps": "{name: ps}",
    "fsdp": "{name: fsdp}",
    "tensor": "{name: tensor}",
    "pipeline": "{name: pipeline}",
    "moe": "{name: moe}",
}


def overflowing(world: World, spec: TrainJob, folder: str, servers: Servers | None = None) -> Any:
    """Losses, and what this worker knows of the scale, when the last worker's loss overflows in step 3."""
    made: list[Any] = []
    cls, scaled = STRATEGIES.load(spec.strategy.name), LossScaler.scaled
    step = 0

    def watched(name: str) -> Any:
        class Watched(cls):
            def train_step(self, batch: Any, number: int, hyper: Any) -> Any:
                nonlocal step
                step = number
                return super().train_step(batch, number, hyper)

        return lambda: made.append(Watched()) or made[-1]

    def one_bad(self: LossScaler, loss: Tensor) -> Tensor:
        return scaled(self, loss) * (float("inf") if step == 3 and world.rank == world.size - 1 else 1.0)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(STRATEGIES, "load", watched)
        patch.setattr(LossScaler, "scaled", one_bad)
        run = train(spec, Path(folder), world=world, servers=servers)
    return (
        run.losses if world.is_main else None,
        run.points.get("train/grad_norm"),
        made[0]._scaler.state_dict(),
    )


@pytest.mark.parametrize("name", STRATEGY)
def test_an_overflow_at_one_worker_is_skipped_by_all(name: str, tmp_path: Path) -> None:
    mixture = ("workload=mixture-of-experts", "data={source: piecewise, rows: 720}")
    overrides = (*LENET, *(mixture if name == "moe" else ()))
    losses, norms, state = overflowing(World(), job(QUICK, *overrides), str(tmp_path / "one"))
    assert state == {"scale": 2.0**15, "good": 2, "skipped": 1}
    exact = train(job(QUICK, *overrides, "precision=fp32"), tmp_path / "exact")
    assert norms[1] == pytest.approx(exact.points["train/grad_norm"][1], rel=1e-2), "clipped as unscaled"
    spec = job(QUICK, *overrides, f"strategy={STRATEGY[name]}", "resources.workers=2")
    with serving(spec) as servers:
        first, second = in_workers(2, overflowing, spec, str(tmp_path / "two"), servers)
    assert first[2] == second[2] == state
    assert first[0] == pytest.approx(losses, rel=5e-3)
    assert sorted(first[1]) == [1, 2, 4, 5]
    assert first[1] == pytest.approx(norms, rel=5e-2)


def test_two_workers_resume_exactly(tmp_path: Path) -> None:
    spec = job(QUICK, *LENET, "strategy.name=fsdp", "resources.workers=2")
    whole = with_workers(spec, tmp_path / "whole")
    with_workers(spec, tmp_path / "part", stop_after=3)
    rest = with_workers(spec, tmp_path / "part")
    assert_equal(whole.weights, rest.weights)
    assert rest.points[SCALE] == {step: whole.points[SCALE][step] for step in (4, 5)}
