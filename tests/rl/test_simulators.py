"""Simulators against episodes by hand, their baselines against closed forms, and claims that can fail."""

from __future__ import annotations

from collections.abc import Callable
from math import exp, sqrt
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dlsys.errors import UsageError
from dlsys.rl.evaluate import play
from dlsys.rl.simulators import notifications, tanks
from dlsys.rl.simulators.execution import SIZES, Execution
from dlsys.rl.simulators.notifications import ALWAYS, CLICK, HOURS, KINDS, MYOPIC, TIRED, Notifications
from dlsys.rl.simulators.simulator import _COLORS, Simulator
from dlsys.rl.simulators.tanks import COST, DELAY, GAINS, HOLD, NOISE, PID, STEPS, Plant, TwoTanks
from dlsys.spec.load import load
from dlsys.spec.rl.environments import SIMULATORS, make
from dlsys.spec.rl.job import Environment, RLJob

JOBS = Path(__file__).parents[2] / "jobs" / "rl"
Env = gymnasium.Env[Any, Any]
SLICE = SIZES.index(1.0)
STILL = {"spread_deviation": 0.0, "depth_deviation": 0.0, "volatility": 0.0, "drift": 0.0, "rush": 0.0}


def episode(env: Env, seed: int, act: Callable[[Any], Any]) -> tuple[list[float], dict[str, Any]]:
    """The rewards of an episode, and the last `info`."""
    seen, _ = env.reset(seed=seed)
    rewards: list[float] = []
    while True:
        seen, reward, terminated, truncated, info = env.step(act(seen))
        rewards.append(float(reward))
        if terminated or truncated:
            return rewards, info


def near(values: list[float] | np.ndarray, expected: float) -> bool:
    """Whether a mean is what it should be, within four standard errors."""
    return bool(abs(np.mean(values) - expected) < 4 * np.std(values) / sqrt(len(values)))


@pytest.mark.parametrize("name", sorted(SIMULATORS))
def test_simulators_are_as_gymnasium_wants_them_and_seeds_repeat(name: str) -> None:
    env = gymnasium.make(name, render_mode="rgb_array")
    check_env(env.unwrapped)
    actions = [env.action_space.sample() for _ in range(STEPS)]

    def follow(seed: int) -> tuple[list[float], dict[str, Any]]:
        chosen = iter(actions)
        return episode(env, seed, lambda _: next(chosen))

    first, seen = follow(3), env.render()
    assert first == follow(3)
    assert isinstance(seen, np.ndarray)
    np.testing.assert_array_equal(seen, env.render())
    assert (seen.dtype, seen.shape[2]) == (np.uint8, 3)
    assert any(follow(3) != follow(seed) for seed in range(4, 100))
    env.close()


class Paced:
    """TWAP, and whoever sends always: the same action, whatever is seen."""

    def __init__(self, action: object) -> None:
        self.action = action

    def act(self, observations: Any, explore: bool = False) -> np.ndarray:
        return np.array([self.action] * len(observations))


@pytest.mark.parametrize(
    ("file", "baseline"), [("execution_ppo", (SLICE, 0)), ("notifications_ppo", 1), ("twotanks_ppo", None)]
)
def test_a_ready_file_claims_what_its_baseline_falls_short_of(file: str, baseline: object) -> None:
    job = load(JOBS / f"{file}.yaml").job
    assert isinstance(job, RLJob)
    assert {metric.removeprefix("test/") for metric in job.expect} == set(job.environment.metrics)
    if baseline is None:  # the controller, as is shown below
        figures = dict.fromkeys(job.environment.metrics, 0.0)
    else:
        played = play(Paced(baseline), job.environment, 200, seed=0, split="test")
        assert played is not None
        figures = played.summary()
    for metric, bound in job.expect.items():
        assert not bound.holds(figures[metric.removeprefix("test/")] + 0.03)


# Execution: 1,000 shares in 2 steps, at a spread of 2 ticks and 500 shares a tick.
SMALL = {"shares": 1000.0, "steps": 2, "permanent": 0.002, "buyers": 300.0, **STILL}


def test_an_order_by_hand() -> None:
    env = Execution(**SMALL)
    # At the bid 500 · (1 + 500/2/500) ticks lost, 300 of the other 500 taken at the ask and 1 tick won on
    # each; the 200 that are left lose 500 · 0.002 ticks, and in the end 200 · (1 + 200/2/500).
    rewards, info = episode(env, 0, lambda _: (SLICE, len(SIZES) - 1))
    assert rewards == pytest.approx([(-750 + 300 - 200) / 1000, -240 / 1000])
    # TWAP: 750 at each step, and the second half lost 1 tick.
    assert info["twap_cost"] == pytest.approx((750 + 500 + 750) / 1000) == env.market.twap
    assert info["cost"] == pytest.approx(0.89)
    assert info["saving"] == pytest.approx((2.0 - 0.89) / 2.0)


