"""Passes of a value function alone over what a policy has just done."""

from __future__ import annotations

import torch

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.adam import descend
from dlsys.rl.on_policy import Rows
from dlsys.spec.rl.policy import REINFORCE, TRPO


class ValuePasses:
    """Of policies that learn apart from their value function, and must not be moved by it.

    Args:
        network: theirs.
        told: `lr`, `passes`, `minibatch_size` and `clip_norm`.
        generator: of the order of rows.

    Attributes:
        adam: the optimizer. In the layers that policy and value function have side by side, it moves the
            value function's alone: the others get no gradient, of which Adam makes no step.
    """

    def __init__(self, network: ActorCritic, told: TRPO | REINFORCE, generator: torch.Generator) -> None:
        self._network, self._told, self._generator = network, told, generator
        parameters = [*network.body.parameters(), *network.value.parameters()]
        self.adam = torch.optim.Adam(parameters, told.lr, fused=True)

    def fit(self, rows: Rows) -> float:
        """The last pass's mean squared error."""
        with torch.no_grad():
            # What images are made of is the policy's.
            features = self._network.features(rows.seen)
        total = torch.zeros(())
        for _ in range(self._told.passes):
            total = torch.zeros(())
            order = torch.randperm(len(rows), generator=self._generator)
            for some in order.split(self._told.minibatch_size):
                values = self._network.heads(features[some], None)[1]
                loss = (values - rows.returns[some]).square().mean()
                descend(self.adam, loss, self._told.clip_norm)
                total += loss.detach().cpu() * (len(some) / len(rows))
        return float(total)
