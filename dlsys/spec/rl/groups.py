"""Environments of several agents: PettingZoo's, in which all act at once or one after the other, and RLlib's,
as one environment of gymnasium's.

PettingZoo (Terry et al. 2021): https://arxiv.org/abs/2009.14471
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple, Protocol

import gymnasium
import numpy as np
from gymnasium import spaces
from gymnasium.wrappers.utils import create_zero_array

from dlsys.errors import UsageError
from dlsys.spec.names import wrong_name
from dlsys.spec.section import show

# What the environment tells of every agent at each step, by its name in `info`, [A].
TOLD: Mapping[str, Any] = {"rewards": np.float32, "terminated": np.bool_, "truncated": np.bool_}
# The agents who are to act next, likewise.
ACTS = "acts"
# What each agent is told by itself, by its name.
EACH = "each"


class Moment(NamedTuple):
    """Where a group is. All but `acts` are by agents, and may lack some."""

    seen: Mapping[Any, Any]
    """By those who are to act, and for the last time by those whose part is over."""
    acts: set[Any]
    """Who is to act."""
    rewards: Mapping[Any, float]
    terminated: Mapping[Any, bool]
    truncated: Mapping[Any, bool]
    infos: Mapping[Any, Any]


class Side(Protocol):
    """Of one library's kind of group."""

    def spaces(self, agent: Any) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        """What an agent sees, and what it does."""

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> Moment: ...

    def step(self, actions: dict[Any, Any]) -> Moment:
        """What comes of the actions of those who were to act."""


class _PettingZoo:
    """PettingZoo's."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def spaces(self, agent: Any) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        return self._env.observation_space(agent), self._env.action_space(agent)


class _Parallel(_PettingZoo):
    """In which all act at once."""

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> Moment:
        seen, infos = self._env.reset(seed=seed, options=options)
        return Moment(seen, set(self._env.agents), {}, {}, {}, infos)

    def step(self, actions: dict[Any, Any]) -> Moment:
        seen, rewards, terminated, truncated, infos = self._env.step(actions)
        return Moment(seen, set(self._env.agents), rewards, terminated, truncated, infos)


class _InTurn(_PettingZoo):
    """In which one acts after the other ("agent environment cycle")."""

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> Moment:
        self._env.reset(seed=seed, options=options)
        return self._next({}, {}, {}, {})

    def step(self, actions: dict[Any, Any]) -> Moment:
        env = self._env
        env.step(actions[env.agent_selection])
        rewards, terminated, truncated = dict(env.rewards), dict(env.terminations), dict(env.truncations)
        ended = [agent for agent in env.agents if terminated.get(agent) or truncated.get(agent)]
        last = {agent: env.observe(agent) for agent in ended}
        # Whose part is over is still selected once, and must do nothing then.
        while env.agents and (env.terminations[env.agent_selection] or env.truncations[env.agent_selection]):
            env.step(None)
        return self._next(last, rewards, terminated, truncated)

    def _next(
        self,
        last: dict[Any, Any],
        rewards: dict[Any, float],
        terminated: dict[Any, bool],
        truncated: dict[Any, bool],
    ) -> Moment:
        env = self._env
        acts = {env.agent_selection} if env.agents else set()
        seen = {**last, **{agent: env.observe(agent) for agent in acts}}
        return Moment(seen, acts, rewards, terminated, truncated, dict(env.infos))


class _RLlib:
    """RLlib's MultiAgentEnv: who is shown something is to act."""

    def __init__(self, env: Any) -> None:
        self._env = env

    def spaces(self, agent: Any) -> tuple[spaces.Space[Any], spaces.Space[Any]]:
        return self._env.get_observation_space(agent), self._env.get_action_space(agent)

    def reset(self, seed: int | None, options: dict[str, Any] | None) -> Moment:
        seen, infos = self._env.reset(seed=seed, options=options)
        return Moment(seen, set(seen), {}, {}, {}, infos)

    def step(self, actions: dict[Any, Any]) -> Moment:
        seen, rewards, terminated, truncated, infos = self._env.step(actions)
        terminated, truncated = dict(terminated), dict(truncated)
        everyone = self._env.possible_agents
        if terminated.pop("__all__", False):
            cut = {agent for agent, value in truncated.items() if value}
            terminated = {agent: agent not in cut for agent in everyone}
        elif truncated.pop("__all__", False):
            over = {agent for agent, value in terminated.items() if value}
            truncated = {agent: agent not in over for agent in everyone}
        truncated.pop("__all__", None)
        acts = {agent for agent in seen if not (terminated.get(agent) or truncated.get(agent))}
        return Moment(seen, acts, rewards, terminated, truncated, infos)


def is_group(env: object) -> bool:
    """Whether an environment has several agents, by the interface of a library that has such."""
    return bool(getattr(env, "possible_agents", None)) and hasattr(env, "step") and hasattr(env, "reset")


