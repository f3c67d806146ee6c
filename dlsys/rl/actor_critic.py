"""A policy and a value function beside it: the networks of agents that learn from what they have just
done."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn

from dlsys.rl.actions import Actions
from dlsys.rl.chances import Chances, mask_of
from dlsys.rl.networks import Linears, Seeing, activation
from dlsys.rl.observations import Observations
from dlsys.rl.sampler import Told
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.section import Deep

_POLICY, _VALUE = 0, 1


class ActorCritic(Seeing):
    """Implements `dlsys.rl.runners.Policy`.

    Both parts have layers of their own, which are computed together; what images and memories are made of is
    shared.
    """

    def __init__(self, observations: Observations, actions: Actions, job: RLJob) -> None:
        super().__init__(observations, job)
        told = job.algorithm
        assert isinstance(told, Deep)
        self._actions, width = actions, self.width
        layers: list[nn.Module] = []
        for after in told.hidden:
            layers += [Linears(2, width, after), activation(told.activation)]
            width = after
        self.body = nn.Sequential(*layers)
        self.policy, self.value = nn.Linear(width, Chances.width(actions)), nn.Linear(width, 1)
        self.log_std = nn.Parameter(torch.zeros(actions.numbers)) if actions.numbers else None
        self._initialize()

    def _initialize(self) -> None:
        """Orthogonal weights, and a policy that hardly prefers anything (Andrychowicz et al. 2021)."""
        for layer in self.modules():
            if isinstance(layer, Linears):
                for weight in layer.weight.data:
                    nn.init.orthogonal_(weight, 2**0.5)
                nn.init.zeros_(layer.bias)
            elif isinstance(layer, nn.Conv2d):
                nn.init.orthogonal_(layer.weight, 2**0.5)
        for head, gain in ((self.policy, 0.01), (self.value, 1.0)):
            nn.init.orthogonal_(head.weight, gain)
            nn.init.zeros_(head.bias)

    def set(self, told: Mapping[str, float]) -> None:
        """It explores by its chances alone."""

    def heads(self, features: Tensor, mask: Tensor | None) -> tuple[Chances, Tensor]:
        """What it would do, and what it is worth [N], of features [N, F]."""
        both = self.body(features.expand(2, *features.shape))
        chances = Chances(self._actions, self.policy(both[_POLICY]), self.log_std, mask)
        return chances, self.value(both[_VALUE]).squeeze(-1)

    def of_policy(self) -> list[nn.Parameter]:
        """What decides what it does. Layers that are computed together are in it as a whole: the value
        function's part of them has no influence, and so no gradient."""
        own = {id(each) for each in (self.value.weight, self.value.bias)}
        return [each for each in self.parameters() if id(each) not in own]

    def rows(self, seen: Mapping[str, Tensor]) -> tuple[Chances, Tensor]:
        """What it would do, and what it is worth [R], of what is seen [R, …], if it remembers nothing."""
        return self.heads(self.features(seen), mask_of(seen))

    def forward(self, seen: Mapping[str, Tensor], memory: Tensor) -> tuple[Chances, Tensor, Tensor]:
        """What it would do, what it is worth [N], and what it remembers then [N, S], of what is seen [N, …]
        and remembered [N, S]."""
        features, memory = self.remembered(seen, memory)
        return *self.heads(features, mask_of(seen)), memory

    def sequences(self, seen: Mapping[str, Tensor], memory: Tensor, first: Tensor) -> tuple[Chances, Tensor]:
        """The same of T steps of N episodes [T, N, …], in rows [T · N].

        Args:
            seen: theirs.
            memory: before the first of them, [N, S].
            first: where an episode begins, [T, N].
        """
        mask = mask_of(seen)
        return self.heads(self.through(seen, memory, first), None if mask is None else mask.flatten(0, 1))

    def explore(self, seen: dict[str, Tensor], memory: Tensor, generator: torch.Generator | None) -> Told:
        chances, values, memory = self(seen, memory)
        chosen = chances.sample(generator)
        return chosen, {"value": values, "logp": chances.logp(chosen)}, memory

    def best(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The likeliest actions."""
        chances, _, after = self(seen, memory)
        return chances.best(), after
