"""Implicit Q-learning (Kostrikov et al. 2021): https://arxiv.org/abs/2110.06169

A value function goes towards the best of what was recorded, by asymmetric squares, so that nobody asks what
an action is worth that was not. As in the authors' code, actions are normal numbers whose deviations do not
depend on what is seen.
"""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Adam

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.adam import descend
from dlsys.rl.critics import Critics, Steps
from dlsys.rl.offline import OfflineAgent
from dlsys.rl.own import Stateful
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.offline import IQL

# No step counts more than this many, as in the authors' code.
_MOST = 100.0


class IQLAgent(OfflineAgent):
    NETWORK = ActorCritic
    network: ActorCritic

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = job.algorithm
        assert isinstance(told, IQL)
        self._iql, self._unit = told, self.spread_rewards()
        self.critics = Critics(self.network.features, self.actions, told, twin=True, average=told.average)
        self.critics.to(self.device)
        self._adam = Adam(self.network.parameters(), told.lr, fused=True)
        self._values = Adam(self.critics.networks.parameters(), told.lr, fused=True)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self._adam, "values": self._values}

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {**super().parts, "critics": self.critics}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        value: Tensor = self.network(seen, self.network.initial)[1]
        return value / self._unit

    def update(self, steps: Steps, returns: Tensor) -> dict[str, Tensor]:
        told, network = self._iql, self.network
        with torch.no_grad():
            _, later, _ = network(steps.following, network.initial)
            goal = steps.rewards + steps.going * later
            worth = self.critics.later(self.critics.target_features(steps.seen), steps.actions)
            features = network.features(steps.seen)
        chances, values, _ = network(steps.seen, network.initial)
        missing = worth - values
        short = torch.where(missing > 0, told.expectile, 1 - told.expectile)
        value_loss = (short * missing.square()).mean()
        weights = (told.weight * missing.detach()).exp().clamp(max=_MOST)
        policy_loss = -(weights * chances.logp(steps.actions)).mean()
        descend(self._adam, policy_loss + value_loss, told.clip_norm)

        found = self.critics(features, steps.actions)
        q_loss = (found - goal).square().mean(1).sum()
        descend(self._values, q_loss, told.clip_norm)
        self.critics.follow(network.features)
        figures = {
            "loss": policy_loss + value_loss + q_loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "q_loss": q_loss,
            "q": found.mean(),
            "value": values.mean(),
            "weight": weights.mean(),
        }
        return {name: value.detach() for name, value in figures.items()}
