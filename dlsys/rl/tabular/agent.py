"""Tabular and planning agents as the engine drives them."""

from __future__ import annotations

import random
from abc import ABC, abstractmethod
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from time import perf_counter
from typing import Any

import gymnasium
import numpy as np

from dlsys.errors import CheckpointError, UsageError
from dlsys.rl.agent import Agent, Iteration
from dlsys.rl.environments import make
from dlsys.rl.tabular import q_value_iteration, value_iteration
from dlsys.rl.tabular.discretise import Grid, discretise
from dlsys.rl.tabular.episode import Episode
from dlsys.rl.tabular.mdp import MDP, Env, from_gym, name_of
from dlsys.rl.tabular.q_learning import QTable
from dlsys.rl.tabular.td_learning import TDPrediction
from dlsys.spec.rl import tabular as spec
from dlsys.spec.rl.job import RLJob

EnvFactory = Callable[[], Env]


def of_job(job: RLJob) -> Agent:
    """The agent of a job's section."""
    kinds: dict[type, Any] = {
        spec.ValueIteration: ValueIterationAgent,
        spec.QValueIteration: QValueIterationAgent,
        spec.TDLearning: TDLearningAgent,
        spec.QLearning: QLearningAgent,
    }
    told = job.algorithm
    made: Agent = kinds[type(told)](
        told, partial(make, job.environment, sees="plain", ends=True), told.gamma, job.seed
    )
    return made


def model_of(env: Env, bins: int, gamma: float, seed: int) -> tuple[MDP, Grid | None]:
    """The MDP of an environment: its own, of its table of transitions, or on a grid of `bins` points along
    each dimension of a continuous observation, and then the grid too.

    Raises:
        UsageError: the environment has no model that can be had.
    """
    if isinstance(mdp := getattr(env.unwrapped, "mdp", None), MDP):
        return replace(mdp, gamma=gamma), None
    if isinstance(env.observation_space, gymnasium.spaces.Box):
        return discretise(env, bins, gamma, seed=seed)
    return from_gym(env, gamma), None


class _Planner(ABC):
    """Sweeps over a known model until nothing changes. It takes no step in an environment: its steps are
    sweeps.

    Args:
        options: the algorithm's section; its `gamma` is not read.
        env_factory: makes an environment whose model can be had.
        gamma: the discount.
        seed: of the resets that tell where episodes begin, for a model on a grid.
    """

    def __init__(
        self,
        options: spec.ValueIteration | spec.QValueIteration,
        env_factory: EnvFactory,
        gamma: float,
        seed: int,
    ) -> None:
        self._options = options
        self._env = env_factory()
        self.mdp, self.grid = model_of(self._env, options.bins, gamma, seed)
        self._table = self._first()
        self._q = self._q_of(self._table)
        self._sweeps = 0

    @abstractmethod
    def _first(self) -> np.ndarray:
        """The table before the first sweep: zeros, as terminal states stay at 0."""

    @abstractmethod
    def _sweep(self, table: np.ndarray) -> np.ndarray:
        """The table after one more sweep."""

    @abstractmethod
    def _q_of(self, table: np.ndarray) -> np.ndarray:
        """Q [S, A]."""

    def iterate(self) -> Iteration:
        begin, before = perf_counter(), self._sweeps
        for _ in range(self._options.sweeps):
            table = self._sweep(self._table)
            residual = float(np.abs(table - self._table).max())
            self._table = table
            self._sweeps += 1
            done = residual <= self._options.tolerance
            if done:
                break
        self._q = self._q_of(self._table)
        figures = {
            "residual": residual,
            "value": float(self.mdp.start @ self._q.max(axis=1)),
        }
        seconds = {"sample": 0.0, "learn": perf_counter() - begin}
        return Iteration(steps=self._sweeps - before, figures=figures, seconds=seconds, done=done)

    def act(self, observations: np.ndarray) -> np.ndarray:
        if self.grid is None:
            return np.take(value_iteration.greedy(self._q), observations)
        points, weights = self.grid.corners(observations)
        return value_iteration.greedy((self._q[points] * weights[:, :, None]).sum(axis=1))

    def state(self) -> dict[str, Any]:
        return {"table": self._table.copy(), "sweeps": self._sweeps}

    def load(self, state: dict[str, Any]) -> None:
        self._table = _like(self._table, state["table"])
        self._q = self._q_of(self._table)
        self._sweeps = int(state["sweeps"])

    def _axes(self) -> dict[str, np.ndarray]:
        """Without its grid, a table of a continuous environment is of no use."""
        axes = self.grid.axes if self.grid else ()
        return {f"axis_{index}": axis for index, axis in enumerate(axes)}

    @abstractmethod
    def weights(self) -> dict[str, np.ndarray]: ...

    def close(self) -> None:
        self._env.close()


class ValueIterationAgent(_Planner):
    """Value iteration on V. As `_Planner` otherwise."""

    def _first(self) -> np.ndarray:
        return np.zeros(len(self.mdp.states))

    def _sweep(self, table: np.ndarray) -> np.ndarray:
        return value_iteration.sweep(self.mdp, table)

    def _q_of(self, table: np.ndarray) -> np.ndarray:
        return value_iteration.backup(self.mdp, table)

    def weights(self) -> dict[str, np.ndarray]:
        return {"values": self._table, "policy": value_iteration.greedy(self._q), **self._axes()}


class QValueIterationAgent(_Planner):
    """Value iteration on Q. As `_Planner` otherwise."""

    def _first(self) -> np.ndarray:
        return np.zeros((len(self.mdp.states), len(self.mdp.actions)))

    def _sweep(self, table: np.ndarray) -> np.ndarray:
        return q_value_iteration.sweep(self.mdp, table)

    def _q_of(self, table: np.ndarray) -> np.ndarray:
        return table

    def weights(self) -> dict[str, np.ndarray]:
        return {"q": self._table, **self._axes()}


