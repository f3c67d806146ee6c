"""Model-based policy optimization (Janner et al. 2019): https://arxiv.org/abs/1906.08253

Each iteration takes some steps in the environment, fits an ensemble of models to all of them, rolls the
policy out in the models for a few steps from where it has really been, and lets a soft actor-critic learn
from that, with a share of real steps.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor

from dlsys.rl.agent import Iteration
from dlsys.rl.algorithms.sac import SoftActorCritic, SoftPolicy
from dlsys.rl.critics import Steps
from dlsys.rl.dynamics import Models, Rows
from dlsys.rl.networks import learning
from dlsys.rl.observations import NUMBERS
from dlsys.rl.own import OwnAgent, Stateful
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.models import MBPO


class MBPOAgent(OwnAgent):
    """An iteration is `algorithm.every` steps, what the models learn from all of them, and what the policy
    learns from the models."""

    NETWORK = SoftPolicy
    network: SoftPolicy

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = job.algorithm
        assert isinstance(told, MBPO)
        self._told, numbers, chosen = told, self.observations.shapes[NUMBERS][0], self.actions.numbers
        self.learner = SoftActorCritic(
            self.network, self.actions, told, average=told.average, device=self.device
        )
        self._models = Models(numbers, chosen, told).to(self.device)
        shapes = ((numbers,), (chosen,), (), (numbers,), ())
        self._real = Rows(*(torch.empty(0, *shape, device=self.device) for shape in shapes))

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return self.learner.optimizers

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {**super().parts, "learner": self.learner}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        return self.learner.worth(seen)

    def iterate(self) -> Iteration:
        told, began = self._told, time.perf_counter()
        steps = max(1, told.every // self.runners.count)
        rollout, _ = self.runners.sample(steps, self.step, {"random": float(self.step < told.start)})
        self.step += rollout.steps
        self.rewards.take(rollout)
        new = Rows.of(rollout, self.actions, self.device)
        self.network.features.update({NUMBERS: new.observations})
        self._real = Rows(*(values[-told.memory :] for values in Rows.join([self._real, new])))
        sampled = time.perf_counter()
        figures: dict[str, float] = self.faults()
        seconds = {"sample": sampled - began}
        if self.step >= told.start:
            figures |= self._models.fit(self._real, self.generator)
            fitted = time.perf_counter()
            figures |= self._learn(self._imagine(), rollout.steps)
            seconds |= {"model": fitted - sampled, "learn": time.perf_counter() - fitted}
        return Iteration(rollout.steps, rollout.returns, rollout.lengths, figures, seconds)

    @torch.no_grad()
    def _imagine(self) -> Rows:
        """Rollouts of the policy in the models, from where it has been."""
        seen = self._real.sample(self._told.rollouts, self.generator).observations
        rolled = []
        for _ in range(self._told.horizon):
            features = self.network.features({NUMBERS: seen})
            actions, _ = self.network.squashed(features).sample(self.generator)
            rolled.append(self._models.step(seen, actions, self.generator))
            seen = rolled[-1].following[rolled[-1].terminated == 0]
        return Rows.join(rolled)

    def _learn(self, imagined: Rows, steps: int) -> dict[str, float]:
        told = self._told
        real = round(told.real * told.batch_size)
        with learning(self.network):
            for _ in range(told.updates * steps):
                parts = [
                    self._real.sample(real, self.generator),
                    imagined.sample(told.batch_size - real, self.generator),
                ]
                figures, _ = self.learner.update(self._steps(Rows.join(parts)), self.generator)
        return {name: float(value) for name, value in figures.items()}

    def _steps(self, rows: Rows) -> Steps:
        rewards = self.rewards.scaled(rows.rewards.cpu().numpy())
        return Steps(
            seen={NUMBERS: rows.observations},
            actions=rows.actions,
            rewards=torch.from_numpy(rewards).to(self.device),
            going=self._told.gamma * (1 - rows.terminated),
            following={NUMBERS: rows.following},
            weights=torch.ones_like(rows.rewards),
        )

    def state(self) -> dict[str, Any]:
        return {
            **super().state(),
            "models": self._models.state(),
            "real": self._real._asdict(),
        }

    def load(self, state: dict[str, Any]) -> list[str]:
        self._models.load(state["models"])
        self._real = Rows(**{name: value.to(self.device) for name, value in state["real"].items()})
        return super().load(state)
