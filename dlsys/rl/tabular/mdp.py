"""Finite Markov decision processes: Sutton and Barto 2018, chapter 3.

http://incompleteideas.net/book/RLbook2020.pdf
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import gymnasium
import numpy as np

from dlsys.errors import UsageError

Env = gymnasium.Env[Any, Any]

TOLERANCE = 1e-9
MAX_BYTES = 2 << 30


@dataclass(frozen=True, eq=False)
class MDP:
    """A finite MDP: all that can happen, with its probabilities.

    S states and A actions. A terminal state leads to itself and earns nothing, so that its value is 0
    and no algorithm needs to treat it apart.

    Attributes:
        states: S different names.
        actions: A different names.
        transitions: P[s, a, s'], float64: the probability that `a` in `s` leads to s'.
        rewards: R[s, a, s'], or R[s, a] where the next state does not matter, float64.
        terminal: [S], bool: where an episode ends.
        start: [S], float64: the probability that an episode begins there.
        gamma: the discount, from 0 to 1.

    Raises:
        UsageError: a shape, a probability, a reward or the discount is wrong; it names state and action.
    """

    states: tuple[str, ...]
    actions: tuple[str, ...]
    transitions: np.ndarray
    rewards: np.ndarray
    terminal: np.ndarray
    start: np.ndarray
    gamma: float

    def __post_init__(self) -> None:
        if problem := next(self._problems(), None):
            raise UsageError(f"MDP: {problem}")

    @cached_property
    def expected_rewards(self) -> np.ndarray:
        """r(s, a), the mean reward of an action, [S, A]."""
        if self.rewards.ndim == 2:
            return self.rewards
        means: np.ndarray = np.einsum("ijk,ijk->ij", self.transitions, self.rewards)
        return means

    def _problems(self) -> Iterator[str]:
        s, a = len(self.states), len(self.actions)
        for kind, names in (("states", self.states), ("actions", self.actions)):
            if not names or len(set(names)) < len(names):
                yield f"{kind} must be different names, at least one, but got {len(names)} names"
        shapes: dict[str, list[tuple[int, ...]]] = {
            "transitions": [(s, a, s)],
            "rewards": [(s, a, s), (s, a)],
            "terminal": [(s,)],
            "start": [(s,)],
        }
        for name, allowed in shapes.items():
            if (shape := getattr(self, name).shape) not in allowed:
                yield f"{name} must be of shape {' or '.join(map(str, allowed))}, but got {shape}"
        if not 0 <= self.gamma <= 1:
            yield f"gamma must be from 0 to 1, but got {self.gamma}"
        if not np.all(self.start >= 0) or abs(self.start.sum() - 1) > TOLERANCE:
            yield f"start must be probabilities that sum to 1, but their sum is {self.start.sum():.12g}"
        yield from self._wrong(
            ~np.all(self.transitions >= 0, axis=2), "has a negative or undefined probability"
        )
        total = self.transitions.sum(axis=2)
        yield from self._wrong(
            ~(np.abs(total - 1) <= TOLERANCE), "has probabilities whose sum is {:.12g}, not 1", total
        )
        finite = np.isfinite(self.rewards)
        yield from self._wrong(~(finite if finite.ndim == 2 else finite.all(axis=2)), "has no finite reward")
        ends = self.terminal[:, None]
        stay = np.broadcast_to(np.diagonal(self.transitions, axis1=0, axis2=2).T, total.shape)
        yield from self._wrong(ends & (stay < 1), "leaves a terminal state: it must lead back to itself")
        yield from self._wrong(ends & (self.expected_rewards != 0), "earns a reward in a terminal state")

    def _wrong(self, where: np.ndarray, text: str, values: np.ndarray | None = None) -> Iterator[str]:
        """The first place of a mask [S, A] as a message."""
        if where.any():
            s, a = np.argwhere(where)[0]
            shown = text if values is None else text.format(values[s, a])
            yield f"action {self.actions[a]!r} in state {self.states[s]!r} {shown}"


def empty(states: int, actions: int) -> np.ndarray:
    """P[s, a, s'] of zeros.

    Raises:
        UsageError: it would take more than 2 GiB.
    """
    size = states * actions * states * 8
    if size > MAX_BYTES:
        raise UsageError(
            f"a table of {states:,} states × {actions} actions × {states:,} states takes "
            f"{size / 2**30:.1f} GiB; the limit is {MAX_BYTES >> 30} GiB: use fewer states"
        )
    return np.zeros((states, actions, states))


def from_gym(env: Env, gamma: float) -> MDP:
    """The MDP behind an environment that has a transition table, as gymnasium's toy-text ones do.

    `env.unwrapped.P[s][a]` is a list of (probability, next state, reward, terminated), and
    `initial_state_distrib` [S] is where episodes begin. A state in which an episode may end becomes
    terminal; what the table says of going on from there is never used by the environment.

    Raises:
        UsageError: no such table, or a state in which episodes sometimes end and sometimes go on.
    """
    table: Any = getattr(env.unwrapped, "P", None)
    start: Any = getattr(env.unwrapped, "initial_state_distrib", None)
    if table is None or start is None:
        raise UsageError(
            f"{name_of(env)}: has no table of transitions, which planning needs: take q-learning, or one of "
            "FrozenLake-v1, CliffWalking-v1, Taxi-v3, a grid world or an MDP file"
        )
    states, actions = len(table), len(table[0])
    transitions = empty(states, actions)
    earned = np.zeros_like(transitions)
    ends, goes_on = set(), {int(state) for state in np.flatnonzero(start)}
    for s in range(states):
        for a, action in enumerate(sorted(table[s])):
            for probability, target, reward, terminated in table[s][action]:
                transitions[s, a, target] += probability
                earned[s, a, target] += probability * reward
                if terminated:
                    ends.add(int(target))
    # States that an episode can be in: it may meet in none of them both an end and a way on.
    waiting = list(goes_on)
    while waiting:
        for outcomes in table[waiting.pop()].values():
            reached = {int(target) for p, target, _, terminated in outcomes if p > 0 and not terminated}
            waiting += reached - goes_on
            goes_on |= reached
    if both := ends & goes_on:
        raise UsageError(f"{name_of(env)}: episodes sometimes end in state {min(both)} and sometimes go on")
    with np.errstate(invalid="ignore"):
        rewards = np.where(transitions > 0, earned / transitions, 0.0)
    terminal = np.isin(np.arange(states), list(ends))
    absorb(transitions, rewards, terminal)
    return MDP(
        states=tuple(map(str, range(states))),
        actions=tuple(map(str, range(actions))),
        transitions=transitions,
        rewards=rewards,
        terminal=terminal,
        start=np.asarray(start, dtype=np.float64),
        gamma=gamma,
    )


def absorb(transitions: np.ndarray, rewards: np.ndarray, terminal: np.ndarray) -> None:
    """Makes terminal states lead to themselves and earn nothing, in place."""
    ends = np.flatnonzero(terminal)
    transitions[ends] = 0
    transitions[ends, :, ends] = 1
    rewards[ends] = 0


def name_of(env: Env) -> str:
    """What messages call an environment."""
    return env.spec.id if env.spec else type(env.unwrapped).__name__
