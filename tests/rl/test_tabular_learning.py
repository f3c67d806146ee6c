"""TD(0) and Q-learning: what they learn, how they explore, and that they go on exactly."""

from __future__ import annotations

import json
import pickle

import gymnasium
import numpy as np
import pytest
from tabular_play import chain, frozen_lake, play

from dlsys.errors import CheckpointError, UsageError
from dlsys.rl.tabular.agent import QLearningAgent, TDLearningAgent
from dlsys.rl.tabular.env import MDPEnv
from dlsys.rl.tabular.gridworld import GridWorld
from dlsys.rl.tabular.td_learning import random_walk
from dlsys.spec.rl.tabular import QLearning, TDLearning


def on_lake(seed: int = 0, **options: object) -> QLearningAgent:
    return QLearningAgent(QLearning(name="q-learning", **options), frozen_lake, 0.99, seed)


@pytest.mark.parametrize("seed", range(3))
@pytest.mark.parametrize(("states", "left", "lr"), [(5, 0.0, 0.1), (19, -1.0, 0.5)])
def test_td_learns_the_values_of_the_random_walk(states: int, left: float, lr: float, seed: int) -> None:
    section = TDLearning(name="td-learning", lr=lr, lr_decay=0.02, episodes=3000)
    agent = TDLearningAgent(section, lambda: MDPEnv(random_walk(states, left)), 1.0, seed)
    iteration = agent.iterate()
    found = agent.weights()["values"][:states]
    true = left + (1 - left) * np.arange(1, states + 1) / (states + 1)
    assert np.sqrt(np.mean((found - true) ** 2)) < 0.05
    assert len(iteration.returns) == 3000
    assert set(iteration.returns) == {left, 1.0}
    assert iteration.steps == sum(iteration.lengths)


def test_td_acts_as_the_policy_that_it_values() -> None:
    section = TDLearning(name="td-learning")
    agent = TDLearningAgent(section, lambda: MDPEnv(random_walk(5)), 1.0, 0)
    actions = agent.act(np.zeros(10_000, dtype=np.int64))
    assert (agent.act(np.zeros(10_000, dtype=np.int64)) != actions).any()
    assert abs(actions.mean() - 0.5) < 5 * 0.5 / 100


LONG = [pytest.mark.slow, pytest.mark.quality]


@pytest.mark.parametrize(
    ("initial", "episodes"),
    [
        pytest.param(0.0, 10_000, id="zeros"),
        # 6 seconds each.
        pytest.param(0.0, 50_000, id="zeros, long", marks=LONG),
        pytest.param(5.0, 50_000, id="wrong, long", marks=LONG),
    ],
)
def test_q_learning_crosses_the_slippery_lake(initial: float, episodes: int) -> None:
    """No return is above 1, so a Q of 5 is wrong everywhere."""
    agent = on_lake(initial=initial, episodes=episodes, epsilon_episodes=episodes)
    agent.iterate()
    assert np.mean(play(agent, frozen_lake(), 2000)) >= 0.70
    # V* of the start is 0.542.
    assert agent.weights()["q"][0].max() == pytest.approx(0.542, abs=0.03)
    agent.close()


def test_a_time_limit_is_no_end() -> None:
    """The last state before a limit is worth what may come after it; else the chain's start were worth 0."""
    section = QLearning(name="q-learning", lr=0.5, lr_decay=0, epsilon_end=1.0, episodes=2000)
    agent = QLearningAgent(section, lambda: OneStep(3), 0.9, 0)
    agent.iterate()
    assert agent.weights()["q"][0, 1] == pytest.approx(0.9**3, abs=0.01)


class OneStep(gymnasium.Wrapper):
    """A chain of 4 that begins anywhere and always ends after one step, by a limit."""

    def __init__(self, last: int) -> None:
        super().__init__(chain(last + 1, end_reward=1.0, limit=1))

    def reset(self, **kwargs: object) -> tuple[int, dict[str, object]]:
        super().reset(**kwargs)
        inner = self.env.unwrapped
        inner._state = int(inner.np_random.integers(4))
        return inner._state, {}


def test_greed_alone_is_deceived_and_epsilon_is_not() -> None:
    """Leaving at once earns 0.1, three steps to the right earn 1."""
    found = {}
    for epsilon in (0.0, 0.1):
        section = QLearning(
            name="q-learning", lr=0.5, epsilon_start=epsilon, epsilon_end=epsilon, episodes=20_000
        )
        found[epsilon] = 0
        for seed in range(10):
            agent = QLearningAgent(section, lambda: chain(3, 0.1, 1.0), 0.99, seed)
            agent.iterate()
            found[epsilon] += play(agent, chain(3, 0.1, 1.0), 1) == [1.0]
    assert found[0.0] == 0
    assert found[0.1] >= 8


def episodes_to_visit(states: int, limit: int, seed: int, **options: object) -> int:
    """Episodes of 100 steps until every state of a chain was acted in; `limit` + 1 if more."""
    section = QLearning(name="q-learning", episodes=1, **options)
    agent = QLearningAgent(section, lambda: chain(states), 0.99, seed)
    for episode in range(limit):
        agent.iterate()
        if agent.state()["visits"][:states].any(axis=1).all():
            return episode + 1
    return limit + 1


