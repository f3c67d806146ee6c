"""What all of an agent's algorithms say in their sections."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.section import Count, Number, Positive, Section

Share = Annotated[Number, Field(ge=0, le=1)]


class AlgorithmSection(Section):
    """What an algorithm says of the environments that it suits."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("discrete", "continuous")
    # Whether it can choose numbers that have no bounds: those that squash them into ±1 cannot.
    UNBOUNDED: ClassVar[bool] = False
    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat", "image")
    # Whether it needs the environment's model.
    PLANS: ClassVar[bool] = False
    # Whether it searches the moves of a board game.
    GAMES: ClassVar[bool] = False
    # The one shape of images that its networks take.
    IMAGES: ClassVar[tuple[int, ...] | None] = None
    # Whether its entry in the registry makes RLlib's configuration, or an agent of our own; and whether
    # that needs Ray.
    RLLIB: ClassVar[bool] = True
    RAY: ClassVar[bool] = True
    # Whether it takes one vector for what is discrete, a dictionary or a tuple.
    FLAT: ClassVar[bool] = True
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
