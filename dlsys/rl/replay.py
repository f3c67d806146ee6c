"""A memory of steps: uniform, prioritized (https://arxiv.org/abs/1511.05952), or the last ones alone.

It is a ring of rows, one for each time that all environments stepped. What was seen after a step is the next
row, so that an image is kept once, in its own type; where an episode was cut, its last observation is kept
beside.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from dlsys.rl.actions import Actions
from dlsys.rl.observations import Observations, Seen
from dlsys.rl.sampler import Rollout

# Added to each error, so that no step is lost for ever.
_LEAST = 1e-6

Draw = Literal["uniform", "prioritized", "last"]


@dataclass
class Transitions:
    """B steps, each of one or more of an environment's.

    Attributes:
        rows: where they are in the memory.
        seen: before them, [B, …] by name.
        actions: [B, …].
        rewards: added up, discounted, [B].
        following: what was seen after them, likewise.
        terminated: whether the episode came to its end by itself then, [B].
        steps: how many of an environment's each is, [B].
        weights: of the loss, [B].
    """

    rows: NDArray[np.int64]
    seen: Seen
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    following: Seen
    terminated: NDArray[np.bool_]
    steps: NDArray[np.float32]
    weights: NDArray[np.float32]


@dataclass
class Pieces:
    """L steps of B environments one after the other, as a `Rollout`: what was seen has one more.

    Attributes:
        cut: whether what followed is not known, since the episode was cut there, [L, B].
        memory: what the policy remembered before the first of them, [B, S].
    """

    seen: Seen
    actions: NDArray[Any]
    rewards: NDArray[np.float32]
    terminated: NDArray[np.bool_]
    cut: NDArray[np.bool_]
    first: NDArray[np.bool_]
    memory: NDArray[np.float32]


class Replay:
    """Steps in the order of their coming; a full memory forgets the oldest.

    Args:
        capacity: how many steps are kept, of all environments together.
        count: environments, N.
        observations, actions: the environment's.
        gamma: the discount γ within n-step returns.
        seed: of what is drawn.
        n_step: rewards added up; fewer where the episode, or what is known of it, ends.
        draw: how steps are chosen.
        alpha: the α of priorities (|δ| + ε)^α.
        beta: the β of the weights (N·P)^-β, scaled to a maximum of 1 in each batch.
        memory: width of what a policy remembers, S.
    """

    def __init__(
        self,
        capacity: int,
        count: int,
        observations: Observations,
        actions: Actions,
        *,
        gamma: float,
        seed: int = 0,
        n_step: int = 1,
        draw: Draw = "uniform",
        alpha: float = 0.6,
        beta: float = 0.4,
        memory: int = 0,
    ) -> None:
        self._rng = np.random.default_rng(seed)
        self._gamma, self._n_step = gamma, n_step
        self._draw, self._alpha, self._beta = draw, alpha, beta
        # One row more than there are steps: what is seen before the next one.
        self._rows, self._count = capacity // count + 1, count
        shape = (self._rows, count)
        # The system gives memory to rows as they are written.
        self._seen = observations.empty(*shape)
        self._columns: dict[str, NDArray[Any]] = {
            "actions": np.empty((*shape, *actions.shape), actions.type),
            "rewards": np.empty(shape, np.float32),
            "terminated": np.empty(shape, bool),
            "ended": np.empty(shape, bool),
            "first": np.empty(shape, bool),
            "priority": np.empty(shape),
            "memories": np.empty((*shape, memory), np.float32),
        }
        # What was seen last in episodes that were cut, by row and environment.
        self._finals: dict[tuple[int, int], Seen] = {}
        self._added, self._highest = 0, 1.0

    def __len__(self) -> int:
        return self._known * self._count

    @property
    def _known(self) -> int:
        """Rows that have been followed by another."""
        return min(self._added, self._rows - 1)

    def add(self, rollout: Rollout, lost: Sequence[bool] | None = None) -> None:
        """Takes up steps.

        Args:
            rollout: T of each environment.
            lost: of each environment, whether its episode was cut before.

        Raises:
            ValueError: they are more than half of what can be kept.
        """
        steps = len(rollout.rewards)
        if 2 * steps >= self._rows:
            raise ValueError(f"capacity must be at least twice the {rollout.steps} steps of one round")
        for column in np.flatnonzero([] if lost is None else lost):
            self._cut_before(int(column))
        rows = (self._added + np.arange(steps + 1)) % self._rows
        self._finals = {
            place: seen for place, seen in self._finals.items() if place[0] not in set(rows.tolist())
        }
        for name, part in rollout.seen.items():
            self._seen[name][rows] = part
        for name in ("actions", "rewards", "terminated"):
            self._columns[name][rows[:-1]] = getattr(rollout, name)
        self._columns["ended"][rows[:-1]] = rollout.terminated | rollout.truncated
        self._columns["first"][rows] = rollout.first
        self._columns["memories"][rows] = rollout.memories
        self._columns["priority"][rows[:-1]] = self._highest
        for index, (step, column) in enumerate(rollout.ends.T):
            if not rollout.terminated[step, column]:
                seen = {name: part[index] for name, part in rollout.finals.items()}
                self._finals[int(rows[step]), int(column)] = seen
        self._added += steps

    def _cut_before(self, column: int) -> None:
        if not self._added:
            return
        row, ahead = (self._added - 1) % self._rows, self._added % self._rows
        if not self._columns["ended"][row, column]:
            self._columns["ended"][row, column] = True
            self._finals[row, column] = {
                name: part[ahead, column].copy() for name, part in self._seen.items()
            }

    def sample(self, count: int) -> Transitions:
        """Draws steps with replacement, or takes the last ones."""
        places, weights = self._choose(count)
        rows, columns = self._rows_of(places)
        column, last = self._columns, rows.copy()
        rewards, taken = column["rewards"][rows, columns].copy(), np.ones(count, np.int64)
        newest = (self._added - 1) % self._rows
        for _ in range(1, self._n_step):
            going = ~column["ended"][last, columns] & (last != newest)
            last = np.where(going, (last + 1) % self._rows, last)
            gain = np.float32(self._gamma) ** taken * column["rewards"][last, columns]
            rewards += np.where(going, gain, 0).astype(np.float32)
            taken += going
        following = {name: part[(last + 1) % self._rows, columns] for name, part in self._seen.items()}
        ended = column["ended"][last, columns] & ~column["terminated"][last, columns]
        for index in np.flatnonzero(ended):
            for name, value in self._finals[int(last[index]), int(columns[index])].items():
                following[name][index] = value
        return Transitions(
            rows=places,
            seen={name: part[rows, columns] for name, part in self._seen.items()},
            actions=column["actions"][rows, columns],
            rewards=rewards,
            following=following,
            terminated=column["terminated"][last, columns],
            steps=taken.astype(np.float32),
            weights=weights,
        )

    def _rows_of(self, places: NDArray[np.int64]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
        """Rows and environments of places, which are counted from the oldest step."""
        oldest = self._added - self._known
        return (oldest + places // self._count) % self._rows, places % self._count

    def _choose(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        size, even = len(self), np.ones(count, np.float32)
        if self._draw == "last":
            return size - 1 - np.arange(count) % size, even
        if self._draw == "uniform":
            return self._rng.integers(size, size=count), even
        # One running sum for a batch takes less time than a tree in Python, up to some million steps.
        order = (self._added - self._known + np.arange(self._known)) % self._rows
        shares = (self._columns["priority"][order] ** self._alpha).ravel()
        sums = np.cumsum(shares)
        places = np.searchsorted(sums, self._rng.random(count) * sums[-1], side="right")
        places = np.minimum(places, size - 1)
        weights = (size * shares[places] / sums[-1]) ** -self._beta
        return places, (weights / weights.max()).astype(np.float32)

    def prioritize(self, places: NDArray[np.int64], errors: Tensor) -> None:
        """Tells the temporal-difference errors δ of the steps of these places, before others are added."""
        if self._draw == "prioritized":
            priority = np.abs(errors.detach().cpu().numpy()) + _LEAST
            self._columns["priority"][self._rows_of(places)] = priority
            self._highest = max(self._highest, float(priority.max()))

    def pieces(self, count: int, length: int) -> Pieces:
        """Draws pieces of what an environment did; episodes end and begin within them."""
        length = min(length, self._known)
        starts = self._rng.integers(self._known - length + 1, size=count)
        columns = self._rng.integers(self._count, size=count)
        oldest = self._added - self._known
        rows = (oldest + starts + np.arange(length + 1)[:, None]) % self._rows
        column = {name: values[rows[:-1], columns] for name, values in self._columns.items()}
        return Pieces(
            seen={name: part[rows, columns] for name, part in self._seen.items()},
            actions=column["actions"],
            rewards=column["rewards"],
            terminated=column["terminated"],
            cut=column["ended"] & ~column["terminated"],
            first=self._columns["first"][rows, columns],
            memory=self._columns["memories"][rows[0], columns],
        )

    def state(self) -> dict[str, Any]:
        """All of it."""
        known = min(self._added + 1, self._rows)
        return {
            "rng": self._rng.bit_generator.state,
            "added": self._added,
            "highest": self._highest,
            "seen": {name: part[:known].copy() for name, part in self._seen.items()},
            "columns": {name: part[:known].copy() for name, part in self._columns.items()},
            "finals": dict(self._finals),
        }

    def load(self, state: dict[str, Any]) -> None:
        """Takes up a state of a memory of as many environments.

        Raises:
            ValueError: it has another size.
        """
        self._rng.bit_generator.state = state["rng"]
        self._added, self._highest, self._finals = state["added"], state["highest"], dict(state["finals"])
        for mine, saved in ((self._seen, state["seen"]), (self._columns, state["columns"])):
            for name, part in saved.items():
                mine[name][: len(part)] = part