@pytest.mark.parametrize("seed", range(3))
def test_the_exploration_function_sees_all_states_far_sooner(seed: int) -> None:
    needed = episodes_to_visit(50, 100, seed, exploration="function")
    assert needed <= 100
    limit = 4 * needed + 1
    assert episodes_to_visit(50, limit, seed, epsilon_start=0.1, epsilon_end=0.1) > limit
    assert episodes_to_visit(50, limit, seed, epsilon_start=1.0, epsilon_end=1.0) > limit


def test_the_exploration_function_s_first_update_is_the_one_done_by_hand() -> None:
    section = QLearning(name="q-learning", exploration="function", kappa=2, lr=0.5, lr_decay=0, episodes=1)
    agent = QLearningAgent(section, lambda: chain(2, limit=1), 0.9, 0)
    agent.iterate()
    # Half the way from 0 to 0 + 0.9·(0 + 2/(1 + 0)), in the one action that was taken.
    assert sorted(agent.weights()["q"][0].tolist()) == pytest.approx([0, 0.9])
    assert agent.state()["visits"][0].sum() == 1


def test_epsilon_falls_in_a_straight_line_and_stays() -> None:
    agent = on_lake(epsilon_start=0.9, epsilon_end=0.1, epsilon_episodes=100, episodes=26)
    found = [agent.iterate().figures["epsilon"] for _ in range(5)]
    assert found == pytest.approx([0.7, 0.492, 0.284, 0.1, 0.1])


def test_the_rate_falls_with_visits() -> None:
    """With lr 1 and lr_decay 1, an estimate is the mean of its targets."""
    section = TDLearning(name="td-learning", lr=1.0, lr_decay=1.0, episodes=500)
    agent = TDLearningAgent(section, lambda: MDPEnv(random_walk(1)), 1.0, 0)
    iteration = agent.iterate()
    assert agent.weights()["values"][0] == pytest.approx(np.mean(iteration.returns))


def test_the_rate_of_an_action_falls_with_its_visits() -> None:
    """A move down from the start slips to the goal or the hole, half the time each."""
    grid = GridWorld(("GSH",), slip=1.0, step=0)
    section = QLearning(name="q-learning", lr=1.0, lr_decay=1.0, epsilon_end=1.0, episodes=500)
    agent = QLearningAgent(section, lambda: MDPEnv(grid.to_mdp()), 1.0, 0)
    iteration = agent.iterate()
    visits, q = agent.state()["visits"][1], agent.weights()["q"][1]
    # Moves to the left and right never move, and are worth the best of the others.
    total = q[1] * visits[1] + q[3] * visits[3]
    assert total == pytest.approx(sum(iteration.returns))


@pytest.mark.parametrize("exploration", ["epsilon-greedy", "function"])
def test_q_learning_goes_on_from_its_state_exactly(exploration: str) -> None:
    options = {"exploration": exploration, "episodes": 50, "epsilon_episodes": 200}
    whole, first, second = (on_lake(7, **options) for _ in range(3))
    for _ in range(3):
        whole.iterate()
        first.iterate()
    saved = pickle.dumps(first.state())
    first.iterate()
    second.load(pickle.loads(saved))
    for _ in range(3):
        a, b = whole.iterate(), second.iterate()
        assert (a.returns, a.lengths, a.figures) == (b.returns, b.lengths, b.figures)
    assert whole.state()["q"].tobytes() == second.state()["q"].tobytes()
    assert on_lake(8, **options).iterate().lengths != on_lake(7, **options).iterate().lengths


def test_td_goes_on_from_its_state_exactly() -> None:
    section = TDLearning(name="td-learning", episodes=50)

    def make() -> TDLearningAgent:
        return TDLearningAgent(section, lambda: MDPEnv(random_walk(5)), 1.0, 3)

    whole, first, second = make(), make(), make()
    for agent in (whole, first):
        agent.iterate()
        agent.act(np.zeros(4))
    second.load(pickle.loads(pickle.dumps(first.state())))
    assert whole.iterate().returns == second.iterate().returns
    assert whole.act(np.zeros(64)).tolist() == second.act(np.zeros(64)).tolist()
    assert whole.weights()["values"].tobytes() == second.weights()["values"].tobytes()
    plain = {key: value for key, value in whole.state().items() if not isinstance(value, np.ndarray)}
    assert json.loads(json.dumps(plain)) == plain


def test_a_state_of_another_environment_is_refused() -> None:
    section = QLearning(name="q-learning")
    other = QLearningAgent(section, lambda: chain(3), 0.99, 0)
    with pytest.raises(CheckpointError, match=r"shape \(4, 2\), but this environment needs \(16, 4\)"):
        on_lake().load(other.state())


def test_a_table_needs_discrete_observations_and_actions() -> None:
    section = QLearning(name="q-learning")
    with pytest.raises(
        UsageError, match="MountainCar-v0: q-learning keeps a table, so the observation space"
    ):
        QLearningAgent(section, lambda: gymnasium.make("MountainCar-v0"), 0.99, 0)
