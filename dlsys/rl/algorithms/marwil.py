"""Monotonic advantage re-weighted imitation learning (Wang et al. 2018):
https://papers.nips.cc/paper/7866-exponentially-weighted-imitation-learning-for-batched-historical-data

What was done is cloned, and more so what turned out better than the value function expected: advantages are
divided by their own size so far, so that a weight means the same whatever the unit of rewards.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.optim import Adam

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.adam import descend
from dlsys.rl.critics import Steps
from dlsys.rl.offline import OfflineAgent
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.offline import MARWIL

# How much of the mean square of advantages each update renews.
_RENEWED = 0.01


class MARWILAgent(OfflineAgent):
    NETWORK = ActorCritic
    network: ActorCritic

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        assert isinstance(job.algorithm, MARWIL)
        self._marwil = job.algorithm
        self._adam = Adam(self.network.parameters(), job.algorithm.lr, fused=True)
        # The mean square of advantages so far; of none yet it is nought.
        self._square = torch.zeros((), device=self.device)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"adam": self._adam}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        value: Tensor = self.network(seen, self.network.initial)[1]
        return value

    def update(self, steps: Steps, returns: Tensor) -> dict[str, Tensor]:
        told = self._marwil
        chances, values, _ = self.network(steps.seen, self.network.initial)
        advantages = returns - values.detach()
        square = advantages.square().mean()
        self._square = torch.where(self._square > 0, self._square.lerp(square, _RENEWED), square)
        weights = (told.weight * advantages / self._square.sqrt().clamp(min=1e-8)).exp()
        policy_loss = -(weights * chances.logp(steps.actions)).mean()
        value_loss = (values - returns).square().mean() / 2
        loss = policy_loss + told.value_weight * value_loss
        descend(self._adam, loss, told.clip_norm)
        figures = {
            "loss": loss,
            "policy_loss": policy_loss,
            "value_loss": value_loss,
            "entropy": chances.entropy().mean(),
            "weight": weights.mean(),
        }
        return {name: value.detach() for name, value in figures.items()}

    def state(self) -> dict[str, Any]:
        return {**super().state(), "square": self._square}

    def load(self, state: dict[str, Any]) -> list[str]:
        self._square = state["square"].to(self.device)
        return super().load(state)
