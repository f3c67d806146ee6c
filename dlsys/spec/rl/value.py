"""`algorithm:` sections that learn the values of actions from a memory of steps."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.rl.section import Deep, Scheduled, Sees, Share
from dlsys.spec.section import Bool, Count, NonNegative, NonNegativeInt, Number, Positive


class Replayed(Deep):
    """An algorithm that learns from what it did long ago, too."""

    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat", "image", "mixed")
    RLLIB: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "parts"
    OWN: ClassVar[bool] = True

    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (256, 256)
    """The widths of the hidden layers of each network."""
    activation: Literal["tanh", "relu", "silu"] = "relu"
    """Between them."""
    clip_norm: Positive | None = 10.0
    """Scales the gradient of each optimizer down to this norm."""
    batch_size: Count = 128
    """Steps that one update learns from."""
    capacity: Count = 100_000
    """Steps that the memory keeps; then new ones take the place of the oldest."""
    starts: NonNegativeInt = 1000
    """Steps of the environment before the first update."""
    fragment: Count = 8
    """Steps that each environment takes between rounds of updates."""
    updates: Positive = 0.25
    """Updates for each step of the environment, over all environments."""
    replay: Literal["uniform", "prioritized", "last"] = "uniform"
    """What an update learns from: any steps, those that surprised most (Schaul et al. 2016), or the
    last ones, as without a memory."""
    priority: Share = 0.6
    """The α of prioritized replay: 0 draws uniformly, 1 in proportion to the error."""
    correction: Share = 0.4
    """The β of prioritized replay: how much of its bias the weights of the loss take away."""
    n_step: Count = 1
    """Rewards added up before the value of the state that follows them."""


class DQN(Replayed):
    """Deep Q-networks (Mnih et al. 2015) and what has been added to them."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("discrete",)
    MEMORY: ClassVar[bool] = True

    name: Literal["dqn"]
    lr: Scheduled = 5e-4  # type: ignore[assignment]
    """The learning rate; a number or a ramp."""
    n_step: Count = 3
    """Rewards added up before the value of the state that follows them."""
    double: Bool = False
    """Whether the online network chooses the action that the target network values (van Hasselt et al.
    2016): values are overestimated less."""
    dueling: Literal["mean", "max"] | None = None
    """Separate streams for the state's value and the actions' advantages (Wang et al. 2016), of which the
    mean or the maximum over the actions is taken away."""
    atoms: Count = 1
    """Points of each action's distribution of returns (Bellemare et al. 2017); with 1, its mean alone is
    learned."""
    v_min: Number = 0.0
    """The lowest return of the distribution."""
    v_max: Number = 100.0
    """The highest return of the distribution."""
    noisy: Bool = False
    """Whether noise in the weights explores, and how much is learned (Fortunato et al. 2018); ε is not
    used then."""
    noise: Positive = 0.5
    """The first scale σ₀ of that noise."""
    epsilon: Share = 0.02
    """The share of random actions in the end; it starts at 1."""
    epsilon_steps: Count = 5_000
    """Steps over which it falls."""
    target_every: Count = 250
    """Steps of the environment after which the target network takes the online one's weights."""


class Rainbow(DQN):
    """DQN with all six additions (Hessel et al. 2018)."""

    name: Literal["rainbow"]  # type: ignore[assignment]
    replay: Literal["uniform", "prioritized", "last"] = "prioritized"
    """As in `dqn`."""
    priority: Share = 0.5
    """As in `dqn`."""
    double: Bool = True
    """As in `dqn`."""
    dueling: Literal["mean", "max"] | None = "mean"
    """As in `dqn`."""
    atoms: Count = 51
    """As in `dqn`."""
    noisy: Bool = True
    """As in `dqn`."""


class SAC(Replayed):
    """Soft actor-critic with a learned temperature (Haarnoja et al. 2018), and its form for discrete actions
    (Christodoulou 2019)."""

    CHANCES: ClassVar[bool] = True

    name: Literal["sac"]
    clip_norm: Positive | None = None
    """Scales the gradient of each optimizer down to this norm."""
    lr: Positive = 1e-3
    """The learning rate of the policy, the values and the temperature."""
    tau: Share = 0.005
    """How much of the online networks' weights the target networks take at each update."""
    updates: Positive = 1.0
    """Updates for each step of the environment, over all environments."""
    twin: Bool = True
    """Whether the lower one of two networks' values counts."""
    temperature: Positive = 1.0
    """The first weight α of the policy's entropy."""
    entropy: Number | None = None
    """The entropy that the temperature aims at; by default minus the number of the actions' parts, and for
    n discrete actions that are legal half of log n."""


class DDPG(Replayed):
    """Deep deterministic policy gradient (Lillicrap et al. 2016), with the switches that make it TD3
    (Fujimoto et al. 2018)."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("continuous",)

    name: Literal["ddpg"]
    clip_norm: Positive | None = None
    """Scales the gradient of each optimizer down to this norm."""
    lr: Positive = 1e-3
    """The learning rate of the policy and the values."""
    tau: Share = 0.005
    """How much of the online networks' weights the target networks take."""
    updates: Positive = 1.0
    """Updates for each step of the environment, over all environments."""
    explore: NonNegative = 0.1
    """The standard deviation of the noise on actions, which lie in ±1."""
    twin: Bool = False
    """Whether the lower one of two networks' values counts."""
    delay: Count = 1
    """Updates of the values for each one of the policy and the target networks."""
    smoothing: NonNegative = 0.0
    """The standard deviation of the noise on the target policy's actions."""
    smoothing_limit: Positive = 0.5
    """Where that noise is cut off."""


class TD3(DDPG):
    """DDPG with twin values, delayed policies and smoothed targets (Fujimoto et al. 2018)."""

    name: Literal["td3"]  # type: ignore[assignment]
    twin: Bool = True
    """As in `ddpg`."""
    delay: Count = 2
    """As in `ddpg`."""
    smoothing: NonNegative = 0.2
    """As in `ddpg`."""
