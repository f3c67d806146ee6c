"""When the loop ends, measures, saves and logs."""

from __future__ import annotations

import itertools
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from harness import QUICK, job, train

from dlsys.data import load
from dlsys.data.augment import augment
from dlsys.data.rowwise import keys
from dlsys.errors import NonFiniteError, UsageError
from dlsys.spec import TrainJob
from dlsys.spec.train.regularizer import DataAugmentation
from dlsys.train import stop as stopping
from dlsys.zoo.load import load_workload

LENET = "data={source: digits}", "workload=lenet-5", "optimizer.lr=0.05", "optimizer.momentum=0.9"
STEPS_PER_EPOCH = 30  # 1,437 rows in batches of 48


def job_of(*overrides: str) -> TrainJob:
    return job(QUICK, *overrides)


def checkpoints(folder: Path) -> list[int]:
    return sorted(int(path.name[-10:]) for path in (folder / "checkpoints").glob("step-*"))


def test_ends_after_epochs(tmp_path: Path) -> None:
    done = train(job_of("stop={epochs: 2}"), tmp_path)
    assert (done.result.reason, done.result.position.step, done.result.position.epoch) == ("finished", 60, 2)


def test_ends_after_steps_in_the_middle_of_an_epoch(tmp_path: Path) -> None:
    done = train(job_of("stop={steps: 37}"), tmp_path)
    position = done.result.position
    assert (position.step, position.epoch, position.step_in_epoch) == (37, 1, 7)
    assert "valid/loss" in done.result.metrics, "the end of a run is always measured"
    assert checkpoints(tmp_path)[-1] == 37, "and always saved"


def test_ends_at_a_target(tmp_path: Path) -> None:
    done = train(job_of("stop={epochs: 50, target: {valid/accuracy: '> 0.9'}}"), tmp_path)
    assert done.result.reason == "target"
    assert done.result.metrics["valid/accuracy"] > 0.9
    before = [
        value for step, value in done.points["valid/accuracy"].items() if step < done.result.position.step
    ]
    assert all(value <= 0.9 for value in before), "at the first evaluation that meets it"


def test_ends_after_a_time(tmp_path: Path) -> None:
    done = train(job_of("stop={epochs: 10000, time: 0.2 s}"), tmp_path, stop_after=1_000_000)
    assert done.result.reason == "time"
    assert done.result.position.seconds >= 0.2
    assert checkpoints(tmp_path)[-1] == done.result.position.step


def test_measures_and_saves_at_their_own_intervals(tmp_path: Path) -> None:
    spec = job_of("stop={steps: 40}", "evaluate='7 steps'", "checkpoint={every: 10 steps, keep: 9}")
    done = train(spec, tmp_path)
    assert sorted(done.points["valid/loss"]) == [7, 14, 21, 28, 35, 40]
    assert checkpoints(tmp_path) == [10, 20, 30, 40]


