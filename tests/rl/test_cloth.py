"""The cloth: its threads, worked by hand and at rest, its hands, its floor, and what it pays."""

from __future__ import annotations

import gymnasium
import numpy as np
import pytest

import dlsys.spec.rl.environments  # noqa: F401  # registers it
from dlsys.rl.cloth import Cloth

STILL = np.zeros(6, np.float32)


def hanging(**options: float) -> Cloth:
    env = Cloth(**options)
    env.reset(seed=0)
    return env


def test_a_thread_is_brought_to_its_length() -> None:
    """Threads of a cloth of 2 x 2 are 1 m long. One of 1.5 m gets shorter by a quarter at both ends, and one
    that a hand holds by all of it at the other end; the middle of a free one stays where it was."""
    env = hanging(side=2)
    places = np.zeros((2, 2, 3))
    places[:, 1, 0] = 1.5
    places[1, :, 2] = -1.2
    env._gives[0, 1] = 1  # one hand lets go
    env._project(places, 1, 0)
    np.testing.assert_allclose(places[0, :, 0], [0, 1])
    np.testing.assert_allclose(places[1, :, 0], [0.25, 1.25])
    env._project(places, 0, 0)
    # Of the left thread, which the hand at the origin holds, only the lower end moves: to 1 m along it.
    np.testing.assert_allclose(places[1, 0], np.array([0.25, 0, -1.2]) / np.hypot(0.25, 1.2))
    right = np.array([0.25, 0, -1.2]) / np.hypot(0.25, 1.2)
    middle = np.array([1.125, 0, -0.6])
    np.testing.assert_allclose(places[:, 1], [middle - right / 2, middle + right / 2])


def test_it_hangs_and_comes_to_rest() -> None:
    env = hanging()
    for _ in range(200):
        env.step(STILL)
    threads = [np.linalg.norm(np.diff(env._places, axis=axis), axis=-1) for axis in (0, 1)]
    np.testing.assert_allclose(np.concatenate([each.ravel() for each in threads]), 0.25, rtol=0.1)
    assert np.abs(env._speeds).max() < 0.05
    hem = env._places[-1, :, 2]
    np.testing.assert_allclose(hem[[0, -1]], 0.5, atol=0.02)
    np.testing.assert_allclose(hem, hem[::-1], atol=0.01)
    assert hem.argmin() == 2, "between the hands it sags"
    np.testing.assert_allclose(env._places[..., 1], 0, atol=1e-9)


def test_it_follows_its_hands_down_to_the_floor() -> None:
    env = hanging()
    before = env._places[0, [0, -1]].copy()
    for _ in range(20):
        env.step(np.array([0.5, 0, -1, 0.5, 0, -2], np.float32))
    np.testing.assert_allclose(env._places[0, [0, -1]], before + np.array([0.5, 0, -1]), atol=1e-9)
    assert env._places[-1, :, 0].mean() > 0.1
    assert env._places[1:, :, 2].min() >= 0
    assert env._places[-1, :, 2].max() < 0.2, "its lower half lies on the floor"


def test_what_is_seen_and_paid_and_that_it_repeats_itself() -> None:
    env, other = hanging(), hanging()
    draws = np.random.default_rng(0).uniform(-1, 1, (20, 6)).astype(np.float32)
    for draw in draws:
        seen, reward, over, cut, info = env.step(draw)
        np.testing.assert_array_equal(other.step(draw)[0], seen)
    target, places = seen[:3], seen[3:78].reshape(5, 5, 3)
    distance = np.linalg.norm(places[-1].mean(0) - target)
    assert (reward, info["distance"]) == (pytest.approx(-distance), pytest.approx(distance))
    assert (over, cut) == (False, False)
    with pytest.raises(ValueError, match="side must be 2 to 32"):
        Cloth(side=1)
    made = gymnasium.make("dlsys/Cloth-v0")
    assert made.spec is not None
    assert made.spec.max_episode_steps == 100
