"""What all of an agent's algorithms say in their sections."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.section import Count, NonNegative, Number, Positive, Section

Share = Annotated[Number, Field(ge=0, le=1)]
# What an agent sees: what the environment shows, one float32 array, or the parts of `dlsys.rl.observations`.
Sees = Literal["plain", "vector", "parts"]


class Ramp(Section):
    """A number that changes in a straight line over the run's first steps, and then stays."""

    start: NonNegative
    """What it is at first."""
    end: NonNegative
    """What it becomes."""
    steps: Count
    """Steps of the environment until then."""


Scheduled = NonNegative | Ramp


def at(told: float | Ramp, step: int) -> float:
    """What a number that may change is at a step of the environment."""
    if not isinstance(told, Ramp):
        return told
    return told.start + (told.end - told.start) * min(step / told.steps, 1.0)


class AlgorithmSection(Section):
    """What an algorithm says of the environments that it suits."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("discrete", "continuous")
    # Whether it can choose numbers that have no bounds: those that squash them into ±1 cannot.
    UNBOUNDED: ClassVar[bool] = False
    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat", "image")
    # Whether its policy says how likely each action is, and evaluations can draw from it.
    CHANCES: ClassVar[bool] = False
    # Whether it needs the environment's model.
    PLANS: ClassVar[bool] = False
    # Whether it searches the moves of a board game.
    GAMES: ClassVar[bool] = False
    # Whether it learns the policies of several agents.
    GROUPS: ClassVar[bool] = False
    # The one shape of images that its networks take.
    IMAGES: ClassVar[tuple[int, ...] | None] = None
    # Whether its entry in the registry makes RLlib's configuration, which needs Ray even for one process, or
    # an agent of our own; and whether env runners can sample for it.
    RLLIB: ClassVar[bool] = True
    RUNNERS: ClassVar[bool] = True
    SEES: ClassVar[Sees] = "vector"
    # Whether its networks and their learning are ours; whether `model` and `normalize` say more of them then;
    # whether they can have a memory, and the user's own layers.
    OWN: ClassVar[bool] = False
    LAYERS: ClassVar[bool] = True
    MEMORY: ClassVar[bool] = False
    MODULE: ClassVar[bool] = True
    # Whether env runners sample while the learner learns: without one, nothing would.
    ASYNCHRONOUS: ClassVar[bool] = False
    # Whether it learns from whole episodes only.
    WHOLE_EPISODES: ClassVar[bool] = False

    gamma: Share = 0.99
    """The discount γ of rewards a step later."""


class Deep(AlgorithmSection):
    """An algorithm with networks."""

    lr: Positive = 3e-4
    """The learning rate."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (64, 64)
    """The widths of the hidden layers of each network."""
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """Between them."""
    clip_norm: Positive | None = 0.5
    """Scales the whole gradient down to this norm."""
