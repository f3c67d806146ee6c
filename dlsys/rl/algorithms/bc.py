"""Behaviour cloning (Pomerleau 1989): the likelihood of recorded actions is maximized."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.optim import Adam

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.adam import descend
from dlsys.rl.critics import Steps
from dlsys.rl.offline import OfflineAgent
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.offline import BC


class BCAgent(OfflineAgent):
    """Its value function learns nothing."""

    NETWORK = ActorCritic
    network: ActorCritic

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        assert isinstance(job.algorithm, BC)
        self._clip = job.algorithm.clip_norm
        self._adam = Adam(self.network.parameters(), job.algorithm.lr, fused=True)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self._adam}

    def update(self, steps: Steps, returns: Tensor) -> dict[str, Tensor]:
        chances, _, _ = self.network(steps.seen, self.network.initial)
        loss = -chances.logp(steps.actions).mean()
        descend(self._adam, loss, self._clip)
        return {"loss": loss.detach(), "entropy": chances.entropy().detach().mean()}
