"""Each schedule against its formula, across interruptions, and against the claim it is known for."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from pydantic import TypeAdapter
from torch import nn

from dlsys.errors import UsageError
from dlsys.spec.train import optimizer as optimizer_spec
from dlsys.spec.train import schedule as spec
from dlsys.train import optim
from dlsys.train.schedule import Schedule, apply

# torch warns where schedulers are misused.
pytestmark = pytest.mark.filterwarnings("error")

EPOCH, TOTAL, LR = 10, 100, 0.1

OPTIONS: dict[str, dict[str, Any]] = {
    "constant": {},
    "power-schedule": {"s": 20, "c": 0.7},
    "exponential-schedule": {"s": 25},
    "exponential-decay": {"gamma": 0.8},
    "piecewise-schedule": {"boundaries": [15, 40], "factors": [1.0, 0.5, 0.02]},
    "step-decay": {"epochs": 3, "gamma": 0.3},
    "performance-schedule": {"patience": 1, "gamma": 0.5},
    "one-cycle": {"max_lr": 0.4},
    "cosine-annealing": {"min_lr": 0.01},
    "cyclical-lr": {"max_lr": 0.4, "step_size": 7, "mode": "triangular2"},
    "sgd-annealing": {"s": 10.0},
}


def make(
    name: str, *, lr: float = LR, total: int | None = TOTAL, best: Any = "min", **options: Any
) -> Schedule:
    section = TypeAdapter(spec.Schedule).validate_python({"name": name, **options})
    return Schedule(section, lr=lr, steps_per_epoch=EPOCH, total_steps=total, mode=best)


def curve(schedule: Schedule, steps: int = TOTAL) -> list[dict[str, float | None]]:
    found = []
    for _ in range(steps):
        found.append(schedule.hyper)
        schedule.step()
    return found


def rates(schedule: Schedule, steps: int = TOTAL) -> list[float]:
    return [float(hyper["lr"] or 0.0) for hyper in curve(schedule, steps)]


def exactly(values: list[float]) -> Any:
    return pytest.approx(values, rel=1e-14, abs=0.0)


def reference(make: Callable[[torch.optim.Optimizer], Any], steps: int = TOTAL) -> list[tuple[float, float]]:
    """(lr, momentum) of torch's own scheduler, used as its documentation says."""
    optimizer = torch.optim.SGD([nn.Parameter(torch.zeros(1))], lr=LR, momentum=0.9)
    scheduler, found = make(optimizer), []
    for step in range(steps):
        found.append((optimizer.param_groups[0]["lr"], optimizer.param_groups[0]["momentum"]))
        optimizer.step()
        if step < steps - 1:
            scheduler.step()
    return found


