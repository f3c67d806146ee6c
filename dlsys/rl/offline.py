"""Agents that learn from recorded episodes alone."""

from __future__ import annotations

import time
from abc import abstractmethod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from dlsys.rl import environments
from dlsys.rl.agent import Iteration
from dlsys.rl.critics import Steps
from dlsys.rl.episodes import read
from dlsys.rl.networks import learning
from dlsys.rl.observations import NUMBERS
from dlsys.rl.own import Networked
from dlsys.rl.runners import network_of
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.offline import Offline

# The standard deviation of what recorded steps returned, in the unit of values.
_SPREAD = 10.0


class OfflineAgent(Networked):
    """An iteration is `algorithm.updates` updates, each from random rows of the recorded steps.

    Args:
        job: the job.

    Attributes:
        recorded: all steps; numbers alone are recorded of observations.
        returns: discounted, from each of them to the end of its episode, [N].

    Raises:
        DataError: the file is missing, is not of this form, or was recorded in another environment.
    """

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = job.algorithm
        assert isinstance(told, Offline)
        self._told = told
        self.observations, self.actions = environments.forms(job.environment)
        self.network = network_of(self.NETWORK, self.observations, self.actions, job, self.device)
        found = read(Path(told.episodes), self.observations.shapes[NUMBERS][0], self.actions)

        def tensor(values: Any) -> Tensor:
            return torch.tensor(values, device=self.device)  # a copy: what Arrow gives cannot be written

        rewards = tensor(found.rewards)
        self.recorded = Steps(
            seen={NUMBERS: tensor(found.observations)},
            actions=tensor(found.actions),
            rewards=rewards,
            going=told.gamma * tensor(~found.terminated).float(),
            following={NUMBERS: tensor(found.following)},
            weights=torch.ones_like(rewards),
        )
        self.returns = tensor(found.returns(told.gamma))
        self.network.features.update(self.recorded.seen)

    def spread_rewards(self) -> float:
        """Gives rewards a unit that gives the recorded returns one spread everywhere: values are then learned
        in as few updates, and a weight means the same, whatever an environment's rewards are.

        Returns:
            How many of it one of the environment's is.
        """
        spread = float(self.returns.std(unbiased=False))
        unit = _SPREAD / spread if spread > 0 else 1.0
        self.recorded = self.recorded._replace(rewards=self.recorded.rewards * unit)
        return unit

    @abstractmethod
    def update(self, steps: Steps, returns: Tensor) -> dict[str, Tensor]:
        """Learns from some steps; figures by name.

        Args:
            steps: B of them.
            returns: theirs, [B].
        """

    def iterate(self) -> Iteration:
        began, told = time.perf_counter(), self._told
        with learning(self.network):
            for _ in range(told.updates):
                index = torch.randint(len(self.returns), (told.batch_size,), generator=self.generator)
                index = index.to(self.device)
                figures = self.update(self.recorded.rows(index), self.returns[index])
        steps = told.updates * told.batch_size
        self.step += steps
        return Iteration(
            steps=steps,
            figures={name: float(value) for name, value in figures.items()},
            seconds={"learn": time.perf_counter() - began},
        )

    def close(self) -> None:
        """Nothing was started."""
