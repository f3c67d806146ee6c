"""The memory of episodes, against what it must do, step by step."""

from __future__ import annotations

import numpy as np
import pytest
from ray.rllib.env.single_agent_episode import SingleAgentEpisode
from scipy.stats import chisquare

from dlsys.rl.episode_replay import Replay
from dlsys.rl.plain import decode, encode


def _parts(*lengths: int, terminated: bool = True, start: float = 0.0) -> list[SingleAgentEpisode]:
    """An episode in parts, as environments that run on give it: step t has reward t, and shows t."""
    episode = SingleAgentEpisode()
    episode.add_env_reset(np.array([start], np.float32))
    parts, t, total = [], 0, sum(lengths)
    for length in lengths:
        for _ in range(length):
            t += 1
            over = t == total
            episode.add_env_step(
                np.array([start + t], np.float32),
                t % 3,
                start + t,
                terminated=over and terminated,
                truncated=over and not terminated,
            )
        parts.append(episode)
        if not episode.is_done:
            episode = episode.cut()
    return parts


def _all(memory: Replay) -> dict[int, dict[str, float]]:
    """Every step, by what was seen before it."""
    rows, found = memory.sample(4000)
    assert len(np.unique(rows)) == len(memory)
    return {
        int(found["obs"][i, 0]): {
            "reward": float(found["rewards"][i]),
            "next": float(found["new_obs"][i, 0]),
            "over": bool(found["terminateds"][i]),
            "n": float(found["n_step"][i]),
        }
        for i in range(4000)
    }


@pytest.mark.parametrize("n_step", [1, 3])
@pytest.mark.parametrize("terminated", [True, False])
def test_returns_of_n_steps_end_with_their_episode(n_step: int, terminated: bool) -> None:
    memory = Replay(100, gamma=0.9, n_step=n_step)
    for part in _parts(3, 1, 4, terminated=terminated):
        memory.add([part])
    found = _all(memory)
    assert found.keys() == set(range(8))
    for t, step in found.items():
        n = min(n_step, 8 - t)
        assert step["reward"] == pytest.approx(sum(0.9**k * (t + 1 + k) for k in range(n)))
        assert (step["next"], step["n"]) == (t + n, n)
        assert step["over"] == (terminated and t + n == 8)


def test_what_runs_on_is_bootstrapped_from_where_it_is() -> None:
    memory = Replay(100, gamma=0.9, n_step=3)
    first, second = _parts(2, 2)
    memory.add([first])
    assert _all(memory)[1] == {"reward": 2.0, "next": 2.0, "over": False, "n": 1.0}
    memory.add([second])
    assert _all(memory)[1] == {
        "reward": pytest.approx(2 + 0.9 * 3 + 0.81 * 4),
        "next": 4,
        "over": True,
        "n": 3,
    }


def test_the_oldest_steps_are_forgotten() -> None:
    memory = Replay(10, gamma=0.9, n_step=3)
    for start in (0, 100, 200, 300):
        memory.add(_parts(4, start=start))
    found = _all(memory)
    assert found.keys() == {102, 103, *range(200, 204), *range(300, 304)}
    assert found[103]["over"]
    assert found[202]["next"] == 204
    with pytest.raises(ValueError, match="twice the 6 steps"):
        memory.add(_parts(6))


def _drawn(memory: Replay, times: int) -> np.ndarray:
    return np.bincount(np.concatenate([memory.sample(50)[0] for _ in range(times)]), minlength=len(memory))


def test_prioritized_steps_come_as_often_as_their_priorities_say() -> None:
    memory = Replay(64, gamma=0.9, draw="prioritized", alpha=0.6, beta=0.4)
    memory.rng = np.random.default_rng(1)
    memory.add(_parts(20))
    rows = np.arange(20)
    errors = np.linspace(-2, 5, 20)
    memory.prioritize(rows, errors)
    share = (np.abs(errors) + 1e-6) ** 0.6
    share /= share.sum()
    counts = _drawn(memory, 1000)
    assert chisquare(counts, share * counts.sum()).pvalue > 0.01
    assert chisquare(counts, np.full(20, counts.mean())).pvalue < 1e-6

    rows, found = memory.sample(50)
    weights = (20 * share[rows]) ** -0.4
    np.testing.assert_allclose(found["weights"], weights / weights.max(), rtol=1e-6)


def test_new_steps_have_the_highest_priority_seen() -> None:
    memory = Replay(64, gamma=0.9, draw="prioritized", alpha=1.0)
    memory.rng = np.random.default_rng(0)
    memory.add(_parts(10))
    memory.prioritize(np.arange(10), np.full(10, 0.01))
    memory.prioritize(np.array([0]), np.array([7.0]))
    memory.add(_parts(1))
    counts = _drawn(memory, 20)
    assert counts[1:10].sum() < 30
    assert abs(counts[0] - counts[10]) < 200


def test_uniform_draws_are_uniform_and_the_last_steps_are_the_last() -> None:
    memory = Replay(64, gamma=0.9)
    memory.rng = np.random.default_rng(0)
    memory.add(_parts(20))
    memory.prioritize(np.arange(20), np.arange(20.0))
    assert chisquare(_drawn(memory, 400)).pvalue > 0.01
    assert set(memory.sample(8)[1]["weights"]) == {1.0}

    last = Replay(10, gamma=0.9, draw="last")
    for start in (0, 100, 200):
        last.add(_parts(5, start=start))
    assert sorted(last.sample(7)[1]["obs"][:, 0]) == [103, 104, *range(200, 205)]


def test_a_state_goes_through_a_checkpoint_and_draws_the_same() -> None:
    memory = Replay(30, gamma=0.9, n_step=2, draw="prioritized")
    for start in (0, 100, 200):
        memory.add(_parts(12, start=start))
    memory.prioritize(np.arange(30), np.arange(30.0))
    other = Replay(30, gamma=0.9, n_step=2, draw="prioritized")
    other.set_state(decode(encode(memory.get_state())))
    for each in (memory, other):
        each.add(_parts(9, start=300))
        each.rng = np.random.default_rng(5)
    (rows, found), (others, expected) = memory.sample(64), other.sample(64)
    np.testing.assert_array_equal(rows, others)
    for name, values in found.items():
        np.testing.assert_array_equal(values, expected[name])