class _Learner(ABC):
    """Plays whole episodes. What is drawn in an iteration, here and in the environment, is a function of
    the seed and the iteration's number: so going on needs no generator's state.

    Args:
        options: the algorithm's section; its `gamma` is not read.
        env_factory: makes an environment with discrete observations and actions, whose episodes end.
        gamma: the discount.
        seed: of everything drawn.

    Raises:
        UsageError: the environment's spaces are others.
    """

    def __init__(
        self, options: spec.TDLearning | spec.QLearning, env_factory: EnvFactory, gamma: float, seed: int
    ) -> None:
        self._episodes = options.episodes
        self._name = options.name
        self._seed = seed
        self._iteration = 0
        self._env = env_factory()
        self.states = self._size("observation", self._env.observation_space)
        self.actions = self._size("action", self._env.action_space)

    def _size(self, kind: str, space: gymnasium.Space[Any]) -> int:
        if isinstance(space, gymnasium.spaces.Discrete) and space.start == 0:
            return int(space.n)
        raise UsageError(
            f"{name_of(self._env)}: {self._name} keeps a table, so the {kind} space must be Discrete, but is "
            f"{space}: take an algorithm with a network, such as dqn"
        )

    @abstractmethod
    def _play(self, rng: random.Random, episode: int, seed: int | None) -> Episode:
        """Acts and learns for one episode, of this number in the whole run; `seed` is the environment's."""

    def iterate(self) -> Iteration:
        begin = perf_counter()
        rng = random.Random(f"{self._seed}/{self._iteration}")
        first = self._iteration * self._episodes
        env_seed = rng.getrandbits(31)
        played = [
            self._play(rng, first + index, None if index else env_seed) for index in range(self._episodes)
        ]
        self._iteration += 1
        steps = sum(episode.length for episode in played)
        sample = sum(episode.seconds for episode in played)
        return Iteration(
            steps=steps,
            returns=[episode.total for episode in played],
            lengths=[episode.length for episode in played],
            figures={"td_error": sum(episode.error for episode in played) / steps, **self._figures()},
            seconds={"sample": sample, "learn": perf_counter() - begin - sample},
        )

    def _figures(self) -> dict[str, float]:
        return {}

    def close(self) -> None:
        self._env.close()


class TDLearningAgent(_Learner):
    """TD(0): it learns what acting at random is worth, so that is how it acts. As `_Learner` otherwise."""

    def __init__(self, options: spec.TDLearning, env_factory: EnvFactory, gamma: float, seed: int) -> None:
        super().__init__(options, env_factory, gamma, seed)
        self._learned = TDPrediction(options, gamma, self.states, self.actions)
        self._acted = 0

    def _play(self, rng: random.Random, episode: int, seed: int | None) -> Episode:
        return self._learned.learn(self._env, rng, seed)

    def act(self, observations: np.ndarray) -> np.ndarray:
        rng = np.random.default_rng([self._seed, self._acted])
        self._acted += 1
        return rng.integers(self.actions, size=len(observations))

    def state(self) -> dict[str, Any]:
        return {
            "iteration": self._iteration,
            "acted": self._acted,
            "values": np.array(self._learned.values),
            "visits": np.array(self._learned.visits),
        }

    def load(self, state: dict[str, Any]) -> None:
        now = self.state()
        self._learned.values = _like(now["values"], state["values"]).tolist()
        self._learned.visits = _like(now["visits"], state["visits"]).tolist()
        self._iteration, self._acted = int(state["iteration"]), int(state["acted"])

    def weights(self) -> dict[str, np.ndarray]:
        return {"values": np.array(self._learned.values)}


class QLearningAgent(_Learner):
    """Q-learning. As `_Learner` otherwise."""

    def __init__(self, options: spec.QLearning, env_factory: EnvFactory, gamma: float, seed: int) -> None:
        super().__init__(options, env_factory, gamma, seed)
        self._learned = QTable(options, gamma, self.states, self.actions)

    def _play(self, rng: random.Random, episode: int, seed: int | None) -> Episode:
        return self._learned.learn(self._env, rng, self._learned.epsilon(episode), seed)

    def _figures(self) -> dict[str, float]:
        # Of the iteration's last episode.
        return {"epsilon": self._learned.epsilon(self._iteration * self._episodes - 1)}

    def act(self, observations: np.ndarray) -> np.ndarray:
        return np.take(value_iteration.greedy(np.array(self._learned.q)), observations)

    def state(self) -> dict[str, Any]:
        return {
            "iteration": self._iteration,
            "q": np.array(self._learned.q),
            "visits": np.array(self._learned.visits),
        }

    def load(self, state: dict[str, Any]) -> None:
        now = self.state()
        self._learned.q = _like(now["q"], state["q"]).tolist()
        self._learned.visits = _like(now["visits"], state["visits"]).tolist()
        self._iteration = int(state["iteration"])

    def weights(self) -> dict[str, np.ndarray]:
        return {"q": np.array(self._learned.q)}


def _like(own: np.ndarray, given: Any) -> np.ndarray:
    """A copy of a checkpoint's array, if it is of the shape and type of one's own.

    Raises:
        CheckpointError: it is not: it comes from another environment.
    """
    found = np.asarray(given)
    if found.shape != own.shape:
        raise CheckpointError(
            f"the checkpoint's table is of shape {found.shape}, but this environment needs {own.shape}: "
            "it was made in another environment, or with other bins"
        )
    return found.astype(own.dtype)