def test_saves_by_the_clock(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The clock goes on by a second at each look; who has just saved looks anew."""
    clock = itertools.count()
    monkeypatch.setattr(stopping, "time", SimpleNamespace(monotonic=lambda: next(clock)))
    train(job_of("stop={steps: 14}", "checkpoint={every: 5 s, keep: 9}"), tmp_path, stop_after=1000)
    assert checkpoints(tmp_path) == [5, 10, 14]


def test_the_best_checkpoint_stays(tmp_path: Path) -> None:
    spec = job_of("stop={epochs: 12}", "checkpoint={keep: 1, best: valid/accuracy}")
    done = train(spec, tmp_path)
    accuracies = done.points["valid/accuracy"]
    best = max(accuracies, key=accuracies.__getitem__)
    assert best != 360, "of equal ones the first is the best, and the last epochs bring nothing"
    assert checkpoints(tmp_path) == [best, 360]
    assert (tmp_path / "checkpoints" / "best").read_text().endswith(str(best))


def test_the_test_set_is_measured_once_at_the_end(tmp_path: Path) -> None:
    done = train(job_of("stop={epochs: 3}"), tmp_path)
    assert list(done.points["test/accuracy"]) == [90]
    none = train(job_of("stop={epochs: 1}", "data={source: digits, test: 0}"), tmp_path / "none")
    assert "test/accuracy" not in none.points


def test_a_logged_loss_is_the_mean_since_the_last(tmp_path: Path) -> None:
    each = train(job_of("stop={steps: 12}"), tmp_path / "each").points["train/loss"]
    some = train(job_of("stop={steps: 12}", "tracking={log_every: 4}"), tmp_path / "some").points[
        "train/loss"
    ]
    for step, loss in some.items():
        assert loss == pytest.approx(sum(each[s] for s in range(step - 3, step + 1)) / 4)


def test_step_times_add_up(tmp_path: Path) -> None:
    points = train(job_of("stop={steps: 20}", "tracking={log_every: 10}"), tmp_path).points
    for step, whole in points["perf/step_seconds"].items():
        parts = [points[f"perf/{part}_seconds"][step] for part in ("data", "compute", "communication")]
        assert sum(parts) == pytest.approx(whole)


@pytest.mark.quality
def test_bf16_is_as_good_as_fp32_to_a_point_and_a_half(tmp_path: Path) -> None:
    accuracy = {}
    for precision in ("fp32", "bf16"):
        spec = job_of(*LENET, "stop={epochs: 6}", f"precision={precision}", "batch_size=64")
        done = train(spec, tmp_path / precision)
        both = done.result.metrics
        accuracy[precision] = (both["valid/accuracy"] + both["test/accuracy"]) / 2
        kept = {weight.dtype for weight in done.weights.values() if weight.is_floating_point()}
        assert kept == {torch.float32}
    assert accuracy["fp32"] > 0.9
    assert abs(accuracy["bf16"] - accuracy["fp32"]) <= 0.015


def test_clipping_bounds_the_update(tmp_path: Path) -> None:
    free = train(job_of("stop={steps: 1}", "optimizer.lr=1"), tmp_path / "free")
    spec = job_of("stop={steps: 1}", "optimizer.lr=1", "gradient={clip_norm: 0.01}")
    clipped = train(spec, tmp_path / "clipped")
    start = train(job_of("stop={steps: 1}", "optimizer.lr=1e-30"), tmp_path / "start").weights
    moved = [
        torch.cat([(done.weights[name] - start[name]).flatten() for name in start])
        for done in (free, clipped)
    ]
    assert moved[0].norm() == pytest.approx(free.points["train/grad_norm"][1], rel=1e-4)
    assert moved[1].norm() == pytest.approx(0.01, rel=1e-3)
    assert torch.cosine_similarity(moved[0], moved[1], dim=0) > 0.9999


def test_augmentation_helps_on_shifted_images(tmp_path: Path) -> None:
    """Trained with shifts, the net reads shifted test images better by more than 5 points."""

    shift = "regularize=[{name: data-augmentation, shift: 1}]"
    accuracy = []
    for name, extra in (("plain", ()), ("shifted", (shift,))):
        spec = job_of(*LENET, "stop={epochs: 8}", *extra)
        done = train(spec, tmp_path / name)
        splits = load(spec.data, tmp_path)
        workload = load_workload(spec.workload, spec.model, splits.shape)
        model = workload.build()
        model.load_state_dict(done.weights)
        rows = np.arange(len(splits.test))
        batch = {**splits.test.batch(rows), "key": keys(1, 0, rows)}
        batch = augment(batch, DataAugmentation(name="data-augmentation", shift=1))
        with torch.no_grad():
            outputs, _ = workload.forward(model.eval(), batch, None)
        accuracy.append(float((outputs.argmax(1) == batch["label"]).float().mean()))
    assert accuracy[1] > accuracy[0] + 0.05


def test_full_batch_gradient_descent(tmp_path: Path) -> None:
    done = train(job_of("optimizer={name: gd, lr: 0.5}", "batch_size=all", "stop={epochs: 4}"), tmp_path)
    assert done.result.position.step == 4
    losses = list(done.losses.values())
    assert losses == sorted(losses, reverse=True)


def test_an_infinite_rate_stops_at_its_step(tmp_path: Path) -> None:
    with pytest.raises(NonFiniteError, match=r"step \d+: "):
        train(job_of("optimizer.lr=1e38", "stop={epochs: 3}", *LENET[:2]), tmp_path)


def test_a_batch_larger_than_the_data_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="use at most 1437"):
        train(job_of("batch_size=2000"), tmp_path)
