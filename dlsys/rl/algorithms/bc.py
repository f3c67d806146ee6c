"""Behaviour cloning (Pomerleau 1989): the likelihood of recorded actions is maximized."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor, nn
from torch.optim import Adam

from dlsys.rl.actor_critic import ActorCritic, Best, policy
from dlsys.rl.critics import Steps, descend
from dlsys.rl.offline import OfflineAgent
from dlsys.rl.own import Drawn
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.offline import BC

__all__ = ["BCAgent", "policy"]


class BCAgent(OfflineAgent):
    """Its value function learns nothing."""

    network: ActorCritic

    def __init__(self, job: RLJob) -> None:
        super().__init__(job, ActorCritic)
        assert isinstance(job.algorithm, BC)
        self._clip = job.algorithm.clip_norm
        self._adam = Adam(self.network.parameters(), job.algorithm.lr, fused=True)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self._adam}

    def best(self, explore: bool) -> nn.Module:
        return Drawn(self.network) if explore else Best(self.network)

    def update(self, steps: Steps, returns: Tensor) -> dict[str, Tensor]:
        chances, _, _ = self.network(steps.seen, self.network.initial)
        loss = -chances.logp(steps.actions).mean()
        descend(self._adam, loss, self._clip)
        return {"loss": loss.detach(), "entropy": chances.entropy().detach().mean()}
