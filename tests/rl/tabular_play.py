"""What the tests of tabular agents share: environments, and playing with what an agent has learned."""

from __future__ import annotations

import gymnasium
import numpy as np

from dlsys.rl.agent import Agent
from dlsys.rl.tabular.env import MDPEnv
from dlsys.rl.tabular.mdp import MDP, absorb


def frozen_lake(map_name: str = "4x4", slippery: bool = True) -> gymnasium.Env:
    return gymnasium.make("FrozenLake-v1", map_name=map_name, is_slippery=slippery, disable_env_checker=True)


def play(agent: Agent, env: gymnasium.Env, episodes: int, seed: int = 0) -> list[float]:
    """The returns of episodes played greedily."""
    returns = []
    env.reset(seed=seed)
    for _ in range(episodes):
        observation, _ = env.reset()
        total, over = 0.0, False
        while not over:
            (action,) = agent.act(np.array([observation])).tolist()
            observation, reward, terminated, truncated, _ = env.step(action)
            total += float(reward)
            over = terminated or truncated
        returns.append(total)
    env.close()
    return returns


def chain(states: int, quit_reward: float = 0.0, end_reward: float = 0.0, limit: int = 100) -> gymnasium.Env:
    """A line, begun at its left end, with an end on the right that earns `end_reward`.

    With a `quit_reward`, going left from the first state earns it and ends the episode.
    """
    end = states
    transitions = np.zeros((states + 1, 2, states + 1))
    rewards = np.zeros((states + 1, 2))
    for state in range(states):
        transitions[state, 0, max(state - 1, 0)] = 1
        transitions[state, 1, state + 1] = 1
    if quit_reward:
        transitions[0, 0] = np.eye(states + 1)[end]
    rewards[0, 0], rewards[states - 1, 1] = quit_reward, end_reward
    terminal = np.arange(states + 1) == end
    absorb(transitions, rewards, terminal)
    mdp = MDP(
        states=tuple(map(str, range(states + 1))),
        actions=("left", "right"),
        transitions=transitions,
        rewards=rewards,
        terminal=terminal,
        start=np.eye(states + 1)[0],
        gamma=0.99,
    )
    return gymnasium.wrappers.TimeLimit(MDPEnv(mdp), limit)