class Group(gymnasium.Env[dict[str, Any], dict[str, Any]]):
    """All agents together: what they see and do is a dictionary by their names.

    Who is not to act is shown nought, and what it does counts for nothing. The reward is the sum of theirs;
    an episode ends when nobody's part goes on: it is cut if somebody's was. `info` has, in the order of
    `names`, who acts next under `acts`, and of each its `rewards`, and whether its part was `terminated` or
    `truncated` by the step; its own information under `each`; and under `return_NAME` its rewards so far.

    Args:
        env: of PettingZoo's or RLlib's interface.
        name: what it is called in messages.

    Attributes:
        names: of the agents, A of them.

    Raises:
        UsageError: it is of neither interface.
    """

    def __init__(self, env: Any, name: str) -> None:
        self._env, self._name = env, name
        self._side = _side(env, name)
        try:
            each = {str(agent): (agent, *self._side.spaces(agent)) for agent in env.possible_agents}
        except (AttributeError, KeyError, TypeError) as error:
            raise UsageError(
                f"environment.name: {name} does not say what each of its agents sees and does "
                f"(observation_space and action_space, by agent): {type(error).__name__}: {error}"
            ) from error
        self.observation_space = spaces.Dict({key: seen for key, (_, seen, _) in each.items()})
        self.action_space = spaces.Dict({key: taken for key, (_, _, taken) in each.items()})
        self.names = list(self.observation_space.spaces)
        for key in self.names:
            if wrong := wrong_name(key):
                raise UsageError(f"environment.name: {name} calls an agent {show(key)}, which {wrong}")
        self._agents = [each[key][0] for key in self.names]
        self._nothing = {key: create_zero_array(space) for key, space in self.observation_space.items()}
        self._acts: set[Any] = set()
        self._going = np.zeros(len(self.names), bool)
        self._cut = False
        self._returns = np.zeros(len(self.names))
        self.metadata = getattr(env, "metadata", {})
        self.render_mode = getattr(env, "render_mode", None)

    def reset(
        self, *, seed: int | None = None, options: dict[str, Any] | None = None
    ) -> tuple[dict[str, Any], dict[str, Any]]:
        super().reset(seed=seed)
        self._going[:], self._cut, self._returns[:] = True, False, 0
        moment = self._side.reset(seed, options)
        return self._shown(moment), self._info(moment, self._flags({}), self._flags({}))

    def step(self, action: dict[str, Any]) -> tuple[dict[str, Any], float, bool, bool, dict[str, Any]]:
        asked = zip(self.names, self._agents, strict=True)
        moment = self._side.step({agent: action[name] for name, agent in asked if agent in self._acts})
        terminated, truncated = self._flags(moment.terminated), self._flags(moment.truncated)
        terminated &= self._going
        truncated &= self._going & ~terminated
        self._going &= ~(terminated | truncated)
        self._cut |= bool(truncated.any())
        info = self._info(moment, terminated, truncated)
        over = not self._going.any()
        return (
            self._shown(moment),
            float(info["rewards"].sum()),
            over and not self._cut,
            over and self._cut,
            info,
        )

    def _flags(self, told: Mapping[Any, bool]) -> np.ndarray[Any, np.dtype[np.bool_]]:
        return np.array([bool(told.get(agent, False)) for agent in self._agents])

    def _shown(self, moment: Moment) -> dict[str, Any]:
        self._acts = moment.acts
        shown = {}
        for name, agent in zip(self.names, self._agents, strict=True):
            seen = moment.seen.get(agent)
            shown[name] = self._nothing[name] if seen is None else seen
        return shown

    def _info(self, moment: Moment, terminated: Any, truncated: Any) -> dict[str, Any]:
        rewards = np.array([moment.rewards.get(agent, 0.0) for agent in self._agents], np.float32)
        self._returns += rewards
        each = {
            name: dict(moment.infos.get(agent) or {})
            for name, agent in zip(self.names, self._agents, strict=True)
        }
        returns = {
            f"return_{name}": float(value) for name, value in zip(self.names, self._returns, strict=True)
        }
        acts = np.array([agent in moment.acts for agent in self._agents])
        told = {"rewards": rewards, "terminated": terminated, "truncated": truncated}
        return {ACTS: acts, EACH: each, **told, **returns}

    def render(self) -> Any:
        return self._env.render()

    def close(self) -> None:
        self._env.close()


def _side(env: Any, name: str) -> Side:
    if hasattr(env, "agent_selection") or hasattr(env, "agent_iter"):
        return _InTurn(env)
    if hasattr(env, "get_observation_space"):
        return _RLlib(env)
    if callable(getattr(env, "observation_space", None)):
        return _Parallel(env)
    raise UsageError(
        f"environment.name: {name} has possible_agents, and is neither a PettingZoo ParallelEnv or AECEnv "
        "nor an RLlib MultiAgentEnv: subclass one of them"
    )