def test_an_even_pace_costs_what_almgren_and_chriss_say_and_nothing_is_cheaper_in_a_still_market() -> None:
    env = Execution(**{**STILL, "steps": 4, "shares": 4000.0})
    market = env.market
    # γX²/2 + εX + (η - γ/2) Σ n², with ε half a spread and η = 1 / (2 depth).
    x, gamma = market.shares, market.permanent
    cost = gamma * x**2 / 2 + market.spread / 2 * x + (1 / 1000 - gamma / 2) * 4 * 1000.0**2
    assert market.twap == pytest.approx(cost / x)
    for uneven in ([3, 2, 2, 2], [1, 2, 3, 2], [0, 3, 2, 2], [4, 0, 0, 0]):
        plan = iter(uneven)
        _, info = episode(env, 0, lambda _, plan=plan: (next(plan), 0))
        assert info["twap_cost"] == pytest.approx(market.twap)
        assert info["cost"] > market.twap


def test_an_even_pace_saves_nothing_and_costs_what_is_expected() -> None:
    env, costs, savings = Execution(), [], []
    for seed in range(2000):
        _, info = episode(env, seed, lambda _: (SLICE, 0))
        costs.append(info["cost"])
        savings.append(info["saving"])
    assert savings == [0.0] * 2000, "its own baseline meets no claim"
    assert near(costs, env.market.twap)


def test_orders_that_wait_are_taken_before_prices_rise() -> None:
    """Adverse selection: who waits sells most where it should have waited on."""
    env = Execution(permanent=0.0)
    taken, rises = [], []
    for seed in range(300):
        env.reset(seed=seed)
        before, after = 1.0, float(env.step((0, len(SIZES) - 1))[0][1])
        taken.append(before - after)
        imbalance, _, _, shock = env._paths[0]
        rises.append(env.market.drift * imbalance + env.market.volatility * shock)
    assert np.corrcoef(taken, rises)[0, 1] > 0.5


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"shares": 0}, "shares must be above 0, got 0"),
        ({"volatility": -1}, "volatility must be at least 0, got -1"),
        ({"memory": [0.5, 0.5, 1.0]}, r"memory must be 3 numbers from 0 to below 1, got \[0.5, 0.5, 1.0\]"),
        ({"days": 1}, "unexpected keyword argument 'days'"),
    ],
)
def test_a_market_that_cannot_be_is_refused(options: dict[str, Any], said: str) -> None:
    with pytest.raises(UsageError, match=said):
        make(Environment(name="dlsys/Execution-v0", options=options))


# Notifications.


def test_a_user_by_hand() -> None:
    env = Notifications(days=1)
    env.reset(seed=0)
    env._kind, env._candidates = 1, [1, 1, 2, 0]
    # Chances of a click, of which each draw is just below or above: log-odds -1.5; 0.5 - 0.2 · 2 tired from
    # one sent; 0.5 + 1 - 0.2 · 1; after a drop and two sent.
    chances = [1 / (1 + exp(1.5)), None, 1 / (1 + exp(-1.3)), 1 / (1 + exp(1.5 + 1 + 0.2 * 3))]
    assert CLICK[1, 0, 1, 0] == pytest.approx(chances[0])
    assert CLICK[1, 2, 2, 1] == pytest.approx(chances[2])
    assert CLICK[1, 3, 0, 3] == pytest.approx(chances[3])
    # (click, visit, leave) draws: visits are below 0.3; leaving has chance 0.02 · (fatigue / 8)².
    low, high = 1 - 1e-9, 1 + 1e-9
    env._draws = [
        [chances[0] * low, 0.31, 0.02 * (2 / 8) ** 2 * high],
        [0.0, 0.29, 0.02 * (1 / 8) ** 2 * high],
        [chances[2] * high, 0.29, 0.02 * (3 / 8) ** 2 * high],
        [chances[3] * low, 0.31, 0.0],
    ]
    seen, *told = env.step(1)
    assert told[:2] == [pytest.approx(1 - 0.05), False]
    assert seen[5] * TIRED == 2
    assert seen[8] == pytest.approx(2 / 3)
    seen, *told = env.step(0)
    assert told[:2] == [pytest.approx(0.2), False]
    assert seen[5] * TIRED == 1
    assert env.step(1)[1:3] == (pytest.approx(0.2 - 0.05), False)
    _, reward, over, _, info = env.step(1)
    assert (reward, over) == (pytest.approx(0.95), True)
    assert info["value"] == pytest.approx(0.95 + 0.2 + 0.15 + 0.95)
    # Always: fatigue 2, 4, 6, 8; a click in the first slot and, at no draw above nought, in the second. By
    # then 0.02 · (4 / 8)² is above what decides on leaving.
    assert info["always"] == pytest.approx(0.95 + 1.15)
    above = info["value"] - info["always"]
    assert info["over_always"] == pytest.approx(above / notifications.value(ALWAYS, 1))


@pytest.mark.parametrize(("sends", "name"), [(ALWAYS, "always"), (MYOPIC, "myopic")])
def test_baselines_are_worth_what_is_expected_and_meet_no_claim(sends: np.ndarray, name: str) -> None:
    env, values, over = Notifications(), [], []
    for seed in range(1500):
        env.reset(seed=seed)
        slot, ended = 0, False
        while not ended:
            chance = sends[env._kind, slot % HOURS, env._candidates[slot], env._fatigue]
            _, _, ended, _, info = env.step(int(chance))
            slot += 1
        values.append(info["value"])
        assert info["value"] == pytest.approx(info[name])
        over.append(min(info[f"over_{each}"] for each in ("always", "myopic")))
    assert near(values, notifications.value(sends, 14))
    assert np.mean(over) <= 0


