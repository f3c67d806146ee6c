"""Finite MDPs: what is refused, and where they come from."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import gymnasium
import numpy as np
import pytest
from gymnasium.utils.env_checker import check_env

from dlsys.errors import SpecError, UsageError
from dlsys.rl.tabular.discretise import Grid, discretise
from dlsys.rl.tabular.env import MDPEnv, file_env
from dlsys.rl.tabular.mdp import from_gym
from dlsys.rl.tabular.mdp_file import from_file
from dlsys.rl.tabular.td_learning import random_walk
from dlsys.rl.tabular.value_iteration import backup, sweep

RACE = """\
gamma: 0.9
states: [cool, warm, broken]
actions: [slow, fast]
terminal: [broken]
start: cool
transitions:
  - [cool, slow, cool, 1, 1]
  - [cool, fast, cool, 0.5, 2]
  - [cool, fast, warm, 0.5, 2]
  - [warm, slow, cool, 0.5, 1]
  - [warm, slow, warm, 0.5, 1]
  - [warm, fast, broken, 1, -10]
"""


@pytest.fixture
def race(tmp_path: Path) -> Path:
    path = tmp_path / "race.yaml"
    path.write_text(RACE)
    return path


def test_a_file_becomes_the_tables_it_says(race: Path) -> None:
    mdp = from_file(race)
    assert mdp.gamma == 0.9
    assert mdp.transitions[0].tolist() == [[1, 0, 0], [0.5, 0.5, 0]]
    assert mdp.expected_rewards.tolist() == [[1, 2], [1, -10], [0, 0]]
    assert mdp.terminal.tolist() == [False, False, True]
    assert mdp.start.tolist() == [1, 0, 0]


def test_its_first_sweeps_are_those_done_by_hand(race: Path) -> None:
    mdp = replace(from_file(race), gamma=1.0)
    once = sweep(mdp, np.zeros(3))
    assert once.tolist() == [2, 1, 0]
    assert sweep(mdp, once).tolist() == [3.5, 2.5, 0]


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        (
            "[cool, fast, warm, 0.5, 2]",
            "[cool, fast, warm, 0.4, 2]",
            ":9: transitions[2]: the probabilities of",
        ),
        (
            "[cool, fast, warm, 0.5, 2]",
            "[cool, fast, wram, 0.5, 2]",
            ":9: transitions[2][2]: unknown state 'wram'",
        ),
        ("[warm, fast, broken, 1, -10]", "[warm, fats, broken, 1, -10]", "Did you mean 'fast'?"),
        ("[cool, slow, cool, 1, 1]", "[cool, slow, cool, 1.5, 1]", ":7: transitions[0][3]: must be a number"),
        ("[cool, slow, cool, 1, 1]", "[broken, slow, cool, 1, 1]", "state 'broken' is terminal"),
        ("  - [cool, slow, cool, 1, 1]\n", "", ":6: transitions: action 'slow' in state 'cool' has no row"),
        (
            "[cool, fast, warm, 0.5, 2]",
            "[cool, fast, cool, 0.5, 2]",
            "a second row for action 'fast' from state 'cool'",
        ),
        ("gamma: 0.9", "gama: 0.9", ":1: gama: unknown key. Did you mean 'gamma'?"),
        ("gamma: 0.9", "gamma: 1.1", ":1: gamma: must be a number of at least 0 and of at most 1"),
        ("start: cool", "start: {cool: 0.5, warm: 0.4}", ":5: start: the probabilities must sum to 1"),
        ("start: cool", "start: cold", ":5: start: unknown state 'cold'. Did you mean 'cool'?"),
        ("[slow, fast]", "[slow, fast, slow]", ":3: actions[2]: 'slow' stands twice"),
        ("terminal: [broken]", "terminal: [brokn]", ":4: terminal[0]: unknown state 'brokn'."),
    ],
)
def test_a_wrong_file_is_refused_with_its_line(race: Path, old: str, new: str, expected: str) -> None:
    assert old in RACE
    race.write_text(RACE.replace(old, new))
    with pytest.raises(SpecError) as caught:
        from_file(race)
    assert expected in str(caught.value)


def test_all_problems_of_a_file_are_told_at_once(race: Path) -> None:
    race.write_text(
        RACE.replace("1, -10]", "0.9, -10]").replace(
            "[warm, slow, warm, 0.5, 1]", "[warm, slow, warm, 0.6, 1]"
        )
    )
    with pytest.raises(SpecError) as caught:
        from_file(race)
    assert [problem.line for problem in caught.value.problems] == [11, 12]


def test_a_missing_file_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="cannot be read: No such file"):
        from_file(tmp_path / "none.yaml")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"gamma": 1.5}, "gamma must be from 0 to 1, but got 1.5"),
        ({"start": np.array([0.5, 0.4, 0])}, "start must be probabilities that sum to 1"),
        ({"actions": ("slow",)}, r"transitions must be of shape \(3, 1, 3\), but got \(3, 2, 3\)"),
        ({"states": ("cool", "cool", "broken")}, "states must be different names"),
        (
            {"terminal": np.array([False, True, True])},
            "action 'slow' in state 'warm' leaves a terminal state",
        ),
    ],
)
def test_a_wrong_mdp_is_refused(race: Path, change: dict[str, object], expected: str) -> None:
    with pytest.raises(UsageError, match=expected):
        replace(from_file(race), **change)


@pytest.mark.parametrize("error", [2e-9, -2e-9, np.nan])
def test_a_row_that_does_not_sum_to_one_is_named(race: Path, error: float) -> None:
    mdp = from_file(race)
    transitions = mdp.transitions.copy()
    transitions[1, 0, 1] += error
    with pytest.raises(UsageError, match="action 'slow' in state 'warm' has"):
        replace(mdp, transitions=transitions)


def test_a_negative_probability_and_an_endless_reward_are_named(race: Path) -> None:
    mdp = from_file(race)
    transitions, rewards = mdp.transitions.copy(), mdp.rewards.copy()
    transitions[0, 1] = [1.5, -0.5, 0]
    with pytest.raises(UsageError, match="action 'fast' in state 'cool' has a negative"):
        replace(mdp, transitions=transitions)
    rewards[1, 1, 2] = np.inf
    with pytest.raises(UsageError, match="action 'fast' in state 'warm' has no finite reward"):
        replace(mdp, rewards=rewards)


@pytest.mark.parametrize(
    ("name", "terminal"),
    [("FrozenLake-v1", [5, 7, 11, 12, 15]), ("CliffWalking-v1", [47]), ("Taxi-v3", [0, 85, 410, 475])],
)
def test_a_toy_text_table_becomes_an_mdp(name: str, terminal: list[int]) -> None:
    env = gymnasium.make(name)
    mdp = from_gym(env, 0.99)
    env.close()
    assert np.flatnonzero(mdp.terminal).tolist() == terminal
    assert np.abs(mdp.transitions.sum(axis=2) - 1).max() <= 1e-9


def test_an_environment_without_a_table_is_refused() -> None:
    env = gymnasium.make("Blackjack-v1")
    with pytest.raises(UsageError, match="Blackjack-v1: has no table of transitions"):
        from_gym(env, 0.9)
    env.close()


def test_the_environment_of_an_mdp_obeys_gymnasium_and_draws_by_its_tables(race: Path) -> None:
    env = file_env(str(race))
    check_env(env, skip_render_check=True)
    env.reset(seed=0)
    counts = np.zeros(2)
    for _ in range(4000):
        env.reset()
        state, reward, terminated, truncated, _ = env.step(1)
        assert (reward, terminated, truncated) == (2, False, False)
        counts[state] += 1
    # Five standard deviations of a fair coin.
    assert abs(counts[0] - 2000) < 5 * np.sqrt(1000)


def test_an_episode_ends_in_a_terminal_state_with_its_reward() -> None:
    env = MDPEnv(random_walk(3, left=-1))
    env.reset(seed=0)
    assert env.step(0)[:3] == (0, 0, False)
    assert env.step(0)[:3] == (3, -1, True)


def test_interpolation_is_exact_for_a_plane_and_takes_the_border_outside() -> None:
    grid = Grid((np.array([0.0, 1.0, 3.0]), np.array([-1.0, 1.0])))
    values = grid.points() @ np.array([2.0, -3.0])
    places = np.array([[0.25, 0.5], [2.9, -1.0], [3.0, 1.0], [9.0, -9.0]])
    points, weights = grid.corners(places)
    assert points.shape == weights.shape == (4, 4)
    assert weights.min() >= 0
    np.testing.assert_allclose(weights.sum(axis=1), 1)
    inside = np.clip(places, [0, -1], [3, 1])
    np.testing.assert_allclose((values[points] * weights).sum(axis=1), inside @ np.array([2.0, -3.0]))


def test_a_grid_keeps_the_dynamics() -> None:
    env = gymnasium.make("MountainCar-v0")
    mdp, grid = discretise(env, 12, 0.99)
    env.close()
    assert len(mdp.states) == 12 * 12 + 1
    assert (mdp.rewards[:-1] == -1).all()
    # In the valley, at rest: no push leaves it there, and the mean of where it leads is where it goes.
    state = int(np.abs(grid.points() - [-0.5, 0]).sum(axis=1).argmin())
    position, velocity = grid.points()[state]
    moved = velocity - 0.0025 * np.cos(3 * position)
    mean = mdp.transitions[state, 1, :-1] @ grid.points()
    np.testing.assert_allclose(mean, [position + moved, moved], atol=1e-6)
    assert backup(mdp, np.zeros(len(mdp.states)))[-1].tolist() == [0, 0, 0]


@pytest.mark.parametrize(
    ("name", "bins", "expected"),
    [
        ("CartPole-v1", 10, "CartPole-v1: cannot be put on a grid"),
        ("Acrobot-v1", 4, "Acrobot-v1: cannot be put on a grid"),
        ("Pendulum-v1", 10, "Pendulum-v1: cannot be put on a grid"),
        ("MountainCar-v0", 200, "the limit is 2 GiB"),
    ],
)
def test_what_fits_no_grid_is_refused(name: str, bins: int, expected: str) -> None:
    env = gymnasium.make(name)
    with pytest.raises(UsageError, match=expected):
        discretise(env, bins, 0.99)
    env.close()
