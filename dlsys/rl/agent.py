"""What the engine asks of an agent, whichever algorithm it is."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Iteration:
    """What an agent did in one iteration.

    Attributes:
        steps: environment steps.
        returns: the undiscounted sums of rewards of the episodes that ended in it.
        lengths: the steps of these episodes, in the same order.
        figures: what the algorithm has to tell of itself, such as `loss`, `residual` or `epsilon`.
        seconds: where the time went: `sample` (environment and actions) and `learn` (updates).
        done: it has converged: another iteration changes nothing.
    """

    steps: int
    returns: list[float]
    lengths: list[int]
    figures: dict[str, float]
    seconds: dict[str, float]
    done: bool = False


class Agent(Protocol):
    """An algorithm with its environment and all that it has learned."""

    def iterate(self) -> Iteration:
        """Samples and learns once: some hundred episodes, or some sweeps over all states."""
        ...

    def act(self, observations: np.ndarray) -> np.ndarray:
        """The actions for a batch of observations [N, ...], without exploration."""
        ...

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly: a tree of plain values, arrays and tensors."""
        ...

    def load(self, state: dict[str, Any]) -> None:
        """Goes back to what `state` returned."""
        ...

    def weights(self) -> dict[str, np.ndarray]:
        """What was learned, for use elsewhere: `{"q": [S, A]}`, `{"policy": [S]}`, or a network's."""
        ...

    def close(self) -> None:
        """Ends the environment and every process the agent has started."""
        ...
