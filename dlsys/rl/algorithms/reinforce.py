"""REINFORCE (Williams 1992), with an optional learned baseline: https://doi.org/10.1007/BF00992696"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import numpy as np
import torch
from torch import Tensor

from dlsys.rl.adam import descend
from dlsys.rl.on_policy import Batch, OnPolicy, Rows, advantages, batch_of
from dlsys.rl.runners import Runners
from dlsys.rl.sampler import Rollout
from dlsys.rl.value_passes import ValuePasses
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.policy import REINFORCE


class REINFORCEAgent(OnPolicy):
    """An iteration is a batch of whole episodes: one step of the policy, then passes of the baseline."""

    def __init__(self, job: RLJob, runners: Runners | None = None) -> None:
        super().__init__(job, runners=runners)
        assert isinstance(job.algorithm, REINFORCE)
        self._told = job.algorithm
        self._adam = torch.optim.Adam(self.network.of_policy(), self._told.lr, fused=True)
        self._values = ValuePasses(self.network, self._told, self.generator)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"policy": self._adam, "value": self._values.adam}

    def batch(self, rollout: Rollout) -> Batch:
        """Its returns are what each step's episode still brought, discounted: Σ γᵏ r(t+k)."""
        self.rewards.take(rollout)
        rewards, gamma = self.rewards.scaled(rollout.rewards), self._told.gamma
        batch = batch_of(self.network, rollout, rewards, gamma, 1)
        steps, count = rewards.shape
        # With values of nought, all that is left of the estimates.
        nothing = np.zeros((steps + 1, count), np.float32), np.zeros(rollout.ends.shape[1], np.float32)
        found = advantages(rollout, rewards, *nothing, gamma, 1)
        returns = torch.from_numpy(found).to(self.device)
        gains = returns - batch.values if self._told.baseline else returns
        return replace(batch, returns=returns, advantages=gains)

    def policy_loss(self, rows: Rows) -> tuple[Tensor, Tensor]:
        """The loss whose gradient is the policy gradient, and the policy's mean entropy."""
        chances, _ = self.network.rows(rows.seen)
        return -(chances.logp(rows.actions) * rows.advantages).mean(), chances.entropy().mean()

    def learn(self, batch: Batch) -> dict[str, float]:
        told, rows = self._told, batch.flat()
        policy_loss, entropy = self.policy_loss(rows)
        loss = policy_loss - told.entropy * entropy
        descend(self._adam, loss, told.clip_norm)
        parts = {"loss": loss, "policy_loss": policy_loss, "entropy": entropy}
        figures = {name: float(value.detach()) for name, value in parts.items()}
        if told.baseline:
            figures["value_loss"] = self._values.fit(rows)
        return figures
