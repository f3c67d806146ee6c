"""Agents that learn from what they did long ago, too."""

from __future__ import annotations

import time
from abc import abstractmethod
from collections.abc import Mapping
from typing import Any

import numpy as np
from torch import Tensor

from dlsys.errors import UsageError
from dlsys.rl.agent import Iteration
from dlsys.rl.networks import learning
from dlsys.rl.observations import tensors
from dlsys.rl.own import OwnAgent
from dlsys.rl.replay import Replay, Transitions
from dlsys.rl.sampler import Rollout
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.value import Replayed

# Steps of one iteration at least.
_STEPS = 1000


class OffPolicy(OwnAgent):
    """Steps every environment a few times, keeps that, and does the updates that are due.

    Args:
        job: the job.

    Attributes:
        replay: what it did.
    """

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = job.algorithm
        assert isinstance(told, Replayed)
        self.told = told
        self.replay = Replay(
            told.capacity,
            self.runners.count,
            self.runners.observations,
            self.runners.actions,
            gamma=told.gamma,
            seed=job.seed,
            n_step=told.n_step,
            draw=told.replay,
            alpha=told.priority,
            beta=told.correction,
            memory=len(self.network.initial),
        )

    @abstractmethod
    def update(self) -> dict[str, Tensor]:
        """Learns from what the memory gives; figures by name."""

    def exploring(self) -> Mapping[str, float]:
        """How the policy explores at this step."""
        return {}

    def iterate(self) -> Iteration:
        before, sampled, learned = self.step, 0.0, 0.0
        returns: list[float] = []
        lengths: list[int] = []
        figures: dict[str, Tensor] = {}
        while self.step - before < _STEPS:
            began = time.perf_counter()
            rollout, lost = self.runners.sample(self.told.fragment, self.step, self.exploring())
            self._take(rollout, lost)
            returns, lengths = returns + rollout.returns, lengths + rollout.lengths
            now = time.perf_counter()
            figures = self._learn(self.step, self.step + rollout.steps) or figures
            self.step += rollout.steps
            sampled, learned = sampled + now - began, learned + time.perf_counter() - now
        return Iteration(
            steps=self.step - before,
            returns=returns,
            lengths=lengths,
            figures={
                **{name: float(value) for name, value in figures.items()},
                **self.exploring(),
                **self.faults(),
            },
            seconds={"sample": sampled, "learn": learned},
        )

    def _take(self, rollout: Rollout, lost: list[bool]) -> None:
        self.rewards.take(rollout)
        shown = {name: part[:-1] for name, part in tensors(rollout.seen, self.device).items()}
        self.network.features.update(shown)
        self.replay.add(rollout, lost)

    def _learn(self, before: int, now: int) -> dict[str, Tensor]:
        told = self.told
        # Counted from the run's first step, so that no part of an update is lost or comes twice.
        due = int(told.updates * max(now - told.starts, 0)) - int(told.updates * max(before - told.starts, 0))
        figures: dict[str, Tensor] = {}
        if due:
            with learning(self.network):  # changing the mode takes a tenth of an update
                for _ in range(due):
                    figures = self.update()
        return figures

    def drawn(self) -> tuple[Transitions, dict[str, Tensor]]:
        """A batch of the memory's steps, and its columns as tensors: `actions`, `rewards` in the unit that is
        learned in, `going`, which is γⁿ where the episode goes on and else 0, and `weights`; [B, …]."""
        found = self.replay.sample(self.told.batch_size)
        going = np.float32(self.told.gamma) ** found.steps * ~found.terminated
        columns = {
            "actions": found.actions,
            "rewards": self.rewards.scaled(found.rewards),
            "going": going,
            "weights": found.weights,
        }
        return found, tensors(columns, self.device)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "replay": self.replay.state()}

    def load(self, state: dict[str, Any]) -> list[str]:
        found = state["replay"]["columns"]["rewards"].shape[1]
        if found != self.runners.count:
            raise UsageError(
                f"resources: the memory has the steps of {found} environments, and there are "
                f"{self.runners.count} now: leave envs and env_runners as they were"
            )
        self.replay.load(state["replay"])
        return super().load(state)
