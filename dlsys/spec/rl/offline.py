"""`algorithm:` sections that learn from recorded episodes alone."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.rl.section import Deep, Sees, Share
from dlsys.spec.section import Count, FileName, Fraction, NonNegative, Positive


class Offline(Deep):
    """Learns from episodes that someone has recorded, and acts in evaluations alone. The run's steps are
    the recorded steps that it has learned from, each as often as that was."""

    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat",)
    CHANCES: ClassVar[bool] = True
    RLLIB: ClassVar[bool] = False
    RUNNERS: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "parts"
    OWN: ClassVar[bool] = True

    episodes: FileName
    """A Parquet file of recorded episodes, or a folder of such files; a relative path starts at the job
    file's folder. A row is a step: eps_id, t, obs, actions, rewards, new_obs, terminateds, truncateds."""
    clip_norm: Positive | None = 40.0
    """Scales the whole gradient down to this norm."""
    batch_size: Count = 256
    """Steps of one update."""
    updates: Count = 200
    """Updates of an iteration."""


class BC(Offline):
    """Behaviour cloning: does what was done."""

    UNBOUNDED: ClassVar[bool] = True

    name: Literal["bc"]
    lr: Positive = 1e-3
    """The learning rate."""


class MARWIL(Offline):
    """Monotonic advantage re-weighted imitation learning (Wang et al. 2018): does what was done, and more
    so what turned out well."""

    UNBOUNDED: ClassVar[bool] = True

    name: Literal["marwil"]
    lr: Positive = 1e-3
    """The learning rate."""
    weight: Share = 1.0
    """How much more the better actions count, the β of the paper; 0 clones."""
    value_weight: NonNegative = 1.0
    """The weight of the value function's loss."""


class IQL(Offline):
    """Implicit Q-learning (Kostrikov et al. 2021): never asks what an action is worth that was not
    recorded."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("continuous",)

    name: Literal["iql"]
    lr: Positive = 1e-3
    """The learning rate."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (128, 128)
    """The widths of the hidden layers of each network."""
    activation: Literal["tanh", "relu", "silu"] = "relu"
    """Between them."""
    average: Annotated[Share, Field(gt=0)] = 0.05
    """How far the target value functions move to the learned ones at each update, the τ of SAC."""
    expectile: Annotated[Fraction, Field(gt=0)] = 0.8
    """What share of the way from the mean to the best of the recorded actions the value function goes, the
    τ of the paper."""
    weight: Annotated[Share, Field(gt=0)] = 1.0
    """How much more the better actions count, the β of the paper, where the recorded returns have a standard
    deviation of 10: rewards are given this unit first."""


class CQL(Offline):
    """Conservative Q-learning (Kumar et al. 2020): presses down what actions seem to be worth that were not
    recorded; SAC's policy and networks."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("continuous",)

    name: Literal["cql"]
    lr: Positive = 1e-3
    """The learning rate of the policy, the values and the temperature."""
    hidden: Annotated[tuple[Count, ...], Field(min_length=1, max_length=16)] = (128, 128)
    """The widths of the hidden layers of each network."""
    activation: Literal["tanh", "relu", "silu"] = "relu"
    """Between them."""
    average: Annotated[Share, Field(gt=0)] = 0.01
    """How far the target values move to the learned ones at each update, the τ of SAC."""
    weight: NonNegative = 0.3
    """How hard values are pressed down, the α of the paper, where the recorded returns have a standard
    deviation of 10: rewards are given this unit first. With 0 it is SAC, which believes what it cannot
    know."""
    samples: Count = 4
    """Actions drawn uniformly for each step, and as many from the policy, that stand for all there are."""
