"""What the loop of `kind: rl` asks of an agent, whichever library it comes from."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol, runtime_checkable

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Iteration:
    """What one iteration did.

    Attributes:
        steps: environment steps done in it.
        returns: the undiscounted returns of the episodes that ended in it.
        lengths: their lengths, in steps.
        figures: what was learned, by name: `loss`, `entropy`, `epsilon`.
        seconds: where its time went: `sample`, `learn`, `sync`.
        done: it has converged: another iteration would change nothing.
    """

    steps: int
    returns: list[float] = field(default_factory=list)
    lengths: list[int] = field(default_factory=list)
    figures: dict[str, float] = field(default_factory=dict)
    seconds: dict[str, float] = field(default_factory=dict)
    done: bool = False


class Agent(Protocol):
    """Samples, learns and acts."""

    def iterate(self) -> Iteration:
        """Samples and learns once."""

    def act(self, observations: Any) -> NDArray[Any]:
        """The best known actions, without exploration.

        Args:
            observations: of shape [N, …], or such arrays by name, as `algorithm.SEES` says.

        Returns:
            N actions, in the one form of `dlsys.rl.actions`.
        """

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly: plain values, numpy arrays and tensors by name."""

    def load(self, state: dict[str, Any]) -> Sequence[str] | None:
        """Takes up a state; returns what is otherwise than it was, in words."""

    def weights(self) -> dict[str, NDArray[Any]]:
        """What acts, by name: a network's parameters, or a table."""

    def close(self) -> None:
        """Ends what the agent has started."""


@runtime_checkable
class Recurrent(Protocol):
    """What an agent can do besides, whose actions depend on what it has seen earlier in an episode."""

    def memory(self) -> NDArray[Any] | None:
        """What it remembers where an episode begins, [S]; None if it acts on what it sees alone."""

    def recall(self, observations: Any, memories: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any]]:
        """The best known actions, as `Agent.act`, and what it remembers then.

        Args:
            observations: likewise.
            memories: what it remembers of the N episodes, [N, S].
        """


class Acting:
    """Acts for an agent in episodes that run side by side, and keeps what it remembers of each.

    Args:
        agent: of any kind; most remember nothing.
    """

    def __init__(self, agent: Agent) -> None:
        self._agent = agent
        self._first = agent.memory() if isinstance(agent, Recurrent) else None
        self._memories: dict[int, NDArray[Any]] = {}

    def __call__(self, episodes: Sequence[int], observations: Any) -> NDArray[Any]:
        """The best known actions.

        Args:
            episodes: which ones these are. One that is new begins; one that is missing is over.
            observations: theirs, as `Known.stack` makes them.
        """
        if self._first is None:
            return self._agent.act(observations)
        assert isinstance(self._agent, Recurrent)
        before = np.stack([self._memories.get(episode, self._first) for episode in episodes])
        actions, after = self._agent.recall(observations, before)
        self._memories = dict(zip(episodes, after, strict=True))
        return actions
