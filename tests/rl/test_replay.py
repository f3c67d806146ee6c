"""The memory of agents of our own, against what it must do, step by step."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from scipy.stats import chisquare

from dlsys.rl.actions import Actions
from dlsys.rl.observations import Observations
from dlsys.rl.plain import decode, encode
from dlsys.rl.replay import Replay
from dlsys.rl.sampler import Rollout

SEEN, TAKEN = Observations(spaces.Box(-np.inf, np.inf, (1,), np.float32)), Actions(spaces.Discrete(3))


def memory(capacity: int, count: int = 1, **told: Any) -> Replay:
    return Replay(capacity, count, SEEN, TAKEN, **{"gamma": 0.9, **told})


class Stream:
    """Episodes of one environment: it shows t, step t has the action t % 3, and the reward t + 1.

    Args:
        lengths: of the episodes; after them it runs on.
        start: the first t.
        terminated: whether they end by themselves, or are cut.
    """

    def __init__(self, *lengths: int, start: int = 0, terminated: bool = True) -> None:
        self.t, self.terminated = start, terminated
        self.ends = set((start + np.cumsum(lengths)).tolist())
        self.fresh = True

    def steps(self, count: int) -> Rollout:
        """The next ones; what is seen last of an episode is its last t and a half."""
        times = np.arange(self.t, self.t + count)
        over = np.array([int(t) + 1 in self.ends for t in times])[:, None]
        first = np.append([self.fresh], over[:, 0])[:, None]
        self.fresh = bool(over[-1, 0])
        self.t += count
        ends = np.array([(step, 0) for step in np.flatnonzero(over[:, 0])], np.int64).reshape(-1, 2).T
        finals = (times[over[:, 0]] + 0.5).astype(np.float32)[:, None]
        return Rollout(
            seen={"numbers": np.append(times, self.t).astype(np.float32)[:, None, None]},
            actions=(times % 3)[:, None],
            rewards=(times + 1).astype(np.float32)[:, None],
            terminated=over & self.terminated,
            truncated=over & (not self.terminated),
            first=first,
            finals={"numbers": finals},
            ends=ends,
            final_memories=np.zeros((len(finals), 0), np.float32),
            memories=np.zeros((count + 1, 1, 0), np.float32),
        )


def everything(of: Replay) -> dict[int, dict[str, float]]:
    """Every step, by what was seen before it."""
    found = of.sample(4000)
    assert len(np.unique(found.rows)) == len(of)
    return {
        int(found.seen["numbers"][i, 0]): {
            "action": int(found.actions[i]),
            "reward": float(found.rewards[i]),
            "next": float(found.following["numbers"][i, 0]),
            "over": bool(found.terminated[i]),
            "n": float(found.steps[i]),
        }
        for i in range(4000)
    }


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("terminated", [True, False])
def test_returns_of_n_steps_end_with_their_episode(n_step: int, terminated: bool) -> None:
    made, stream = memory(100, n_step=n_step), Stream(8, 100, terminated=terminated)
    for count in (3, 1, 7):
        made.add(stream.steps(count))
    found = everything(made)
    assert found.keys() == set(range(11))
    for t, step in found.items():
        end = 8 if t < 8 else 11
        n = min(n_step, end - t)
        assert step["action"] == t % 3
        assert step["n"] == n
        assert step["reward"] == pytest.approx(sum(0.9**k * (t + 1 + k) for k in range(n)))
        assert step["over"] == (terminated and t + n == 8)
        if not step["over"]:  # where it ended by itself, nobody asks what was seen
            assert step["next"] == (7.5 if t + n == 8 else t + n)


def test_the_oldest_steps_are_forgotten_and_what_was_cut_with_them() -> None:
    made, stream = memory(10, n_step=3), Stream(4, 4, 4, 4, 4, terminated=False)
    for _ in range(5):
        made.add(stream.steps(4))
    found = everything(made)
    assert found.keys() == set(range(10, 20))
    assert (found[11]["next"], found[15]["next"], found[19]["next"]) == (11.5, 15.5, 19.5)
    assert found[13]["next"] == 15.5
    assert len(made._finals) == 3
    with pytest.raises(ValueError, match="twice the 6 steps"):
        made.add(stream.steps(6))


def test_an_environment_that_was_lost_cuts_its_episode_where_it_was() -> None:
    made, stream = memory(20, n_step=3), Stream(50)
    made.add(stream.steps(4))
    made.add(Stream(50, start=100).steps(4), lost=[True])
    found = everything(made)
    assert found[3] == {"action": 0, "reward": 4.0, "next": 4.0, "over": False, "n": 1.0}
    assert found[2]["next"] == 4.0
    assert found[100]["next"] == 103.0


def test_environments_do_not_mix() -> None:
    made = memory(40, count=2, n_step=2)
    one, other = Stream(5, 50), Stream(50, start=1000)
    from dlsys.rl.sampler import joined

    for _ in range(3):
        made.add(joined([one.steps(4), other.steps(4)]))
    found = everything(made)
    assert found.keys() == {*range(12), *range(1000, 1012)}
    for t in range(1000, 1010):
        assert found[t]["next"] == t + 2
        assert found[t]["reward"] == pytest.approx(t + 1 + 0.9 * (t + 2), rel=1e-6)
    assert found[4]["over"]
    assert not found[1004]["over"]


def drawn(of: Replay, times: int) -> np.ndarray:
    rows = np.concatenate([of.sample(50).rows for _ in range(times)])
    return np.bincount(rows, minlength=len(of))


def test_prioritized_steps_come_as_often_as_their_priorities_say() -> None:
    made = memory(64, draw="prioritized", alpha=0.6, beta=0.4, seed=1)
    made.add(Stream(20).steps(20))
    errors = np.linspace(-2, 5, 20)
    made.prioritize(np.arange(20), torch.as_tensor(errors))
    share = (np.abs(errors) + 1e-6) ** 0.6
    share /= share.sum()
    counts = drawn(made, 1000)
    assert chisquare(counts, share * counts.sum()).pvalue > 0.01
    assert chisquare(counts, np.full(20, counts.mean())).pvalue < 1e-6
    found = made.sample(50)
    weights = (20 * share[found.rows]) ** -0.4
    np.testing.assert_allclose(found.weights, weights / weights.max(), rtol=1e-6)


def test_new_steps_have_the_highest_priority_seen() -> None:
    made, stream = memory(64, draw="prioritized", alpha=1.0), Stream(50)
    made.add(stream.steps(10))
    made.prioritize(np.arange(10), torch.full((10,), 0.01))
    made.prioritize(np.array([0]), torch.tensor([7.0]))
    made.add(stream.steps(1))
    counts = drawn(made, 20)
    assert counts[1:10].sum() < 30
    assert abs(counts[0] - counts[10]) < 200


def test_uniform_draws_are_uniform_and_the_last_steps_are_the_last() -> None:
    made = memory(64)
    made.add(Stream(20).steps(20))
    made.prioritize(np.arange(20), torch.arange(20.0))
    assert chisquare(drawn(made, 400)).pvalue > 0.01
    assert set(made.sample(8).weights) == {1.0}
    last, stream = memory(10, draw="last"), Stream(50)
    for _ in range(3):
        last.add(stream.steps(5))
    assert sorted(last.sample(7).seen["numbers"][:, 0]) == list(range(8, 15))


def test_a_state_goes_through_a_checkpoint_and_draws_the_same() -> None:
    stream = Stream(7, 7, 7, 7, terminated=False)
    made, other = (memory(30, n_step=2, draw="prioritized", seed=seed) for seed in (0, 5))
    for _ in range(3):
        made.add(stream.steps(12))
    made.prioritize(np.arange(30), torch.arange(30.0))
    made.sample(3)
    other.load(decode(copy.deepcopy(encode(made.state()))))
    more = stream.steps(9)
    for each in (made, other):
        each.add(more)
    found, expected = made.sample(64), other.sample(64)
    for name, values in vars(found).items():
        theirs = getattr(expected, name)
        if isinstance(values, dict):
            values, theirs = values["numbers"], theirs["numbers"]
        np.testing.assert_array_equal(values, theirs, err_msg=name)


def test_pieces_follow_an_environment_through_its_episodes() -> None:
    made, stream = memory(30), Stream(7, 7, 7, 50, terminated=False)
    for _ in range(3):
        made.add(stream.steps(12))
    found = made.pieces(200, 5)
    seen = found.seen["numbers"][..., 0]
    assert seen.shape == (6, 200)
    np.testing.assert_array_equal(np.diff(seen, axis=0), 1)
    assert seen.min() == 6
    assert seen.max() == 36
    np.testing.assert_array_equal(found.rewards, seen[:-1] + 1)
    np.testing.assert_array_equal(found.first, np.isin(seen, [0, 7, 14, 21]))
    np.testing.assert_array_equal(found.cut, np.isin(seen[:-1], [6, 13, 20]))


def test_pixels_are_kept_once_and_as_bytes() -> None:
    images = Observations(spaces.Box(0, 255, (84, 84, 4), np.uint8))
    made = Replay(1000, 2, images, TAKEN, gamma=0.9)
    (kept,) = made._seen.values()
    assert kept.nbytes == 1002 * 84 * 84 * 4