FORMULAS: dict[str, Callable[[int], float]] = {
    "constant": lambda t: LR,
    "power-schedule": lambda t: LR * (1 + t / 20) ** -0.7,
    "exponential-schedule": lambda t: LR * 10 ** (-t / 25),
    "exponential-decay": lambda t: LR * 0.8 ** (t // EPOCH),
    "step-decay": lambda t: LR * 0.3 ** (t // (3 * EPOCH)),
    "cosine-annealing": lambda t: 0.01 + (LR - 0.01) * (1 + math.cos(math.pi * t / 99)) / 2,
    "sgd-annealing": lambda t: LR / math.sqrt(1 + t / 10),
}


@pytest.mark.parametrize("name", FORMULAS)
def test_rate_equals_its_formula(name: str) -> None:
    wanted = [FORMULAS[name](t) for t in range(TOTAL)]
    assert rates(make(name, **OPTIONS[name])) == exactly(wanted)


def test_power_halves_after_s_and_exponential_falls_tenfold_every_s() -> None:
    power = rates(make("power-schedule", s=20))
    assert [power[0], power[20], power[40], power[60]] == exactly([LR, LR / 2, LR / 3, LR / 4])
    exponential = rates(make("exponential-schedule", s=25))
    assert [exponential[t] for t in (0, 25, 50, 75)] == exactly([0.1, 0.01, 0.001, 0.0001])
    assert [b / a for a, b in zip(exponential, exponential[25:], strict=False)] == exactly([0.1] * 75)


def test_decay_by_epochs_equals_torchs_own() -> None:
    def by_epoch(make: Callable[[torch.optim.Optimizer], Any]) -> list[float]:
        return [lr for lr, _ in reference(make, TOTAL // EPOCH) for _ in range(EPOCH)]

    scheduler = torch.optim.lr_scheduler
    assert rates(make("exponential-decay", gamma=0.8)) == exactly(
        by_epoch(lambda optimizer: scheduler.ExponentialLR(optimizer, 0.8))
    )
    assert rates(make("step-decay", epochs=3, gamma=0.3)) == exactly(
        by_epoch(lambda optimizer: scheduler.StepLR(optimizer, 3, 0.3))
    )


def test_piecewise_changes_at_its_boundaries() -> None:
    found = rates(make("piecewise-schedule", **OPTIONS["piecewise-schedule"]))
    wanted = [LR * 1.0] * 15 + [LR * 0.5] * 25 + [LR * 0.02] * 60
    assert found == wanted


def test_one_cycle_equals_torchs_own_and_stays_at_its_end() -> None:
    options = {"max_lr": 0.4, "pct_start": 0.25, "base_momentum": 0.8, "max_momentum": 0.97}
    found = curve(make("one-cycle", **options), TOTAL + 5)
    wanted = reference(lambda o: torch.optim.lr_scheduler.OneCycleLR(o, total_steps=TOTAL, **options))
    assert [(hyper["lr"], hyper["momentum"]) for hyper in found[:TOTAL]] == wanted
    assert found[TOTAL:] == [found[TOTAL - 1]] * 5
    lr, momentum = [hyper["lr"] for hyper in found], [hyper["momentum"] for hyper in found]
    peak = lr.index(max(lr))  # type: ignore[type-var]
    assert peak == 24
    assert (lr[0], lr[peak], lr[-1]) == exactly([0.4 / 25, 0.4, 0.4 / 25 / 1e4])  # type: ignore[comparison-overlap]
    assert (momentum[0], momentum[peak], momentum[-1]) == exactly([0.97, 0.8, 0.97])  # type: ignore[comparison-overlap]
    assert lr[: peak + 1] == sorted(lr[: peak + 1])  # type: ignore[type-var]
    assert momentum[peak:TOTAL] == sorted(momentum[peak:TOTAL])  # type: ignore[type-var]


@pytest.mark.parametrize(("total", "pct"), [(1, 0.3), (2, 0.5), (10, 0.1), (3, 0.3), (4, 0.999)])
def test_one_cycle_draws_very_short_runs(total: int, pct: float) -> None:
    found = rates(make("one-cycle", total=total, max_lr=0.4, pct_start=pct), total + 1)
    assert all(0 < lr <= 0.4 for lr in found)
    assert found[-1] == pytest.approx(0.4 / 25 / 1e4)


def test_cosine_has_its_ends_and_its_middle() -> None:
    found = rates(make("cosine-annealing", total=101, min_lr=0.01), 105)
    assert [found[0], found[50], found[100]] == exactly([0.1, 0.055, 0.01])
    assert found[101:] == [found[100]] * 4
    wanted = reference(lambda o: torch.optim.lr_scheduler.CosineAnnealingLR(o, 100, 0.01), 101)
    assert found[:101] == pytest.approx([lr for lr, _ in wanted], rel=1e-10)
    assert rates(make("cosine-annealing", total=1), 3)[0] == LR


def test_cyclical_repeats_exactly() -> None:
    found = rates(make("cyclical-lr", max_lr=0.5, step_size=8), 80)
    assert found[:16] == exactly([0.1 + 0.05 * min(t, 16 - t) for t in range(16)])
    assert found[16:] == exactly(found[:64])
    smaller = rates(make("cyclical-lr", max_lr=0.5, step_size=8, mode="triangular2"), 32)
    assert [smaller[8], smaller[24]] == exactly([0.5, 0.3])
    shrinking = rates(make("cyclical-lr", max_lr=0.5, step_size=8, mode="exp_range", gamma=0.9), 32)
    assert [shrinking[8], shrinking[24]] == exactly([0.1 + 0.4 * 0.9**8, 0.1 + 0.4 * 0.9**24])


def test_performance_cuts_after_patience_and_not_before() -> None:
    schedule = make("performance-schedule", patience=2, gamma=0.5, min_lr=0.03)
    found = []
    for loss in [1.0, 0.9, 0.95, 0.9, 0.91, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8, 0.8]:
        schedule.observe({"valid/loss": loss, "valid/accuracy": 0.5})
        schedule.step()
        found.append(schedule.hyper["lr"])
    # Best 0.9 at the second; three without improvement pass the patience of two.
    assert found == [0.1, 0.1, 0.1, 0.1, 0.05, 0.05, 0.05, 0.05, 0.03, 0.03, 0.03, 0.03]


@pytest.mark.parametrize(("mode", "better"), [("min", -1), ("max", 1)])
@pytest.mark.parametrize("start", [-5.0, 5.0])
def test_performance_knows_the_better_direction(mode: str, better: int, start: float) -> None:
    improving, worsening = (
        make("performance-schedule", metric="valid/x", patience=0, best=mode) for _ in range(2)
    )
    for index in range(4):
        improving.observe({"valid/x": start + better * 0.1 * index})
        worsening.observe({"valid/x": start - better * 0.1 * index})
    assert improving.hyper["lr"] == 0.1
    assert worsening.hyper["lr"] == 0.1 / 8


def test_performance_counts_an_equal_or_missing_value_as_no_improvement() -> None:
    schedule = make("performance-schedule", patience=0)
    for loss in (-1.0, -1.0, math.nan):
        schedule.observe({"valid/loss": loss})
    assert schedule.hyper["lr"] == 0.1 / 4


@pytest.mark.parametrize("name", spec.NEEDS_TOTAL)
def test_curves_over_the_run_need_its_end(name: str) -> None:
    with pytest.raises(UsageError, match=r"stop\.epochs or stop\.steps"):
        make(name, total=None, **OPTIONS[name])


@pytest.mark.parametrize("name", OPTIONS)
def test_warmup_lies_on_top(name: str) -> None:
    plain = rates(make(name, **OPTIONS[name]))
    warm = rates(make(name, warmup=9, **OPTIONS[name]))
    assert warm[:9] == exactly([lr * (t + 1) / 10 for t, lr in enumerate(plain[:9])])
    assert warm[9:] == plain[9:]


@pytest.mark.parametrize("name", OPTIONS)
def test_only_one_cycle_moves_momentum(name: str) -> None:
    momenta = {hyper["momentum"] for hyper in curve(make(name, **OPTIONS[name]))}
    assert len(momenta) > 50 if name == "one-cycle" else momenta == {None}


def drive(schedule: Schedule, losses: list[float], steps: range) -> list[dict[str, float | None]]:
    found = []
    for t in steps:
        found.append(schedule.hyper)
        schedule.step()
        if (t + 1) % 5 == 0:
            schedule.observe({"valid/loss": losses[t // 5]})
    return found


@pytest.mark.parametrize("name", OPTIONS)
@settings(max_examples=15, deadline=None)
@given(cut=st.integers(0, 110), warmup=st.integers(0, 30), seed=st.integers(0, 99))
def test_interrupted_equals_uninterrupted(name: str, cut: int, warmup: int, seed: int) -> None:
    losses = torch.rand(22, generator=torch.Generator().manual_seed(seed)).tolist()
    whole = drive(make(name, warmup=warmup, **OPTIONS[name]), losses, range(110))
    first = make(name, warmup=warmup, **OPTIONS[name])
    before = drive(first, losses, range(cut))
    state = json.loads(json.dumps(first.state_dict(), allow_nan=False))
    assert state == first.state_dict()
    second = make(name, warmup=warmup, **OPTIONS[name])
    second.load_state_dict(state)
    assert before + drive(second, losses, range(cut, 110)) == whole


def test_a_restored_schedule_follows_a_new_rate() -> None:
    for name in ("step-decay", "cosine-annealing", "performance-schedule"):
        first = make(name, lr=0.1, **OPTIONS[name])
        drive(first, [1.0] * 10, range(45))
        second, fresh = (make(name, lr=0.2, **OPTIONS[name]) for _ in range(2))
        second.load_state_dict(first.state_dict())
        drive(fresh, [1.0] * 10, range(45))
        assert second.hyper == fresh.hyper


def test_apply_writes_rate_and_momentum_where_they_belong() -> None:
    def applied(name: str, hyper: dict[str, float | None], **options: Any) -> dict[str, Any]:
        section = TypeAdapter(optimizer_spec.Optimizer).validate_python({"name": name, **options})
        optimizer = optim.build(section, [nn.Parameter(torch.zeros(1))])
        optimizer.add_param_group({"params": [nn.Parameter(torch.zeros(1))]})
        apply(optimizer, hyper)
        first, second = optimizer.param_groups
        assert all(first[key] == second[key] for key in first if key != "params")
        return first

    moved: dict[str, float | None] = {"lr": 0.5, "momentum": 0.7}
    assert applied("momentum", moved)["momentum"] == 0.7
    assert applied("rmsprop", moved)["momentum"] == 0.7
    assert applied("adam", moved, betas=(0.9, 0.99))["betas"] == (0.7, 0.99)
    assert applied("yogi", moved)["betas"] == (0.7, 0.999)
    assert applied("adagrad", moved)["lr"] == 0.5
    assert "momentum" not in applied("adagrad", moved)
    left = applied("nesterov", {"lr": 0.25, "momentum": None})
    assert (left["lr"], left["momentum"]) == (0.25, 0.9)


def test_cyclical_leaves_a_local_minimum_that_the_low_rate_does_not() -> None:
    # A narrow well at x = 1, where the loss is 0.2, beside a wide one at x = −1, where it is 0.
    def loss(x: torch.Tensor) -> torch.Tensor:
        return torch.minimum(0.2 + 50 * (x - 1) ** 2, 0.5 * (x + 1) ** 2)

    def last(schedule: Schedule) -> float:
        x = nn.Parameter(torch.tensor(1.05))
        optimizer = torch.optim.SGD([x], lr=0.01)
        for _ in range(400):
            apply(optimizer, schedule.hyper)
            optimizer.zero_grad()
            loss(x).backward()
            optimizer.step()
            schedule.step()
        return float(loss(x.detach()))

    assert last(make("constant", lr=0.005)) == pytest.approx(0.2, abs=1e-6)
    assert last(make("cyclical-lr", lr=0.005, max_lr=0.1, step_size=20)) < 1e-3


def test_annealing_settles_where_a_constant_rate_keeps_jumping() -> None:
    generator = torch.Generator().manual_seed(0)
    features = torch.randn(500, 5, dtype=torch.float64, generator=generator)
    targets = features.sum(1) + torch.randn(500, dtype=torch.float64, generator=generator)
    best = torch.linalg.lstsq(features, targets[:, None]).solution[:, 0]

    def excess(schedule: Schedule, seed: int) -> float:
        x = nn.Parameter(torch.zeros(5, dtype=torch.float64))
        optimizer = torch.optim.SGD([x], lr=0.1)
        for row in torch.randint(500, (2000,), generator=torch.Generator().manual_seed(seed)).tolist():
            apply(optimizer, schedule.hyper)
            x.grad = (features[row] @ x.detach() - targets[row]) * features[row]
            optimizer.step()
            schedule.step()
        loss = ((features @ x.detach() - targets) ** 2).mean()
        return float(loss - ((features @ best - targets) ** 2).mean())

    annealed = [excess(make("sgd-annealing", s=10.0), seed) for seed in range(3)]
    constant = [excess(make("constant"), seed) for seed in range(3)]
    assert sum(annealed) < 0.5 * sum(constant)
