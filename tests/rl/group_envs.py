"""Environments of several agents, by each of the interfaces, whose every step is known."""

from __future__ import annotations

from typing import Any

import numpy as np
from gymnasium import spaces
from numpy.typing import NDArray
from pettingzoo import AECEnv, ParallelEnv
from ray.rllib.env.multi_agent_env import MultiAgentEnv

CHOICES = 3


class _Numbers:
    """Shows each agent a number, and pays those who choose it; agent i's part ends after `lives[i]` steps."""

    def __init__(self, lives: tuple[int, ...] = (3, 5, 4), cut: bool = False) -> None:
        self.lives, self.cut = lives, cut
        self.names = [f"walker_{index}" for index in range(len(lives))]
        self.random = np.random.default_rng()

    def begin(self, seed: int | None) -> dict[str, NDArray[Any]]:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.steps, self.going = 0, list(self.names)
        return self.show(self.going)

    def show(self, agents: list[str]) -> dict[str, NDArray[Any]]:
        self.numbers = {agent: int(self.random.integers(CHOICES)) for agent in agents}
        return {agent: np.eye(CHOICES, dtype=np.float32)[number] for agent, number in self.numbers.items()}

    def go(self, actions: dict[str, Any]) -> tuple[dict[str, float], dict[str, bool], dict[str, Any]]:
        assert set(actions) == set(self.going)
        self.steps += 1
        rewards = {agent: float(actions[agent] == self.numbers[agent]) for agent in self.going}
        ended = {
            agent: self.steps == life
            for agent, life in zip(self.names, self.lives, strict=True)
            if agent in self.going
        }
        shown = self.show(self.going)
        self.going = [agent for agent in self.going if not ended[agent]]
        return rewards, ended, shown


class Parallel(ParallelEnv[str, Any, Any]):
    """By PettingZoo's interface for those who act at once."""

    metadata = {"name": "numbers"}  # noqa: RUF012

    def __init__(self, render_mode: str | None = None, **options: Any) -> None:
        self.inner, self.render_mode = _Numbers(**options), render_mode
        self.possible_agents, self.agents = list(self.inner.names), []
        self.sees: spaces.Space[Any] = spaces.Box(0, 1, (CHOICES,), np.float32)
        self.does: dict[str, spaces.Space[Any]] = {
            agent: spaces.Discrete(CHOICES) for agent in self.possible_agents
        }

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.sees

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.does[agent]

    def reset(self, seed: int | None = None, options: Any = None) -> Any:
        seen = self.inner.begin(seed)
        self.agents = list(self.inner.going)
        return seen, {agent: {} for agent in seen}

    def step(self, actions: dict[str, Any]) -> Any:
        rewards, ended, seen = self.inner.go(actions)
        self.agents = list(self.inner.going)
        none = dict.fromkeys(ended, False)
        over, cut = (none, ended) if self.inner.cut else (ended, none)
        return seen, rewards, over, cut, {agent: {} for agent in seen}

    def render(self) -> Any:
        return np.full((16, 16, 3), 40 * self.inner.steps, np.uint8)

    def close(self) -> None:
        """Nothing is open."""


class Library(MultiAgentEnv):
    """The same by RLlib's interface."""

    def __init__(self, **options: Any) -> None:
        super().__init__()
        self.inner = _Numbers(**options)
        self.possible_agents = self.agents = list(self.inner.names)
        self.observation_spaces = {agent: spaces.Box(0, 1, (CHOICES,), np.float32) for agent in self.agents}
        self.action_spaces = {agent: spaces.Discrete(CHOICES) for agent in self.agents}

    def reset(self, *, seed: int | None = None, options: Any = None) -> Any:
        return self.inner.begin(seed), {}

    def step(self, action_dict: dict[str, Any]) -> Any:
        rewards, ended, seen = self.inner.go(action_dict)
        all_of_them = {"__all__": not self.inner.going}
        none = {"__all__": False}
        over, cut = (none, {**ended, **all_of_them}) if self.inner.cut else ({**ended, **all_of_them}, none)
        return seen, rewards, over, cut, {}


class InTurn(AECEnv[str, Any, Any]):
    """Two players count on from each other's numbers, by PettingZoo's interface for those who act in turn.

    Who says the right number gets 1, and the other one loses a half; after `turns` numbers it ends. A mask
    forbids the number that was heard.
    """

    metadata = {"name": "counting"}  # noqa: RUF012

    def __init__(self, turns: int = 7, render_mode: str | None = None) -> None:
        super().__init__()
        self.turns, self.render_mode = turns, render_mode
        self.random = np.random.default_rng()
        self.possible_agents = ["one", "two"]
        heard, mask = spaces.Box(0, 1, (CHOICES,), np.float32), spaces.MultiBinary(CHOICES)
        self.sees = spaces.Dict({"observation": heard, "action_mask": mask})
        self.does = spaces.Discrete(CHOICES)

    def observation_space(self, agent: str) -> spaces.Space[Any]:
        return self.sees

    def action_space(self, agent: str) -> spaces.Space[Any]:
        return self.does

    def reset(self, seed: int | None = None, options: Any = None) -> None:
        if seed is not None:
            self.random = np.random.default_rng(seed)
        self.agents = list(self.possible_agents)
        self.heard, self.said = int(self.random.integers(CHOICES)), 0
        self.rewards = dict.fromkeys(self.agents, 0.0)
        self._cumulative_rewards = dict(self.rewards)
        self.terminations, self.truncations = (dict.fromkeys(self.agents, False) for _ in range(2))
        self.infos: dict[str, dict[str, Any]] = {agent: {} for agent in self.agents}
        self.agent_selection = "one"

    def observe(self, agent: str) -> Any:
        one = np.eye(CHOICES, dtype=np.float32)[self.heard]
        return {"observation": one, "action_mask": (1 - one).astype(np.int8)}

    def step(self, action: Any) -> None:
        agent = self.agent_selection
        if self.terminations[agent]:
            self._was_dead_step(action)
            return
        assert action != self.heard
        other = "two" if agent == "one" else "one"
        right = action == (self.heard + 1) % CHOICES
        self._cumulative_rewards[agent] = 0
        self.rewards = {agent: float(right), other: -0.5 * right}
        self.heard, self.said = int(action), self.said + 1
        self._accumulate_rewards()
        self.agent_selection = other
        if self.said == self.turns:
            self.terminations = dict.fromkeys(self.agents, True)

    def render(self) -> Any:
        return None

    def close(self) -> None:
        """Nothing is open."""


class Unlike(Parallel):
    """The first one chooses among more."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**options)
        self.does["walker_0"] = spaces.Discrete(CHOICES + 1)


class Neither:
    """Of no library."""

    possible_agents = ("a", "b")

    def reset(self) -> None: ...

    def step(self, action: Any) -> None: ...


def quicker(env: Any, lives: int = 1) -> Any:
    """A user's own wrapper around all agents."""
    env.inner.lives = (lives,) * len(env.inner.lives)
    return env
