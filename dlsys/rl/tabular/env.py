"""A gymnasium environment of any finite MDP."""

from __future__ import annotations

from bisect import bisect
from itertools import accumulate
from typing import Any

import gymnasium
import numpy as np

from dlsys.rl.tabular.gridworld import read_gridworld
from dlsys.rl.tabular.mdp import MDP
from dlsys.rl.tabular.mdp_file import from_file


class MDPEnv(gymnasium.Env[int, int]):
    """Draws what happens from the tables of an MDP. Observations and actions are its indices.

    An episode ends in a terminal state only: where there may be none, wrap it in
    `gymnasium.wrappers.TimeLimit`.

    Attributes:
        mdp: the model, for agents that plan.
    """

    def __init__(self, mdp: MDP) -> None:
        self.mdp = mdp
        self.observation_space = gymnasium.spaces.Discrete(len(mdp.states))
        self.action_space = gymnasium.spaces.Discrete(len(mdp.actions))
        # Plain lists: a step looks up single values, which costs ten times more from an array.
        self._terminal = mdp.terminal.tolist()
        self._start = _drawable(mdp.start)
        self._outcomes = [[_drawable(row) for row in rows] for rows in mdp.transitions]
        self._rewards = mdp.rewards.tolist()
        self._rewards_by_target = mdp.rewards.ndim == 3
        self._state = 0

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[int, dict[str, Any]]:
        super().reset(seed=seed)
        self._state = self._draw(self._start)
        return self._state, {}

    def step(self, action: int) -> tuple[int, float, bool, bool, dict[str, Any]]:
        reward = self._rewards[self._state][action]
        self._state = self._draw(self._outcomes[self._state][action])
        if self._rewards_by_target:
            reward = reward[self._state]
        return self._state, reward, self._terminal[self._state], False, {}

    def _draw(self, outcomes: tuple[list[int], list[float]]) -> int:
        targets, cumulative = outcomes
        if len(targets) == 1:
            return targets[0]
        # The last sum may be a rounding error below 1.
        return targets[min(bisect(cumulative, self.np_random.random()), len(targets) - 1)]


def _drawable(probabilities: np.ndarray) -> tuple[list[int], list[float]]:
    """The outcomes that can happen, and the running sums of their probabilities."""
    targets = np.flatnonzero(probabilities)
    return targets.tolist(), list(accumulate(probabilities[targets].tolist()))


def gridworld_env(path: str) -> MDPEnv:
    """The environment of a grid world's file: an entry point for `gymnasium.make`."""
    return MDPEnv(read_gridworld(path).to_mdp())


def file_env(path: str) -> MDPEnv:
    """The environment of an MDP file: an entry point for `gymnasium.make`."""
    return MDPEnv(from_file(path))
