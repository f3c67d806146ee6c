"""What a group did, as the steps of each of its agents."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from dlsys.rl.observations import Seen
from dlsys.rl.sampler import Rollout, joined
from dlsys.spec.rl.groups import ACTS


def own_steps(rollout: Rollout, agents: Sequence[tuple[int, str, Sequence[int]]], single: bool) -> Rollout:
    """The steps of the agents of one policy, one after the other as it did them, with the rewards that it got
    until its next one: an agent that waits for others has no steps meanwhile.

    Args:
        rollout: of the group, T steps of N environments.
        agents: of the policy, k of them that see and do the same: which of the group's it is, its name, and
            where its choices are among those of all.
        single: whether one index is all that each chooses.

    Returns:
        Of kN columns, agent by agent. A column's last step, whose outcome is not known yet, is left out, and
        columns have different numbers of steps: what `held` says is no step is without meaning, but that what
        is seen next to a column's last step is what was seen after it.
    """
    parts = [_of_one(rollout, *agent, single) for agent in agents]
    longest = max(len(part.rewards) for part in parts)
    return joined([_padded(part, longest) for part in parts])


def _of_one(rollout: Rollout, index: int, name: str, columns: Sequence[int], single: bool) -> Rollout:
    steps, count = rollout.rewards.shape
    acts = rollout.seen[ACTS][..., index]
    did, every = acts[:-1], np.arange(count)
    # Of each column the steps at which it acted, the first ones of `order`, and how many they are.
    order, number = np.argsort(~did, axis=0, kind="stable"), did.sum(0)
    length = int(number.max(initial=0))
    rows = np.arange(length)[:, None]
    exists = rows < number
    # What was seen after the last of them: what it acts on after the rollout, if it does then.
    at = np.concatenate([np.where(exists, order[:length], steps), np.full((1, count), steps)])
    # The step, as a row, that what happens at each time is an outcome of; -1 before an episode's first one.
    row, episode = did.cumsum(0) - 1, rollout.first[:-1].cumsum(0)
    row[episode[order[np.maximum(row, 0), every], every] != episode] = -1
    times, places = np.nonzero(row >= 0)
    into = row[times, places], places
    rewards = np.zeros((length, count), np.float32)
    np.add.at(rewards, into, rollout.info["rewards"][times, places, index])
    terminated, truncated = np.zeros((length, count), bool), np.zeros((length, count), bool)
    # Whoever cuts an episode cuts the part of all who are still in it.
    cut = rollout.info["truncated"][..., index] | rollout.truncated
    np.logical_or.at(terminated, into, rollout.info["terminated"][times, places, index])
    np.logical_or.at(truncated, into, cut[times, places])
    truncated &= ~terminated
    over = terminated | truncated
    # The outcome of a column's last step is known if its part ended with it, or it acts again.
    last = np.maximum(number - 1, 0)
    known = over[last, every] | acts[-1] if length else np.zeros(count, bool)
    held = rows < number - ((number > 0) & ~known)
    over &= held

    def own(values: NDArray[Any]) -> NDArray[Any]:
        return values[np.minimum(at[:-1], steps - 1), every]

    ends = np.argwhere(over).T
    chosen = rollout.actions[..., list(columns)]
    return Rollout(
        seen={key: part[at, every] for key, part in _parts(rollout.seen, name).items()},
        actions=own(chosen[..., 0].astype(np.int64) if single else chosen),
        rewards=rewards,
        terminated=terminated & held,
        truncated=truncated & held,
        first=np.concatenate([np.zeros((1, count), bool), over]),
        finals=_finals(rollout, index, name, row, ends, cut),
        ends=ends,
        final_memories=np.zeros((ends.shape[1], 0), np.float32),
        memories=np.zeros((length + 1, count, 0), np.float32),
        told={key: own(values[..., index]) for key, values in rollout.told.items()},
        held=held,
    )


def _parts(seen: Seen, name: str) -> Seen:
    start = f"{name}/"
    return {key.removeprefix(start): part for key, part in seen.items() if key.startswith(start)}


def _finals(
    rollout: Rollout,
    index: int,
    name: str,
    row: NDArray[np.int64],
    ends: NDArray[np.int64],
    cut: NDArray[np.bool_],
) -> Seen:
    """What an agent saw where its part ended: at the end of the episode, or while the others went on."""
    whole = np.full(rollout.rewards.shape, -1)
    whole[tuple(rollout.ends)] = np.arange(rollout.ends.shape[1])
    over = cut | rollout.info["terminated"][..., index]
    # The first time at which it ended, of each step that ended.
    times, places = np.nonzero(over & (row >= 0))
    when = dict[tuple[int, int], int]()
    for time, place in zip(times.tolist(), places.tolist(), strict=True):
        when.setdefault((int(row[time, place]), place), time)
    found = [(when[step, place], place) for step, place in ends.T.tolist()]
    seen, last = _parts(rollout.seen, name), _parts(rollout.finals, name)
    finals = {key: np.empty((len(found), *part.shape[2:]), part.dtype) for key, part in seen.items()}
    for number, (time, place) in enumerate(found):
        end = whole[time, place]
        for key, part in finals.items():
            part[number] = seen[key][time + 1, place] if end < 0 else last[key][end]
    return finals


def _padded(rollout: Rollout, length: int) -> Rollout:
    """With more rows that are no steps. What was seen after the last one stays next to it."""
    more = length - len(rollout.rewards)
    if not more:
        return rollout
    assert rollout.held is not None

    def longer(values: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([values, np.repeat(values[-1:], more, 0)])

    def empty(values: NDArray[Any]) -> NDArray[Any]:
        return np.concatenate([values, np.zeros((more, *values.shape[1:]), values.dtype)])

    return Rollout(
        seen={key: longer(part) for key, part in rollout.seen.items()},
        actions=empty(rollout.actions),
        rewards=empty(rollout.rewards),
        terminated=empty(rollout.terminated),
        truncated=empty(rollout.truncated),
        first=empty(rollout.first),
        finals=rollout.finals,
        ends=rollout.ends,
        final_memories=rollout.final_memories,
        memories=empty(rollout.memories),
        told={key: empty(values) for key, values in rollout.told.items()},
        held=empty(rollout.held),
    )
