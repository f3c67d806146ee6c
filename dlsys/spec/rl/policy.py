"""`algorithm:` sections that learn a policy from what it has just done."""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field

from dlsys.spec.rl.section import Deep, Scheduled, Sees, Share
from dlsys.spec.section import Bool, Count, NonNegative, Positive


class _Chances(Deep):
    """Draws continuous actions from normal distributions."""

    UNBOUNDED: ClassVar[bool] = True
    CHANCES: ClassVar[bool] = True


class _Own(_Chances):
    """An algorithm that is ours, with its networks."""

    ACTIONS: ClassVar[tuple[str, ...]] = ("discrete", "continuous", "composite")
    OBSERVATIONS: ClassVar[tuple[str, ...]] = ("flat", "image", "mixed")
    RLLIB: ClassVar[bool] = False
    SEES: ClassVar[Sees] = "parts"
    OWN: ClassVar[bool] = True


class PPO(_Own):
    """Proximal policy optimization (Schulman et al. 2017)."""

    name: Literal["ppo"]
    GROUPS: ClassVar[bool] = True
    MEMORY: ClassVar[bool] = True
    lr: Scheduled = 3e-4  # type: ignore[assignment]
    """The learning rate, or a ramp of it: {start: 3e-4, end: 0, steps: 1000000}."""
    batch_size: Count = 2048
    """Steps sampled by one policy, and learned from together."""
    minibatch_size: Count = 64
    """Rows of one update."""
    passes: Count = 10
    """Passes over each batch."""
    trace: Share = 0.95
    """The λ of generalized advantage estimation."""
    clip: Scheduled = 0.2
    """How far an action's probability may move, as a ratio; a number or a ramp."""
    entropy: Scheduled = 0.0
    """The weight of the policy's entropy; a number or a ramp."""
    value_weight: NonNegative = 0.5
    """The weight of the value function's loss."""
    kl: NonNegative = 0.0
    """The first weight of a penalty on the KL divergence from the old policy; it adapts. 0: none."""


class TRPO(_Own):
    """Trust region policy optimization (Schulman et al. 2015)."""

    name: Literal["trpo"]
    GROUPS: ClassVar[bool] = True
    lr: Positive = 1e-3
    """The learning rate of the value function; the policy has none."""
    batch_size: Count = 2048
    """Steps sampled by one policy, and learned from together."""
    max_kl: Positive = 0.01
    """How far an update may move the policy: the mean KL divergence of the new one from the old."""
    cg_iterations: Count = 10
    """Iterations of the conjugate gradient method."""
    cg_damping: NonNegative = 0.1
    """Added to the Fisher information matrix's diagonal."""
    line_search: Count = 10
    """Step lengths tried, each half of the one before it; when none will do, the policy stays."""
    trace: Share = 0.97
    """The λ of generalized advantage estimation."""
    minibatch_size: Count = 64
    """Rows of one update of the value function."""
    passes: Count = 5
    """Passes of the value function over each batch."""


class REINFORCE(_Own):
    """The first policy gradient (Williams 1992), with the discounted returns of whole episodes.

    Episodes are sampled one after the other, or by several env runners: of several environments that one
    process steps at once, those with the shortest episodes would be learned from most often.
    """

    name: Literal["reinforce"]
    WHOLE_EPISODES: ClassVar[bool] = True
    lr: Positive = 3e-3
    """The learning rate of the policy, and of the baseline."""
    batch_size: Count = 2000
    """Steps of whole episodes, at least, that one update of the policy learns from."""
    baseline: Bool = True
    """Whether a learned value function is subtracted from the returns; it lowers the variance."""
    entropy: NonNegative = 0.0
    """The weight of the policy's entropy."""
    minibatch_size: Count = 64
    """Rows of one update of the baseline."""
    passes: Count = 5
    """Passes of the baseline over each batch."""


class A2C(_Own):
    """Synchronous advantage actor-critic: one pass over each batch (Mnih et al. 2016, without the workers'
    asynchrony)."""

    name: Literal["a2c"]
    GROUPS: ClassVar[bool] = True
    MEMORY: ClassVar[bool] = True
    lr: Positive = 1e-3
    """The learning rate."""
    batch_size: Count = 128
    """Steps sampled by one policy, over all environments, for one update."""
    trace: Share = 0.95
    """The λ of generalized advantage estimation; 1 is the paper's n-step return."""
    entropy: NonNegative = 0.01
    """The weight of the policy's entropy."""
    value_weight: NonNegative = 0.5
    """The weight of the value function's loss."""


class A3C(_Own):
    """Asynchronous advantage actor-critic (Mnih et al. 2016): each env runner computes gradients on its own
    copy, and the shared parameters take them as they come."""

    name: Literal["a3c"]
    MEMORY: ClassVar[bool] = True
    ASYNCHRONOUS: ClassVar[bool] = True
    lr: Positive = 1e-3
    """The learning rate of Adam, whose moments the workers share."""
    rollout: Count = 32
    """Steps of each environment from which a worker computes one gradient."""
    trace: Share = 0.95
    """The λ of generalized advantage estimation; 1 is the paper's n-step return."""
    entropy: NonNegative = 0.01
    """The weight of the policy's entropy."""
    value_weight: NonNegative = 0.5
    """The weight of the value function's loss."""


class ACKTR(_Own):
    """Actor-critic with a Kronecker-factored trust region (Wu et al. 2017): natural gradients, whose Fisher
    information matrix is kept as two small factors for each layer."""

    name: Literal["acktr"]
    GROUPS: ClassVar[bool] = True
    MODULE: ClassVar[bool] = False
    lr: Positive = 0.25
    """The longest step along the natural gradient; the limit of the divergence makes most of them shorter."""
    batch_size: Count = 256
    """Steps sampled by one policy, over all environments, for one update."""
    max_kl: Positive = 0.002
    """The mean KL divergence that a step may be expected to make; likewise of the value function."""
    damping: Positive = 0.01
    """Added to the Fisher information matrix's diagonal."""
    decay: Share = 0.95
    """Of the running averages of the factors."""
    momentum: Annotated[Share, Field(lt=1)] = 0.9
    """How much of a step is that of the ones before it."""
    trace: Share = 0.95
    """The λ of generalized advantage estimation; 1 is the paper's n-step return."""
    entropy: NonNegative = 0.01
    """The weight of the policy's entropy."""
    clip_norm: Positive | None = None
    """Scales the whole gradient down to this norm, before it becomes a natural one."""


class IMPALA(_Chances):
    """Importance weighted actor-learner architecture (Espeholt et al. 2018); RLlib's."""

    name: Literal["impala"]
    ASYNCHRONOUS: ClassVar[bool] = True
    lr: Positive = 1e-3
    """The learning rate."""
    rollout: Count = 50
    """Steps of each environment that an env runner sends at a time, and V-trace looks ahead."""
    batch_size: Count = 200
    """Steps of one update."""
    entropy: NonNegative = 0.01
    """The weight of the policy's entropy."""
    value_weight: NonNegative = 0.5
    """The weight of the value function's loss."""


class APPO(IMPALA):
    """Asynchronous PPO (Luo et al. 2020): IMPALA with PPO's clipped loss and a target network; RLlib's."""

    name: Literal["appo"]  # type: ignore[assignment]
    clip: Positive = 0.2
    """How far an action's probability may move, as a ratio."""
