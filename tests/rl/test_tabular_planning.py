"""Value iteration on V and on Q, on models of real environments."""

from __future__ import annotations

import pickle
from itertools import pairwise

import gymnasium
import numpy as np
import pytest
from tabular_play import frozen_lake, play

from dlsys.errors import CheckpointError, UsageError
from dlsys.rl.agent import Agent, Iteration
from dlsys.rl.tabular.agent import QValueIterationAgent, ValueIterationAgent
from dlsys.rl.tabular.env import MDPEnv
from dlsys.rl.tabular.gridworld import GridWorld
from dlsys.spec.rl.tabular import QValueIteration, ValueIteration


def toy(name: str) -> gymnasium.Env:
    return gymnasium.make(name, disable_env_checker=True)


def on_v(name: str, gamma: float = 0.99, **options: object) -> ValueIterationAgent:
    return ValueIterationAgent(ValueIteration(name="value-iteration", **options), lambda: toy(name), gamma, 0)


def on_q(name: str, gamma: float = 0.99, **options: object) -> QValueIterationAgent:
    section = QValueIteration(name="q-value-iteration", **options)
    return QValueIterationAgent(section, lambda: toy(name), gamma, 0)


def converged(agent: Agent) -> Iteration:
    for _ in range(1000):
        iteration = agent.iterate()
        if iteration.done:
            return iteration
    raise AssertionError("it does not converge")


@pytest.mark.parametrize(("name", "success"), [("FrozenLake-v1", 0.72), ("FrozenLake8x8-v1", 0.84)])
def test_the_policy_crosses_the_slippery_lake(name: str, success: float) -> None:
    agent = on_v(name)
    converged(agent)
    assert np.mean(play(agent, toy(name), 2000)) >= success
    agent.close()


def test_the_shortest_way_along_the_cliff() -> None:
    agent = on_q("CliffWalking-v1")
    converged(agent)
    assert play(agent, toy("CliffWalking-v1"), 1) == [-13]
    agent.close()


def test_the_taxi_brings_its_passengers() -> None:
    agent = on_v("Taxi-v3")
    converged(agent)
    # A drop-off earns 20, and no way is longer than 18 moves.
    returns = play(agent, toy("Taxi-v3"), 100)
    assert min(returns) >= 2
    agent.close()


@pytest.mark.parametrize("gamma", [0.9, 0.99, 1.0])
@pytest.mark.parametrize("name", ["FrozenLake-v1", "FrozenLake8x8-v1", "CliffWalking-v1"])
def test_the_best_of_q_is_v(name: str, gamma: float) -> None:
    # Where residuals shrink by 1 − x a sweep, the rest of the way is a residual / x: so 1e-13, not 1e-10.
    v, q = (make(name, gamma, tolerance=1e-13) for make in (on_v, on_q))
    converged(v)
    converged(q)
    assert np.abs(q.weights()["q"].max(axis=1) - v.weights()["values"]).max() <= 1e-8


def test_residuals_shrink_by_the_discount() -> None:
    agent = on_v("FrozenLake-v1", 0.5, sweeps=1)
    residuals = [agent.iterate().figures["residual"] for _ in range(20)]
    for before, after in pairwise(residuals):
        assert after <= 0.5 * before + 1e-15


def test_done_means_that_another_iteration_changes_nothing() -> None:
    agent = on_v("FrozenLake-v1")
    converged(agent)
    policy, values = agent.weights()["policy"], agent.weights()["values"]
    again = agent.iterate()
    assert again.done
    assert again.steps == 1
    assert (agent.weights()["policy"] == policy).all()
    assert np.abs(agent.weights()["values"] - values).max() <= 1e-10


def test_the_discount_is_the_agent_s_not_the_model_s() -> None:
    grid = GridWorld(("S.G",), step=0, goal=1).to_mdp(1.0)
    agent = ValueIterationAgent(ValueIteration(name="value-iteration"), lambda: MDPEnv(grid), 0.5, 0)
    assert converged(agent).figures["value"] == 0.5


def test_the_figure_of_the_start_is_its_value() -> None:
    agent = on_q("FrozenLake-v1")
    last = converged(agent)
    # Slippery 4x4 with γ = 0.99: 0.542, as published for this map.
    assert last.figures["value"] == pytest.approx(0.542, abs=5e-4)
    assert last.returns == []


def test_mountain_car_on_a_grid_reaches_its_goal() -> None:
    agent = on_v("MountainCar-v0", bins=30)
    converged(agent)
    returns = play(agent, toy("MountainCar-v0"), 20)
    assert min(returns) > -200  # at −200 the time limit ended the episode
    weights = agent.weights()
    assert weights["policy"].shape == (901,)
    assert len(weights["axis_0"]) == len(weights["axis_1"]) == 30
    agent.close()


@pytest.mark.parametrize("make", [on_v, on_q])
def test_an_agent_goes_on_from_its_state_exactly(make: type) -> None:
    whole, first = make("FrozenLake-v1", sweeps=7), make("FrozenLake-v1", sweeps=7)
    for _ in range(3):
        whole.iterate()
        first.iterate()
    second = make("FrozenLake-v1", sweeps=7)
    second.load(pickle.loads(pickle.dumps(first.state())))
    assert second.act(np.arange(16)).tolist() == first.act(np.arange(16)).tolist() != [0] * 16
    first.iterate()  # what goes on does not change the state that was taken
    for _ in range(5):
        assert whole.iterate().figures == second.iterate().figures
    for name, value in whole.weights().items():
        assert value.tobytes() == second.weights()[name].tobytes()


def test_a_state_of_another_environment_is_refused() -> None:
    with pytest.raises(CheckpointError, match=r"shape \(64,\), but this environment needs \(16,\)"):
        on_v("FrozenLake-v1").load(on_v("FrozenLake8x8-v1").state())


def test_planning_needs_a_model() -> None:
    with pytest.raises(UsageError, match="Blackjack-v1: has no table of transitions"):
        on_v("Blackjack-v1")


def test_actions_come_for_whole_batches() -> None:
    agent = ValueIterationAgent(
        ValueIteration(name="value-iteration"), lambda: frozen_lake(slippery=False), 0.99, 0
    )
    converged(agent)
    policy = agent.weights()["policy"]
    assert agent.act(np.arange(16)).tolist() == policy.tolist()
    assert agent.act(np.array([14])).tolist() == [2]
