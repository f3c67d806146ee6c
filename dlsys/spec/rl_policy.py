"""`algorithm:` sections that learn a policy from what it has just done."""

from __future__ import annotations

from typing import Literal

from dlsys.spec.rl_section import Deep, Share
from dlsys.spec.section import Count, NonNegative, Positive


class PPO(Deep):
    """Proximal policy optimization (Schulman et al. 2017); RLlib's."""

    name: Literal["ppo"]
    batch_size: Count = 2048
    """Steps sampled by one policy, and learned from together."""
    minibatch_size: Count = 64
    """Rows of one update."""
    passes: Count = 10
    """Passes over each batch."""
    trace: Share = 0.95
    """The λ of generalized advantage estimation."""
    clip: Positive = 0.2
    """How far an action's probability may move, as a ratio."""
    entropy: NonNegative = 0.0
    """The weight of the policy's entropy."""
    value_weight: NonNegative = 0.5
    """The weight of the value function's loss."""
    kl: NonNegative = 0.0
    """The first weight of a penalty on the KL divergence from the old policy; it adapts. 0: none."""
