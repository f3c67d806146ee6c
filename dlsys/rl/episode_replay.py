"""A memory of RLlib's episodes, which draws sequences of what was seen, as recurrent models learn from them.

RLlib's buffers keep episodes, and make an object of each step that they draw. Here a batch is a handful of
numpy's indexed reads, and the state is a few arrays.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray


class Sequences:
    """Steps (s, a, r, s′) in order of their coming; a full memory forgets the oldest.

    Args:
        capacity: how many steps are kept.
    """

    def __init__(self, capacity: int) -> None:
        self.rng = np.random.default_rng()
        self._capacity = capacity
        self._columns: dict[str, NDArray[Any]] = {}
        self._added = 0
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
        }
        for name, values in new.items():
            if name not in self._columns:
                # The system gives memory to rows as they are written.
                self._columns[name] = np.empty((self._capacity, *values.shape[1:]), values.dtype)
            self._columns[name][rows] = values

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

    def get_state(self) -> dict[str, Any]:
        """All but the random numbers; running episodes are over for whoever takes it up, and here too."""
        self._ends = {}
        columns = {name: values[: len(self)].copy() for name, values in self._columns.items()}
        return {"added": self._added, "columns": columns}

    def set_state(self, state: dict[str, Any]) -> None:
        """Takes up a state."""
        self._added, self._ends = state["added"], {}
        self._columns = {}
        for name, values in state["columns"].items():
            self._columns[name] = np.empty((self._capacity, *values.shape[1:]), values.dtype)
            self._columns[name][: len(values)] = values


def _plain(values: Any) -> NDArray[Any]:
    array = np.asarray(values)
    return array.astype(np.float32) if array.dtype == np.float64 else array
