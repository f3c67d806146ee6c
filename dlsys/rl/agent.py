"""What the loop of `kind: rl` asks of an agent, whichever library it comes from."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any, Protocol

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

    def act(self, observations: NDArray[Any]) -> NDArray[Any]:
        """The best known actions, without exploration.

        Args:
            observations: of shape [N, …].

        Returns:
            N actions, as the environment takes them.
        """

    def state(self) -> dict[str, Any]:
        """All that is needed to go on exactly: plain values, numpy arrays and tensors by name."""

    def load(self, state: dict[str, Any]) -> None:
        """Takes up a state."""

    def weights(self) -> dict[str, NDArray[Any]]:
        """What acts, by name: a network's parameters, or a table."""

    def close(self) -> None:
        """Ends what the agent has started."""
