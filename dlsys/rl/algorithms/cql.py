"""Conservative Q-learning (Kumar et al. 2020): https://arxiv.org/abs/2006.04779

The loss CQL(H) of equation 4, with the estimate of appendix F, beside what soft actor-critics learn.
"""

from __future__ import annotations

import math
from collections.abc import Mapping

import torch
from torch import Generator, Tensor

from dlsys.rl.actions import Actions
from dlsys.rl.algorithms.sac import SoftActorCritic, SoftPolicy
from dlsys.rl.chances import Squashed, even
from dlsys.rl.critics import Steps
from dlsys.rl.offline import OfflineAgent
from dlsys.rl.own import Stateful
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.offline import CQL


def soft_maximum(values: Tensor, log_densities: Tensor) -> Tensor:
    """log ∫ exp Q(s, a) da, estimated with actions that were drawn with known densities.

    Args:
        values: Q of K actions for each of N observations, [..., K, N].
        log_densities: of these actions, [K, N].

    Returns:
        [..., N]
    """
    return torch.logsumexp(values - log_densities, dim=-2) - math.log(len(log_densities))


class Conservative(SoftActorCritic):
    """One whose values of actions that were not recorded are pressed down."""

    def __init__(self, policy: SoftPolicy, actions: Actions, told: CQL, device: str) -> None:
        super().__init__(policy, actions, told, average=told.average, temperature=0.1, device=device)
        self._weight, self._samples = told.weight, told.samples

    def value_loss(
        self, values: Tensor, goal: Tensor, steps: Steps, features: Tensor, generator: Generator
    ) -> Tensor:
        missed = super().value_loss(values, goal, steps, features, generator)
        pressed = (self.soft_maxima(features, generator) - values).mean(1).sum()
        return self._weight * pressed + missed

    def soft_maxima(self, features: Tensor, generator: Generator) -> Tensor:
        """Of each network's values where N features [N, F] are seen, [E, N]."""
        actions, log_densities = self.draw(features, generator)
        many = features.expand(len(actions), *features.shape)
        values = self.critics(many.flatten(0, 1), actions.flatten(0, 1))
        return soft_maximum(values.unflatten(1, log_densities.shape), log_densities)

    @torch.no_grad()
    def draw(self, features: Tensor, generator: Generator) -> tuple[Tensor, Tensor]:
        """Actions in ±1, half of them uniform and half the policy's: [K, N, A], and the logarithms of their
        densities [K, N]."""
        outputs = self.policy.head(features)
        own, log_own = Squashed(outputs.expand(self._samples, *outputs.shape)).sample(generator)
        uniform = even(own, generator)
        log_uniform = torch.full_like(log_own, -own.shape[-1] * math.log(2))
        return torch.cat((uniform, own)), torch.cat((log_uniform, log_own))


class CQLAgent(OfflineAgent):
    NETWORK = SoftPolicy
    network: SoftPolicy

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        assert isinstance(job.algorithm, CQL)
        self.learner = Conservative(self.network, self.actions, job.algorithm, self.device)
        self._unit = self.spread_rewards()

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return self.learner.optimizers

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {**super().parts, "learner": self.learner}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        return self.learner.worth(seen) / self._unit

    def update(self, steps: Steps, returns: Tensor) -> dict[str, Tensor]:
        figures, _ = self.learner.update(steps, self.generator)
        return figures