def test_the_best_policy_that_knows_kinds_sends_least_to_whom_it_tires() -> None:
    nothing, always, myopic, best = (
        notifications.value(each, 14) for each in (np.zeros_like(CLICK), ALWAYS, MYOPIC, None)
    )
    assert nothing < always < myopic < best
    assert best == pytest.approx(14.46, abs=0.01)
    assert nothing == pytest.approx(14 * HOURS * 0.2 * sum(kind.share * kind.visits for kind in KINDS))


def test_lines_are_drawn_from_left_to_right_and_bottom_to_top() -> None:
    env = Simulator(3, "rgb_array")
    env.reset()
    for heights in ((1.0, 0.5), (0.0, 0.5)):
        env._mark(*heights)
    drawn = env.render()
    assert drawn is not None
    height, width, _ = drawn.shape
    first, second = ((drawn == color).all(-1) for color in _COLORS[:2])
    assert first[0, : width // 4].all()
    assert first[height - 1, width // 4 : width // 2].all()
    assert second[height // 2, : width // 2].all()
    assert (drawn[:, width // 2 :] == 255).all()
    assert Simulator(3, None).render() is None


# Two tanks.


def test_tanks_by_hand() -> None:
    plant = Plant(0.25)
    assert plant.told == [pytest.approx(0.02 * 0.5 / 0.03)] * (DELAY + 1)
    for _ in range(DELAY):
        assert plant.step(1.0, 1.0) == pytest.approx(0.25), "what was told comes later"
    # One second after another: the upper tank has 0.2 m², the lower one a radius of 0.05 m + 0.45 · level.
    upper = lower = 0.25
    for _ in range(4):
        between, out = 0.02 * sqrt(upper), 0.02 * 1.1 * sqrt(lower)
        area = np.pi * (0.05 + 0.45 * lower) ** 2
        upper, lower = upper + (0.03 - between) / 0.2, lower + (between - out) / area
    assert plant.step(0.0, 1.1) == pytest.approx(lower)
    assert plant.upper == pytest.approx(upper)


def test_a_tank_is_never_below_empty_nor_above_full() -> None:
    for opening, level in ((0.0, 0.0), (1.0, 1.0)):
        plant = Plant(0.5)
        levels = [(plant.upper, plant.step(opening, 0.8)) for _ in range(500)]
        assert plant.upper == pytest.approx(level, abs=1e-3)
        assert all(0 <= each <= 1 for both in levels for each in both)


def test_a_controller_by_hand() -> None:
    controller = PID(tanks.Gains(2.0, 0.05, 8.0, 4.0), 0.5, 0.4)
    # Half of the slope of 0.02 m in 4 s is let through: 0.4 + 2 · 0.08 - 8 · 0.0025.
    assert controller.act(0.52, 0.6) == pytest.approx(0.54)
    # The integral has grown by 0.05 · 4 · 0.08, and the slope is half of what it was.
    assert controller.act(0.52, 0.6) == pytest.approx(0.416 + 0.16 - 0.01)
    # Far off, the pump is at its bound, and the integral stands still.
    assert controller.act(0.52, 1.0) == 1.0
    assert controller.act(0.52, 0.52) == pytest.approx(0.416 + 0.016 - 0.0025)


def test_the_pid_controller_costs_what_is_expected_and_meets_no_claim() -> None:
    env, costs = TwoTanks(), []
    for seed in range(300):
        env.reset(seed=seed)
        costs.append(env.controlled(GAINS))
    assert near(costs, COST)
    seen, _ = env.reset(seed=3)
    controller = PID(GAINS, env._plant.lower, env._plant.told[-1])
    _, info = episode(env, 3, lambda seen: [controller.act(float(seen[0] - seen[1]), float(seen[0]))])
    assert abs(info["over_pid"]) < 1e-4, "up to float32"
    assert seen[0] - seen[1] == pytest.approx(env._course[STEPS][0], abs=5 * NOISE)


def test_other_gains_are_worse() -> None:
    env, costs = TwoTanks(), []
    for change in (1.0, 0.7, 1.4):
        for field in GAINS._fields[:3]:
            gains, total = GAINS._replace(**{field: change * getattr(GAINS, field)}), 0.0
            for seed in range(150):
                env.reset(seed=seed)
                total += env.controlled(gains)
            costs.append(total)
    assert min(costs) == costs[0]


def test_set_points_and_the_outlet_change_and_noise_is_seen() -> None:
    env = TwoTanks()
    env.reset(seed=1)
    targets = [point for point, *_ in env._course[:STEPS]]
    assert len(set(targets)) == STEPS // HOLD
    assert len({outlet for _, outlet, _, _ in env._course}) == 2
    assert np.std([noise for *_, noise in env._course]) == pytest.approx(NOISE, rel=0.2)
