"""Values of policies from others' episodes, held against values that are known exactly."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

from dlsys.errors import DataError
from dlsys.rl.actions import Actions
from dlsys.rl.episodes import Recorded, chance, read, record
from dlsys.rl.estimates import estimates
from dlsys.rl.simulators import notifications
from dlsys.rl.simulators.notifications import CLICK, RELEVANCE, TIRED, Notifications
from dlsys.spec.rl.job import Environment


def steps_of(episodes: list[list[tuple[float, int, float, float]]]) -> Recorded:
    """Of (what is seen, action, its chance, reward)."""
    rows = [step for episode in episodes for step in episode]
    seen, actions, chances, rewards = (np.array(column) for column in zip(*rows, strict=True))
    last = np.array([index == len(one) - 1 for one in episodes for index in range(len(one))])
    numbers = seen[:, None].astype(np.float32)
    return Recorded(
        numbers, actions, rewards.astype(np.float32), numbers, last, last, np.log(chances).astype(np.float32)
    )


def test_by_hand() -> None:
    # The policy takes action 1 with chance 0.8; it was 0.5, so that weights are 1.6 and 0.4 for each step.
    steps = steps_of([[(0, 1, 0.5, 1.0), (1, 0, 0.5, 2.0)], [(0, 0, 0.5, 3.0)]])
    policy = np.tile([0.2, 0.8], (3, 1))
    values = np.array([[1.0, 2.0], [0.5, 1.0], [1.0, 2.0]])
    found = estimates(steps, policy, values=values, gamma=0.5)
    assert found.per_decision.value == pytest.approx((1.6 + 0.5 * 0.64 * 2 + 0.4 * 3) / 2)
    # At step 1 the ended episode has its weight of 0.4, and no reward.
    assert found.weighted.value == pytest.approx((1.6 + 0.4 * 3) / 2 + 0.5 * 0.64 * 2 / (0.64 + 0.4))
    second = 0.9 + 0.4 * (2 - 0.5)
    first = 1.8 + 1.6 * (1 + 0.5 * second - 2)
    assert found.doubly_robust.value == pytest.approx((first + 1.8 + 0.4 * (3 - 1)) / 2)
    assert found.effective == pytest.approx((0.64 + 0.4) ** 2 / (0.64**2 + 0.4**2))


def test_the_policy_itself_is_worth_its_mean_return() -> None:
    random = np.random.default_rng(0)
    steps = steps_of([[(0, int(random.integers(2)), 0.5, random.normal())] * 3 for _ in range(40)])
    found = estimates(steps, np.full((120, 2), 0.5))
    mean = steps.rewards.sum() / 40
    assert found.per_decision.value == pytest.approx(mean)
    assert found.weighted.value == pytest.approx(mean)
    assert found.effective == pytest.approx(40)
    returns = steps.rewards.reshape(40, 3).sum(1)
    assert found.per_decision.high - found.per_decision.low == pytest.approx(
        2 * 1.96 * returns.std() / 40**0.5, rel=0.2
    )


# A walk: action 1 goes on with chance 0.9 and is paid 1, action 0 ends it and is paid 0.5. Seen is the state,
# of 4; the last one ends. With chance p of action 1, V(s) = p (1 + 0.9 V(s + 1)) + (1 - p) 0.5, and V(4) = 0.
_LENGTH = 4


def walk_value(p: float) -> float:
    value = 0.0
    for _ in range(_LENGTH):
        value = p * (1 + 0.9 * value) + (1 - p) * 0.5
    return value


def walks(count: int, p: float, random: np.random.Generator) -> Recorded:
    made = []
    for _ in range(count):
        made.append([])
        for state in range(_LENGTH):
            action = int(random.random() < p)
            made[-1].append((state, action, p if action else 1 - p, 1.0 if action else 0.5))
            if not action or random.random() > 0.9:
                break
    return steps_of(made)


def test_a_small_decision_process_is_worth_what_its_equations_say() -> None:
    steps = walks(3000, 0.5, np.random.default_rng(0))
    truth = walk_value(0.8)
    found = estimates(steps, np.tile([0.2, 0.8], (len(steps.actions), 1)))
    for each in found[:3]:
        assert each.value == pytest.approx(truth, rel=0.05)
        assert each.low < truth < each.high
    widths = [each.high - each.low for each in found[:3]]
    assert widths[2] < widths[1] < widths[0], "values and weights' sums take noise away"
    assert abs(steps.rewards.sum() / 3000 - truth) > 0.3 * truth, "the recorded returns are of another policy"
    assert 300 < found.effective < 2500


def test_intervals_have_the_truth_about_as_often_as_they_say() -> None:
    random, truth = np.random.default_rng(1), walk_value(0.7)
    held = np.zeros(3)
    for seed in range(60):
        steps = walks(150, 0.5, random)
        found = estimates(steps, np.tile([0.3, 0.7], (len(steps.actions), 1)), seed=seed)
        held += [each.low < truth < each.high for each in found[:3]]
    assert (held / 60 > 0.85).all(), held


class Sender:
    """Sends to those who are not tired, what is relevant to them."""

    def __init__(self, fatigue: int, relevance: float) -> None:
        self.fatigue, self.relevance = fatigue, relevance

    def act(self, observations: NDArray[Any], explore: bool = False) -> NDArray[Any]:
        rested = observations[:, 5] * TIRED <= self.fatigue + 0.5
        return (rested & (observations[:, 6] >= self.relevance)).astype(np.int64)

    def sends(self, share: float) -> NDArray[np.float64]:
        """The chances to send, with a share of random actions, as `notifications.value` takes them."""
        best = (np.arange(TIRED + 1) <= self.fatigue) & (np.array(RELEVANCE)[:, None] >= self.relevance)
        found: NDArray[np.float64] = np.broadcast_to(chance(share, 2, best), CLICK.shape)
        return found


def test_notifications_are_worth_what_playing_says_within_a_tenth(tmp_path: Path) -> None:
    days, path, target = 2, tmp_path / "a.parquet", Sender(-1, 0.0)
    place = Environment(name="dlsys/Notifications-v0", options={"days": days})
    returns = record(target, place, 1500, 0, path, explore=0.9)
    env = Notifications()
    steps = read(path, 10, Actions(env.action_space))
    best = target.act(steps.observations)[:, None] == np.arange(2)
    found = estimates(steps, chance(0.3, 2, best))
    truth = notifications.value(target.sends(0.3), days)
    for each in found[:3]:
        assert each.value == pytest.approx(truth, rel=0.1)
    robust = found.doubly_robust
    assert robust.low < truth < robust.high
    assert abs(np.mean(returns) - truth) > 0.5 * truth, "the recorded returns are of another policy"


def test_recorded_chances_are_those_of_the_random_share(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    record(Sender(4, -1.0), Environment(name="dlsys/Notifications-v0"), 20, 0, path, explore=0.4)
    steps = read(path, 10, Actions(Notifications().action_space))
    best = Sender(4, -1.0).act(steps.observations) == steps.actions
    assert steps.logp is not None
    np.testing.assert_allclose(np.exp(steps.logp), np.where(best, 0.8, 0.2), rtol=1e-6)
    assert 0.7 < best.mean() < 0.9


def test_what_cannot_be_estimated_is_refused() -> None:
    steps = steps_of([[(0, 1, 0.5, 1.0)], [(0, 0, 0.5, 1.0)]])
    with pytest.raises(DataError, match="do not tell how likely"):
        estimates(steps._replace(logp=None), np.full((2, 2), 0.5))
    certain = steps._replace(logp=np.log(np.array([1.0, 0.5], np.float32)))
    with pytest.raises(DataError, match="at 1 of 2 steps the recorded action was certain"):
        estimates(certain, np.full((2, 2), 0.5))
    with pytest.raises(DataError, match="one episode alone"):
        estimates(steps_of([[(0, 1, 0.5, 1.0)]]), np.full((1, 2), 0.5))


def test_more_episodes_say_more() -> None:
    random = np.random.default_rng(3)
    widths = []
    for count in (100, 1600):
        steps = walks(count, 0.5, random)
        found = estimates(steps, np.tile([0.3, 0.7], (len(steps.actions), 1)))
        widths.append(found.per_decision.high - found.per_decision.low)
    assert widths[0] / widths[1] == pytest.approx(4, rel=0.3)
