"""What agents minimize and aim at, against tables that were worked by hand with these few numbers."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from math import log
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
import pytest
import torch
from gymnasium import spaces
from rl_models import job
from scripted import SwingUp
from torch import Tensor

from dlsys.rl.algorithms.dqn import DQNAgent, projected
from dlsys.rl.algorithms.iql import IQLAgent
from dlsys.rl.algorithms.reinforce import REINFORCEAgent
from dlsys.rl.algorithms.sac import SACAgent
from dlsys.rl.critics import Steps
from dlsys.rl.episodes import record
from dlsys.rl.observations import NUMBERS
from dlsys.rl.on_policy import Rows, advantages
from dlsys.rl.replay import Transitions
from dlsys.rl.sampler import Rollout
from dlsys.spec.rl.job import Environment


class Three(gymnasium.Env[Any, Any]):
    """Three states, of which networks see one-hot vectors, and two actions. Nobody steps it."""

    observation_space = spaces.Discrete(3)
    action_space = spaces.Discrete(2)

    def reset(self, *, seed: int | None = None, options: Any = None) -> tuple[int, dict[str, Any]]:
        return 0, {}


@contextmanager
def tabled(name: str, **options: Any) -> Iterator[Any]:
    """An agent in these states; its layer of three passes on which state it is."""
    kind = {"dqn": DQNAgent, "sac": SACAgent, "reinforce": REINFORCEAgent}[name]
    agent: Any = kind(job({"name": name, "hidden": [3], "gamma": 0.5, **options}, "test_worked_tables:Three"))
    yield agent
    agent.close()


@torch.no_grad()
def set_table(network: Any, table: list[list[Any]]) -> None:
    """What a DQN's network says of each state's actions: [3, 2], or of their atoms, [3, 2, atoms]."""
    network.body[0].weight.copy_(torch.eye(3))
    network.body[0].bias.zero_()
    network.advantage.weight.copy_(torch.tensor(table, dtype=torch.float32).flatten(1).T)
    network.advantage.bias.zero_()


def steps(*rows: tuple[int, int, float, int, bool, float]) -> Transitions:
    """Of (state, action, reward, next state, whether it terminated, weight)."""
    states, actions, rewards, following, terminated, weights = map(np.array, zip(*rows, strict=True))
    one_hot = np.eye(3, dtype=np.float32)
    return Transitions(
        rows=np.arange(len(rows)),
        seen={NUMBERS: one_hot[states]},
        actions=actions,
        rewards=rewards.astype(np.float32),
        following={NUMBERS: one_hot[following]},
        terminated=terminated,
        steps=np.ones(len(rows), np.float32),
        weights=weights.astype(np.float32),
    )


def updated(agent: Any, drawn: Transitions) -> dict[str, float]:
    """The figures of an update from these steps."""
    agent.replay.sample = lambda count: drawn
    return {name: float(value) for name, value in agent.update().items()}


ONLINE, TARGET = [[1, 2], [0.5, -1], [3, 5]], [[0, 0], [1, 6], [4, 2]]
STEPS = ((0, 1, 1.0, 1, False, 1.0), (1, 0, 0.0, 2, True, 1.0), (2, 0, 1.0, 2, False, 0.5))
# The temporal differences, target minus value:
#   0: 1 + 0.5 · max(1, 6) - 2 = 2            double: online takes action 0: 1 + 0.5 · 1 - 2 = -0.5
#   1: 0 - 0.5 = -0.5                          likewise, for it terminated
#   2: 1 + 0.5 · max(4, 2) - 3 = 0             double: online takes action 1: 1 + 0.5 · 2 - 3 = -1
# Huber: 2 -> 2 - 0.5 = 1.5; 0.5 -> 0.125; 1 -> 0.5. The third step's weight is a half.
DIFFERENCES = {
    False: ((2 + 0.5 + 0) / 3, (1.5 + 0.125) / 3),
    True: ((0.5 + 0.5 + 1) / 3, (0.125 + 0.125 + 0.5 * 0.5) / 3),
}


@pytest.mark.parametrize("double", [False, True])
def test_temporal_differences_single_and_double(double: bool) -> None:
    with tabled("dqn", double=double) as agent:
        set_table(agent.network, ONLINE)
        set_table(agent.parts["target"], TARGET)
        found = updated(agent, steps(*STEPS))
        error, loss = DIFFERENCES[double]
        assert found["td_error"] == pytest.approx(error)
        assert found["loss"] == pytest.approx(loss)
        assert found["q"] == pytest.approx((2 + 0.5 + 3) / 3)


ATOMS = torch.tensor([-1.0, 0.0, 1.0])


@pytest.mark.parametrize(
    ("reward", "going", "expected"),
    [
        (0.5, 0.5, [0, 0.5, 0.5]),  # -1, 0, 1 go to 0, 0.5, 1: a half of the middle one's 0.5 to each side
        (2.0, 1.0, [0, 0, 1]),  # all beyond the last atom
        (-0.25, 0.0, [0.25, 0.75, 0]),  # one point, a quarter of the way from 0 to -1
        (0.0, 1.0, [0.25, 0.5, 0.25]),
    ],
)
def test_distributions_are_projected(reward: float, going: float, expected: list[float]) -> None:
    found = projected(torch.tensor([[0.25, 0.5, 0.25]]), reward + going * ATOMS[None], ATOMS)
    torch.testing.assert_close(found, torch.tensor([expected], dtype=torch.float32))


def test_the_loss_of_a_distribution_is_its_cross_entropy() -> None:
    with tabled("dqn", atoms=3, v_min=-1, v_max=1) as agent:
        mine = [log(0.2), log(0.3), log(0.5)]
        set_table(agent.network, [[mine, [0, 0, 0]], [[0] * 3] * 2, [[0] * 3] * 2])
        # The means of the next state's two actions are 0.5 · 1 - 0.25 and 0: the first is taken.
        later = [[log(0.25), log(0.25), log(0.5)], [0, 0, 0]]
        set_table(agent.parts["target"], [[[0] * 3] * 2, later, [[0] * 3] * 2])
        found = updated(agent, steps((0, 0, 0.5, 1, False, 1.0)))
        # -1, 0, 1 with 0.25, 0.25, 0.5 go to 0, 0.5, 1: shares of 0, 0.375 and 0.625.
        assert found["loss"] == pytest.approx(-0.375 * log(0.3) - 0.625 * log(0.5), rel=1e-5)
        assert found["q"] == pytest.approx(0.5 - 0.2)


def rollout(*, terminated: bool) -> Rollout:
    """Three steps of one environment that pay 1, 2 and 4, after which the episode ends."""
    end = np.array([[False], [False], [True]])
    return Rollout(
        seen={NUMBERS: np.eye(3, dtype=np.float32)[[0, 1, 2, 0]][:, None]},
        actions=np.array([[0], [1], [0]]),
        rewards=np.array([[1], [2], [4]], np.float32),
        terminated=end & terminated,
        truncated=end & (not terminated),
        first=np.array([[True], [False], [False], [True]]),
        finals={NUMBERS: np.eye(3, dtype=np.float32)[[1]]},
        ends=np.array([[2], [0]]),
        final_memories=np.zeros((1, 0), np.float32),
        memories=np.zeros((4, 1, 0), np.float32),
        told={"value": np.zeros((3, 1), np.float32), "logp": np.zeros((3, 1), np.float32)},
    )


@pytest.mark.parametrize(
    ("n_step", "rewards", "going"),
    [
        (1, [1, 2, 4], [0.5, 0.5, 0]),
        (2, [1 + 0.5 * 2, 2 + 0.5 * 4, 4], [0.25, 0, 0]),
        (3, [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4], [0, 0, 0]),
    ],
)
def test_rewards_of_n_steps_are_added_up(n_step: int, rewards: list[float], going: list[float]) -> None:
    with tabled("dqn", n_step=n_step) as agent:
        agent.replay.add(rollout(terminated=True))
        drawn, columns = agent.drawn()
        found = {
            int(row): (float(reward), float(later))
            for row, reward, later in zip(drawn.rows, columns["rewards"], columns["going"], strict=True)
        }
        assert [found[row] for row in sorted(found)] == list(zip(rewards, going, strict=True))


@pytest.mark.parametrize(
    ("terminated", "expected"),
    [
        # One-step errors 1 + 0.5 · 2 - 1 = 1, 2 + 0.5 · 3 - 2 = 1.5, and 4 - 3 or 4 + 0.5 · 5 - 3;
        # each advantage is its own and 0.5 · 0.5 of the next.
        (True, [1 + 0.25 * 1.75, 1.5 + 0.25 * 1, 1]),
        (False, [1 + 0.25 * 2.375, 1.5 + 0.25 * 3.5, 3.5]),
    ],
)
def test_generalized_advantages(terminated: bool, expected: list[float]) -> None:
    done, values = rollout(terminated=terminated), np.array([[1], [2], [3], [9]], np.float32)
    found = advantages(done, done.rewards, values, np.array([5], np.float32), 0.5, 0.5)
    np.testing.assert_allclose(found[:, 0], expected)


def test_the_policy_gradients_loss_and_its_returns() -> None:
    with tabled("reinforce", baseline=False) as agent:
        batch = agent.batch(rollout(terminated=True))
        assert batch.returns[:, 0].tolist() == [1 + 0.5 * 2 + 0.25 * 4, 2 + 0.5 * 4, 4]
        with torch.no_grad():
            agent.network.policy.weight.zero_()
            agent.network.policy.bias.copy_(torch.tensor([log(3.0), 0.0]))  # chances of 3/4 and 1/4
        rows: Rows = batch.flat()
        loss, entropy = agent.policy_loss(rows)
        # Actions 0, 1 and 0 with the returns 3, 4 and 4.
        assert float(loss.detach()) == pytest.approx(-(3 * log(0.75) + 4 * log(0.25) + 4 * log(0.75)) / 3)
        assert float(entropy.detach()) == pytest.approx(-0.75 * log(0.75) - 0.25 * log(0.25))


@torch.no_grad()
def set_values(layers: Any, table: list[list[float]]) -> None:
    """What each of E stacked networks says of whatever it sees, [E, outputs]."""
    layers[-1].weight.zero_()
    layers[-1].bias.copy_(torch.tensor(table)[:, None])


def test_soft_values() -> None:
    with tabled("sac", temperature=0.5) as agent:
        learner = agent.learner
        set_values(agent.network.layers, [[0.0, 0.0]])
        set_values(learner.critics.targets, [[1, 5], [4, 3]])  # the lower ones are 1 and 3
        set_values(learner.critics.networks, [[2, 0], [3, 0]])
        found = updated(agent, steps((0, 0, 1.0, 1, False, 1.0)))
        # Half of 1 and half of 3, and 0.5 for each nat of the entropy log 2.
        goal = 1 + 0.5 * (2 + 0.5 * log(2))
        assert found["value_loss"] == pytest.approx(((2 - goal) ** 2 + (3 - goal) ** 2) / 2, rel=1e-5)
        assert found["td_error"] == pytest.approx((abs(2 - goal) + abs(3 - goal)) / 2, rel=1e-5)
        # The policy's loss: temperature times log chance, minus the lower value of each action.
        assert found["policy_loss"] == pytest.approx(-0.5 * log(2) - (2 + 0) / 2, abs=0.02)


@pytest.mark.parametrize(("worth", "expected"), [(3.0, 0.8 * 4), (-1.0, 0.2 * 4)])
def test_expectiles(worth: float, expected: float, tmp_path: Path) -> None:
    """IQL's value of 1 lies 2 below or above what the action is worth; values of actions aim at 1.4."""
    episodes = tmp_path / "episodes.parquet"
    record(SwingUp(), Environment(name="Pendulum-v1", max_steps=10), 1, 0, episodes, 0.0)
    told = {"name": "iql", "hidden": [3], "expectile": 0.8, "episodes": str(episodes)}
    agent: Any = IQLAgent(job(told, "Pendulum-v1"))
    with torch.no_grad():
        agent.network.value.weight.zero_()
        agent.network.value.bias.fill_(1.0)
    set_values(agent.critics.targets, [[worth], [worth + 1]])
    set_values(agent.critics.networks, [[1.0], [2.0]])
    seen: dict[str, Tensor] = {NUMBERS: torch.ones(2, 3)}
    both = torch.ones(2)
    drawn = Steps(seen, torch.zeros(2, 1), 0.5 * both, 0.9 * both, seen, both)
    found = agent.update(drawn, both)
    assert float(found["value_loss"]) == pytest.approx(expected)
    assert float(found["q_loss"]) == pytest.approx((1 - 1.4) ** 2 + (2 - 1.4) ** 2, rel=1e-5)
    agent.close()
