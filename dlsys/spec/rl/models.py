"""`algorithm:` sections that learn a model of their environment, or learn without gradients."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.rl.section import AlgorithmSection, Deep, Sees, Share
from dlsys.spec.section import Count, NonNegative, NonNegativeInt, Positive


class MBPO(Deep):
    """Model-based policy optimization (Janner et al. 2019): a soft actor-critic that learns mostly from
    short rollouts in an ensemble of learned models. It takes few steps of the environment, and much
    computation for each."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("continuous",)
    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat",)
    RLLIB: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "parts"
    OWN: ClassVar[bool] = True
    CHANCES: ClassVar[bool] = True

    name: Literal["mbpo"]
    lr: Positive = 1e-3
    """The learning rate of the policy, its value functions and its temperature."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (128, 128)
    """The widths of the hidden layers of each network, the models' too."""
    activation: Literal["tanh", "relu", "silu"] = "silu"
    """Between them."""
    clip_norm: Positive | None = None
    """Scales the whole gradient of a network down to this norm."""
    batch_size: Count = 128
    """Rows of one update, of the policy and of the models."""
    updates: Count = 20
    """The policy's updates for each step of the environment."""
    average: Annotated[Share, Field(gt=0)] = 0.03
    """How far the target value functions move to the learned ones at each update, the τ of SAC."""
    start: Count = 200
    """Steps with random actions, before anything is learned."""
    every: Count = 50
    """Steps of an iteration: between them the models learn, and imagine anew."""
    models: Count = 5
    """Networks of the ensemble; each step of a rollout is a random one's."""
    model_lr: Positive = 1e-3
    """Their learning rate."""
    horizon: Count = 10
    """Steps of each rollout."""
    rollouts: Count = 1500
    """Rollouts of an iteration."""
    real: Share = 0.1
    """The share of the environment's own steps in the policy's batches."""
    memory: Count = 1_000_000
    """Steps of the environment that are kept."""


class MPC(AlgorithmSection):
    """Model-predictive control by random shooting (Nagabandi et al. 2018): learned models, in which many
    random plans are tried at every step. It takes few steps of the environment, and much computation for
    each."""

    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat",)
    RLLIB: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "parts"
    OWN: ClassVar[bool] = True
    LAYERS: ClassVar[bool] = False

    name: Literal["mpc"]
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (64, 64)
    """The widths of the hidden layers of each model."""
    activation: Literal["tanh", "relu", "silu"] = "silu"
    """Between them."""
    plans: Count = 400
    """Plans that are tried at every step."""
    horizon: Count = 20
    """Steps of a plan."""
    models: Count = 3
    """Networks of the ensemble; what they expect is averaged."""
    lr: Positive = 1e-3
    """Their learning rate."""
    batch_size: Count = 128
    """Rows of one update."""
    start: Count = 200
    """Steps with random actions, before anything is planned."""
    every: Count = 200
    """Steps between which the models learn."""
    memory: Count = 1_000_000
    """Steps of the environment that are kept."""

    @property
    def model_lr(self) -> float:
        """As of algorithms that learn something else besides."""
        return self.lr


class DreamerV3(AlgorithmSection):
    """DreamerV3 (Hafner et al. 2023); RLlib's. It learns a recurrent model of the environment, and to act
    in what that model imagines. Its policy remembers what it has seen in an episode."""

    IMAGES: ClassVar[tuple[int, ...] | None] = (64, 64, 3)
    CHANCES: ClassVar[bool] = True

    name: Literal["dreamerv3"]
    size: Literal["nano", "micro", "mini", "XXS", "XS", "S", "M", "L", "XL"] = "micro"
    """How large its networks are: RLlib's names for 16, 32, 64 and 128 units, and the paper's from XS, with
    256, to XL."""
    model_lr: Positive = 1.5e-3
    """The learning rate of the model of the environment."""
    actor_lr: Positive = 4e-4
    """The learning rate of the policy."""
    critic_lr: Positive = 1e-3
    """The learning rate of the value function."""
    batch_size: Count = 16
    """Sequences that one update learns from."""
    length: Annotated[Count, Field(ge=2)] = 16
    """Steps of each of them."""
    horizon: Count = 10
    """Steps that are imagined from each step of a batch."""
    updates: Positive = 0.15
    """Updates for each step of the environment, over all environments. The paper's training ratio is this
    times batch_size and length."""
    trace: Share = 0.95
    """The λ of the returns of what is imagined."""
    entropy: NonNegative = 3e-4
    """The weight of the policy's entropy."""
    capacity: Count = 100_000
    """Steps that the memory keeps; then new ones take the place of the oldest."""
    starts: NonNegativeInt = 500
    """Steps of the environment before the first update."""
    fragment: Count = 8
    """Steps that each environment takes between rounds of updates."""


class Genetic(AlgorithmSection):
    """A genetic algorithm over the parameters of small policies (Such et al. 2017)."""

    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat",)
    RLLIB: ClassVar[bool] = False

    name: Literal["genetic"]
    gamma: Share = 1.0
    """The discount γ of rewards a step later, in the return that selects."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (16,)
    """The widths of a policy's hidden layers."""
    activation: Literal["tanh", "relu", "silu"] = "tanh"
    """Between them."""
    population: Annotated[Count, Field(ge=2)] = 64
    """Policies of a generation."""
    episodes: Count = 3
    """Episodes that each of them plays, all from the same starts."""
    elite: Count = 4
    """The best policies of a generation, which the next one has unchanged."""
    tournament: Count = 4
    """Policies drawn for each parent; the best of them is it."""
    crossover: Share = 0.5
    """The share of children with two parents: each parameter is one's or the other's."""
    mutation: Positive = 0.3
    """The standard deviation of the noise on a child's parameters."""
