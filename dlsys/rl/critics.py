"""What actions are worth: the networks of agents that value them, and what these learn from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import NamedTuple

import torch
from torch import Tensor, nn

from dlsys.rl.actions import Actions
from dlsys.rl.networks import Features, networks
from dlsys.rl.observations import tensors
from dlsys.rl.replay import Transitions
from dlsys.spec.rl.section import Deep


class Steps(NamedTuple):
    """B steps, each of one or more of an environment's."""

    seen: dict[str, Tensor]
    """Before them, [B, …] by name."""
    actions: Tensor
    """Indices [B], or numbers [B, A]."""
    rewards: Tensor
    """[B]"""
    going: Tensor
    """What is worth as much as one later: γⁿ, or 0 where the episode came to its end by itself; [B]."""
    following: dict[str, Tensor]
    """What was seen after them."""
    weights: Tensor
    """Of the values' loss, [B]."""

    def rows(self, index: Tensor) -> Steps:
        """Some of them."""
        seen, following = (
            {name: part[index] for name, part in each.items()} for each in (self.seen, self.following)
        )
        return Steps(
            seen, self.actions[index], self.rewards[index], self.going[index], following, self.weights[index]
        )

    @staticmethod
    def of(drawn: Transitions, columns: Mapping[str, Tensor], device: str) -> Steps:
        """What `dlsys.rl.off_policy.OffPolicy.drawn` gives."""
        seen, following = tensors(drawn.seen, device), tensors(drawn.following, device)
        return Steps(
            seen, columns["actions"], columns["rewards"], columns["going"], following, columns["weights"]
        )


class Critics(nn.Module):
    """Networks that value actions, and slow copies of them and of the features that they see, the targets.

    Args:
        features: of what is seen; the policy sees the same.
        actions: the environment's.
        told: widths.
        twin: whether there are two networks, of which the lower one counts.
        average: how far the targets move at each update.
    """

    def __init__(
        self, features: Features, actions: Actions, told: Deep, *, twin: bool, average: float
    ) -> None:
        super().__init__()
        self._single, self._average = actions.single, average
        inputs, outputs = features.width + actions.numbers, actions.counts[0] if actions.single else 1
        self.networks = networks(2 if twin else 1, inputs, outputs, told.hidden, told.activation)
        self.targets = copy.deepcopy(self.networks).requires_grad_(False)
        self.target_features = copy.deepcopy(features).requires_grad_(False)

    def forward(self, features: Tensor, actions: Tensor | None = None) -> Tensor:
        """Values [E, N] of actions as agents choose them, by each network, for features [N, F]; of all
        discrete ones, [E, N, K], where none are given."""
        return self._values(self.networks, features, actions)

    def later(self, features: Tensor, actions: Tensor | None = None) -> Tensor:
        """The targets' lowest values, [N] or [N, K], for features of theirs."""
        return self._values(self.targets, features, actions).amin(0)

    def _values(self, layers: nn.Sequential, features: Tensor, actions: Tensor | None) -> Tensor:
        if not self._single:
            assert actions is not None
            features = torch.cat((features, actions), -1)
        first = layers[0].weight
        assert isinstance(first, Tensor)
        values: Tensor = layers(features.expand(len(first), -1, -1))
        if not self._single:
            return values.squeeze(-1)
        if actions is None:
            return values
        index = actions.long().expand(len(values), -1).unsqueeze(-1)
        return values.gather(-1, index).squeeze(-1)

    def follow(self, features: Features) -> None:
        """Moves the targets towards the networks, and the features that these see."""
        approach(self.targets, self.networks, self._average)
        approach(self.target_features, features, self._average)


def approach(target: nn.Module, online: nn.Module, share: float) -> None:
    """Moves a copy of a network this far towards it; averages, which are counted, it takes as they are."""
    parameters: list[Tensor] = list(target.parameters())
    if parameters:
        torch._foreach_lerp_(parameters, [value.detach() for value in online.parameters()], share)
    for mine, its in zip(target.buffers(), online.buffers(), strict=True):
        mine.copy_(its)
