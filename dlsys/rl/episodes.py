"""Recorded episodes, as RLlib's offline data has them: a Parquet row for each step."""

from __future__ import annotations

import math
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from gymnasium import spaces
from numpy.typing import NDArray

from dlsys.errors import DataError, UsageError
from dlsys.rl import environments
from dlsys.rl.actions import Actions
from dlsys.rl.agent import Acting, Player
from dlsys.rl.environments import Known
from dlsys.rl.observations import NUMBERS
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.section import Sees

_COLUMNS = ("eps_id", "t", "obs", "actions", "rewards", "new_obs", "terminateds", "truncateds")
# Besides, where actions are discrete.
_CHANCE = "action_logp"


class Recorded(NamedTuple):
    """N steps of whole episodes, one after the other."""

    observations: NDArray[np.float32]
    """[N, O]"""
    actions: NDArray[Any]
    """As policies choose them: indices from 0 [N], or in ±1 [N, A]."""
    rewards: NDArray[np.float32]
    """[N]"""
    following: NDArray[np.float32]
    """The next observations, [N, O]."""
    terminated: NDArray[np.bool_]
    """[N]"""
    last: NDArray[np.bool_]
    """[N], whether the recording of an episode ends there, terminated or cut."""
    logp: NDArray[np.float32] | None = None
    """The logarithms of the actions' chances when they were recorded, [N]; None where that is not told."""

    def returns(self, gamma: float) -> NDArray[np.float32]:
        """Discounted rewards from each step to the end of its episode's recording, [N]."""
        found, later = np.zeros_like(self.rewards), 0.0
        for index in range(len(found) - 1, -1, -1):
            later = float(self.rewards[index]) + (0.0 if self.last[index] else gamma * later)
            found[index] = later
        return found


def record(
    agent: Player,
    environment: Environment,
    n: int,
    seed: int,
    path: Path,
    explore: float = 0.0,
    *,
    sees: Sees = "vector",
) -> list[float]:
    """Plays episodes and writes them.

    Args:
        agent: acts. One that remembers takes the random actions for its own.
        environment: where.
        n: how many.
        seed: decides their starts, and the random actions.
        path: the file.
        explore: the share of random actions.
        sees: what the agent sees, as `environments.make` says.

    Returns:
        The episodes' returns.

    Raises:
        UsageError: what it sees is no vector of numbers, or the file cannot be written.
    """
    env = environments.make(environment, sees=sees, ends=True)
    if env.seen is not None and list(env.seen.shapes) != [NUMBERS]:
        raise UsageError(
            f"{environment.name}: a row of recorded episodes has numbers alone, and it shows "
            f"{', '.join(env.seen.shapes)}"
        )
    env.action_space.seed(seed)
    random = np.random.default_rng(seed)
    rows, returns = [], []
    for index in range(n):
        steps = list(_play(agent, env, random, explore))
        rows += [(f"{seed}-{index}", t, *step) for t, step in enumerate(steps)]
        returns.append(sum(step[2] for step in steps))
    env.close()  # type: ignore[no-untyped-call]
    columns = [list(column) for column in zip(*rows, strict=True)]
    names = (*_COLUMNS, _CHANCE) if env.actions.single else _COLUMNS
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        pq.write_table(pa.table(dict(zip(names, columns, strict=True))), path, compression="zstd")
    except OSError as error:
        raise UsageError(f"{path}: cannot be written: {error.strerror or error}") from error
    return returns


def _play(
    agent: Player, env: Known, random: np.random.Generator, explore: float
) -> Iterator[tuple[Any, ...]]:
    act, ended, single = Acting(agent), False, env.actions.single
    seen, _ = env.reset(seed=int(random.integers(2**31)))
    while not ended:
        action = best = act([0], env.stack([seen]))[0]
        if random.random() < explore:
            action = env.action_space.sample()
        following, reward, terminated, truncated, _ = env.step(action)
        yield (
            _plain(seen),
            _plain(env.actions.taken(action)),
            float(reward),
            _plain(following),
            bool(terminated),
            bool(truncated),
            *([math.log(chance(explore, env.actions.counts[0], action == best))] if single else []),
        )
        seen, ended = following, terminated or truncated


def chance(explore: float, count: int, best: Any) -> Any:
    """How likely an action is.

    Args:
        explore: the share of random actions.
        count: how many actions there are.
        best: whether it is the one that the agent takes.
    """
    return explore / count + (1 - explore) * best


def _plain(value: Any) -> Any:
    """A whole number, or the numbers of an array in their order."""
    if isinstance(value, dict):
        value = value[NUMBERS]
    array = np.asarray(value)
    whole = not array.ndim and np.issubdtype(array.dtype, np.integer)
    return int(array) if whole else array.flatten().astype(np.float32)


def read(path: Path, width: int, actions: Actions) -> Recorded:
    """Episodes that were recorded in an environment with such observations and actions.

    Args:
        path: a file, or a folder of them.
        width: numbers of an observation, O.
        actions: the environment's.

    Raises:
        DataError: the file is missing, is not of this form, or was recorded in another environment.
    """
    try:
        table = pq.read_table(path)
    except FileNotFoundError as error:
        raise DataError(
            f"{path}: no such file of episodes", hint="algorithm.episodes starts at the job file's folder."
        ) from error
    except (OSError, pa.ArrowException) as error:
        raise DataError(f"{path}: cannot be read as Parquet: {str(error).splitlines()[0]}") from error
    if missing := [name for name in _COLUMNS if name not in table.column_names]:
        raise DataError(f"{path}: has no column {', '.join(missing)}; a row is a step: {', '.join(_COLUMNS)}")
    if not len(table):
        raise DataError(f"{path}: has no steps")
    try:
        observations, following = (_matrix(table[name], width) for name in ("obs", "new_obs"))
        chosen = _choices(table["actions"], actions)
        rewards = table["rewards"].to_numpy().astype(np.float32)
        terminated, truncated = (
            table[name].to_numpy().astype(bool) for name in ("terminateds", "truncateds")
        )
    except (ValueError, TypeError, pa.ArrowException) as error:
        raise DataError(
            f"{path}: was recorded in another environment: observations should be {width} numbers, "
            f"and actions of {actions.space}: {str(error).splitlines()[0]}"
        ) from error
    logp = table[_CHANCE].to_numpy().astype(np.float32) if _CHANCE in table.column_names else None
    for name, values in (
        ("obs", observations),
        ("new_obs", following),
        ("rewards", rewards),
        (_CHANCE, np.zeros(0) if logp is None else logp),
    ):
        if not np.isfinite(values).all():
            raise DataError(f"{path}: column {name} has values that are not finite")
    names = np.asarray(table["eps_id"].to_pylist())
    last = terminated | truncated | np.append(names[1:] != names[:-1], True)
    return Recorded(observations, chosen, rewards, following, terminated, last, logp)


def _matrix(column: Any, width: int) -> NDArray[np.float32]:
    rows, whole = len(column), column.combine_chunks()
    values = np.asarray(whole.flatten() if pa.types.is_nested(whole.type) else whole, np.float32)
    if len(values) != rows * width:
        raise ValueError(f"found {len(values) / rows:g}")
    return values.reshape(rows, width)


def _choices(column: Any, actions: Actions) -> NDArray[Any]:
    if isinstance(actions.space, spaces.Discrete):
        return actions.choice(column.to_numpy())
    return actions.choice(_matrix(column, int(np.prod(actions.space.shape or ()))))
