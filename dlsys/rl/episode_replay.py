"""A memory of steps: uniform, prioritized (https://arxiv.org/abs/1511.05952), or the last ones alone.

RLlib's buffers keep episodes, and make an object of each step that they draw: 64 of them take longer than
the update that learns from them. Here a batch is a handful of numpy's indexed reads, n-step returns end
with their episode instead of passing over its last steps, and the state is a few arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Literal

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

# Added to each error, so that no step is lost for ever.
_LEAST = 1e-6


class Replay:
    """Steps (s, a, r, s′) in order of their coming; a full memory forgets the oldest.

    Args:
        capacity: how many steps are kept.
        gamma: the discount γ within n-step returns.
        n_step: rewards added up; fewer where the episode, or what is known of it, ends.
        draw: how steps are chosen.
        alpha: the α of priorities (|δ| + ε)^α.
        beta: the β of the weights (N·P)^-β, scaled to a maximum of 1 in each batch.
    """

    def __init__(
        self,
        capacity: int,
        *,
        gamma: float,
        n_step: int = 1,
        draw: Literal["uniform", "prioritized", "last"] = "uniform",
        alpha: float = 0.6,
        beta: float = 0.4,
    ) -> None:
        self.rng = np.random.default_rng()
        self._capacity, self._gamma, self._n_step = capacity, gamma, n_step
        self._draw, self._alpha, self._beta = draw, alpha, beta
        self._columns: dict[str, NDArray[Any]] = {}
        self._added = 0
        self._highest = 1.0
        # The row of each running episode's last step: the next one follows it.
        self._ends: dict[str, int] = {}

    def __len__(self) -> int:
        return min(self._added, self._capacity)

    def add(self, episodes: Sequence[Any]) -> None:
        """Takes up RLlib's episodes, or the newest parts of them.

        Raises:
            ValueError: they are more than half of what can be kept.
        """
        steps = sum(len(episode) for episode in episodes)
        if 2 * steps > self._capacity:
            raise ValueError(f"capacity must be at least twice the {steps} steps of one round")
        ends = {}
        for episode in episodes:
            if length := len(episode):
                rows = (self._added + np.arange(length)) % self._capacity
                self._write(rows, episode)
                if (before := self._ends.get(episode.id_)) is not None:
                    self._columns["next"][before] = rows[0]
                self._added += length
                if not episode.is_done:
                    ends[episode.id_] = int(rows[-1])
        self._ends = ends

    def _write(self, rows: NDArray[np.int64], episode: Any) -> None:
        seen = _plain(episode.get_observations())
        over = np.zeros(len(rows), bool)
        over[-1] = episode.is_terminated
        new = {
            "obs": seen[:-1],
            "new_obs": seen[1:],
            "actions": _plain(episode.get_actions()),
            "rewards": _plain(episode.get_rewards()).astype(np.float32),
            "terminateds": over,
            "next": np.append(rows[1:], -1),
            "priority": np.full(len(rows), self._highest),
        }
        for name, values in new.items():
            if name not in self._columns:
                # The system gives memory to rows as they are written.
                self._columns[name] = np.empty((self._capacity, *values.shape[1:]), values.dtype)
            self._columns[name][rows] = values

    def sample(self, count: int) -> tuple[NDArray[np.int64], dict[str, NDArray[Any]]]:
        """Draws steps with replacement, or takes the last ones.

        Returns:
            Their rows, and their columns: `obs`, `actions`, `rewards` (of up to n steps, discounted),
            `new_obs` and `terminateds` (after these), `n_step` (how many they are), `weights` of the loss.
        """
        rows, weights = self._choose(count)
        column, last = self._columns, rows.copy()
        rewards, taken = column["rewards"][rows].copy(), np.ones(count, np.int64)
        for _ in range(1, self._n_step):
            following = column["next"][last]
            going = following >= 0
            last = np.where(going, following, last)
            rewards += np.where(going, self._gamma**taken * column["rewards"][last], 0).astype(np.float32)
            taken += going
        return rows, {
            "obs": column["obs"][rows],
            "actions": column["actions"][rows],
            "rewards": rewards,
            "new_obs": column["new_obs"][last],
            "terminateds": column["terminateds"][last],
            "n_step": taken.astype(np.float32),
            "weights": weights,
        }

    def _choose(self, count: int) -> tuple[NDArray[np.int64], NDArray[np.float32]]:
        size, even = len(self), np.ones(count, np.float32)
        if self._draw == "last":
            return (self._added - 1 - np.arange(count) % size) % self._capacity, even
        if self._draw == "uniform":
            return self.rng.integers(size, size=count), even
        # One running sum for a batch takes less time than a tree in Python, up to some million steps.
        sums = np.cumsum(self._columns["priority"][:size] ** self._alpha)
        rows = np.searchsorted(sums, self.rng.random(count) * sums[-1], side="right")
        rows = np.minimum(rows, size - 1)
        share = self._columns["priority"][rows] ** self._alpha / sums[-1]
        weights = (size * share) ** -self._beta
        return rows, (weights / weights.max()).astype(np.float32)

    def prioritize(self, rows: NDArray[np.int64], errors: NDArray[Any] | Tensor) -> None:
        """Tells the temporal-difference errors δ of the steps of these rows."""
        if self._draw == "prioritized":
            known = errors.cpu().numpy() if isinstance(errors, Tensor) else errors
            priority = np.abs(known) + _LEAST
            self._columns["priority"][rows] = priority
            self._highest = max(self._highest, float(priority.max()))

    def get_state(self) -> dict[str, Any]:
        """All but the random numbers; running episodes are over for whoever takes it up, and here too."""
        self._ends = {}
        columns = {name: values[: len(self)].copy() for name, values in self._columns.items()}
        return {"added": self._added, "highest": self._highest, "columns": columns}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up a state."""
        self._added, self._highest, self._ends = state["added"], state["highest"], {}
        self._columns = {}
        for name, values in state["columns"].items():
            self._columns[name] = np.empty((self._capacity, *values.shape[1:]), values.dtype)
            self._columns[name][: len(values)] = values


class Sequences(Replay):
    """A memory that draws sequences of what was seen, as recurrent models learn from them."""

    def sequences(self, count: int, length: int) -> dict[str, NDArray[Any]]:
        """Draws sequences, each from a random step on; after an episode's end it goes on at another step.

        Returns:
            Columns [count, length, …]: `obs`; `actions` that followed (of an episode's last observation,
            any); `rewards` that came with the observation (0 where `is_first`); `is_first`, where nothing
            before it is known; `is_terminated`.
        """
        column, size = self._columns, len(self)
        rows = self.rng.integers(size, size=count)
        rewards, first, last = np.zeros(count, np.float32), np.ones(count, bool), np.zeros(count, bool)
        found: list[tuple[NDArray[Any], ...]] = []
        for _ in range(length):
            # A row stands for its step's first observation; the last one of an episode for its second, too.
            seen = column["obs"][rows]
            seen[last] = column["new_obs"][rows[last]]
            found.append((seen, column["actions"][rows], rewards, first, last & column["terminateds"][rows]))
            following = column["next"][rows]
            rewards = np.where(last, np.float32(0), column["rewards"][rows])
            first, last = last, ~last & (following < 0)
            rows = np.where(last, rows, following)
            rows = np.where(first, self.rng.integers(size, size=count), rows)
        names = ("obs", "actions", "rewards", "is_first", "is_terminated")
        columns = (np.stack(steps, axis=1) for steps in zip(*found, strict=True))
        return dict(zip(names, columns, strict=True))


def _plain(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype == np.float64 else array
