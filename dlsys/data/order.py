"""Which rows make up which step, and which worker gets which of them.

The order of rows is a pure function of (seed, epoch, step). Nothing is remembered between steps,
so a resumed run continues exactly, and any number of workers sees the same global batches.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Literal

import numpy as np


@dataclass
class Order:
    """The global batches of one split.

    A global batch has `batch_size` slots. Every step fills all of them but the last step of an
    epoch, which fills the first ones; no row is left out and none comes twice in an epoch.

    Args:
        rows: rows of the split.
        batch_size: rows of a full global batch.
        kind: `shuffled`: a new permutation each epoch. `sequential`: as they are. `streams`: slot
            i of a step continues slot i of the step before: the split is cut into `batch_size`
            runs of neighbouring rows, the first ones a row longer where it does not divide.
        seed: decides the permutations.
    """

    rows: int
    batch_size: int
    kind: Literal["shuffled", "sequential", "streams"]
    seed: int = 0
    _cache: tuple[int, np.ndarray] | None = field(default=None, init=False, repr=False)

    @property
    def steps_per_epoch(self) -> int:
        return -(-self.rows // self.batch_size)

    def step(self, epoch: int, step: int) -> np.ndarray:
        """The rows of one global batch in the order of its slots; int64, shape (≤ batch_size,)."""
        first = step * self.batch_size
        last = min(first + self.batch_size, self.rows)
        if self.kind == "sequential":
            return np.arange(first, last)
        if self.kind == "shuffled":
            return self._permutation(epoch)[first:last]
        each, longer = divmod(self.rows, self.batch_size)
        slots = np.arange(self.batch_size if step < each else longer)
        return slots * each + np.minimum(slots, longer) + step

    def _permutation(self, epoch: int) -> np.ndarray:
        if self._cache is None or self._cache[0] != epoch:
            generator = np.random.Generator(np.random.Philox(key=[self.seed, epoch]))
            self._cache = (epoch, generator.permutation(self.rows))
        return self._cache[1]


@dataclass(frozen=True)
class Share:
    """One micro-batch of one worker.

    Attributes:
        rows: row numbers; never empty, so that every worker takes part in every step.
        real: how many of them count. 0 means that `rows` is one stand-in row of weight 0.
    """

    rows: np.ndarray
    real: int


def shares(rows: np.ndarray, batch_size: int, rank: int, size: int, micro: int) -> list[Share]:
    """Cuts a worker's micro-batches out of a global batch.

    Slots are owned by position, never by how full the batch is: slot s belongs to the same worker
    and micro-batch at every step, as carried state needs.

    Args:
        rows: the global batch, from `Order.step`.
        batch_size: slots of a full one; need not be divisible by `size` × `micro`.
        rank: this worker, from 0.
        size: workers.
        micro: micro-batches for each worker.
    """
    edges = [batch_size * i // (size * micro) for i in range(size * micro + 1)]
    parts = []
    for i in range(rank * micro, (rank + 1) * micro):
        part = rows[edges[i] : edges[i + 1]]
        parts.append(Share(part, len(part)) if len(part) else Share(rows[:1], 0))
    return parts
