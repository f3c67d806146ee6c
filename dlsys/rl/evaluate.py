"""Plays episodes with what an agent knows, and learns nothing from them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from dlsys.errors import UsageError
from dlsys.rl import environments
from dlsys.rl.agent import Acting, Player
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.section import Sees

# At once: what acts answers for many about as fast as for one.
_TOGETHER = 32
# Between two looks at whether to give up.
_ASK_SECONDS = 0.5


@dataclass(frozen=True)
class Played:
    """Episodes, each with the seed that it started from, its undiscounted return and its length.

    Attributes:
        cut: how many had not ended after `environments.LONGEST` steps.
        told: what the environment told at their ends, by `environment.metrics`, and the return of each agent
            of a group.
    """

    seeds: list[int]
    returns: list[float]
    lengths: list[int]
    cut: int
    told: dict[str, list[float]]

    def summary(self) -> dict[str, float]:
        return {
            **{name: float(np.mean(values)) for name, values in self.told.items()},
            "return": float(np.mean(self.returns)),
            "return_std": float(np.std(self.returns)),
            "return_min": float(np.min(self.returns)),
            "length": float(np.mean(self.lengths)),
        }


def play(
    agent: Player,
    told: Environment,
    episodes: int,
    *,
    sees: Sees = "vector",
    seed: int,
    split: Literal["valid", "test"],
    explore: bool = False,
    beat: Callable[[], None] = lambda: None,
    stop: Callable[[], bool] = lambda: False,
) -> Played | None:
    """Episodes of an agent.

    Each starts from a seed of its own, which training never uses: who is measured, and how many at once,
    changes nothing about the others. With `explore`, which they draw from one generator, only the starts are
    so; training draws no other numbers for it.

    Args:
        agent: acts.
        told: the environment.
        episodes: how many.
        sees: what the agent sees, as `environments.make` says.
        seed: the run's.
        split: those of `valid` and `test` start differently.
        explore: actions are drawn from the policy's chances.
        beat: called now and then.
        stop: likewise; whether to give up.

    Returns:
        All of them, or None if `stop` said so.

    Raises:
        UsageError: the environment did not tell one of its `metrics` at an episode's end.
    """
    stream = np.random.SeedSequence([seed, {"valid": 1, "test": 2}[split]])
    seeds = [int(value) for value in stream.generate_state(episodes, np.uint32) >> 1]
    returns, lengths, cut = [0.0] * episodes, [0] * episodes, 0
    waiting = list(range(episodes))[::-1]
    seats: list[tuple[int, environments.Known, Any]] = []
    act = Acting(agent, seeds[0] if explore else None)
    one = environments.make(told, sees=sees, ends=True)
    names = dict.fromkeys([*told.metrics, *one.returns])
    ends = {name: [0.0] * episodes for name in names}
    more = range(min(episodes, _TOGETHER) - 1)
    spare = [one, *(environments.make(told, sees=sees, ends=True, seen=one.seen) for _ in more)]
    ask_at = time.monotonic() + _ASK_SECONDS
    try:
        while waiting or seats:
            if time.monotonic() > ask_at:
                ask_at = time.monotonic() + _ASK_SECONDS
                if stop():
                    return None
            while waiting and spare:
                index, env = waiting.pop(), spare.pop()
                seats.append((index, env, env.reset(seed=seeds[index])[0]))
            beat()
            observations = seats[0][1].stack([seen for _, _, seen in seats])
            actions = act([index for index, _, _ in seats], observations)
            going = []
            for (index, env, _), action in zip(seats, actions, strict=True):
                seen, reward, terminated, truncated, info = env.step(action)
                returns[index] += float(reward)
                lengths[index] += 1
                if terminated or truncated:
                    cut += truncated and lengths[index] == env.longest
                    for name, values in ends.items():
                        values[index] = _told(info, name, told.name)
                    spare.append(env)
                else:
                    going.append((index, env, seen))
            seats = going
    finally:
        for env in [*spare, *(env for _, env, _ in seats)]:
            env.close()
    return Played(seeds, returns, lengths, cut, ends)


def _told(info: Mapping[str, Any], name: str, place: str) -> float:
    """A number of the last step's `info`."""
    found = {key: number for key, value in info.items() if (number := _number(value)) is not None}
    if name not in found:
        has = f"it has {', '.join(sorted(found))}" if found else "it has no numbers"
        raise UsageError(
            f"environment.metrics: {place} tells no finite number {name!r} in the info of an episode's last "
            f"step; {has}"
        )
    return found[name]


def _number(value: Any) -> float | None:
    """A finite number, or an array of one."""
    if not isinstance(value, bool | int | float | np.generic | np.ndarray):
        return None
    array = np.asarray(value)
    if array.size != 1 or array.dtype.kind not in "biuf" or not np.isfinite(array).all():
        return None
    return float(array.item())
