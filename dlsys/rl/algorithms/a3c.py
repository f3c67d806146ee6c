"""Asynchronous advantage actor-critic (A3C; Mnih et al. 2016): https://arxiv.org/abs/1602.01783

Each env runner samples a rollout with its own copy of the parameters and computes a gradient of it. The
shared parameters take each gradient when it comes, whatever the others have changed since, and hand the
newest ones to that env runner.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import Tensor

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.actors import answer
from dlsys.rl.agent import Iteration
from dlsys.rl.algorithms.a2c import STEPS, A2CAgent, differentiate
from dlsys.rl.networks import learning
from dlsys.rl.observations import NUMBERS
from dlsys.rl.on_policy import batch_of
from dlsys.rl.progress import stepped
from dlsys.rl.rewards import Rewards
from dlsys.rl.runners import EnvRunner
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.policy import A3C


@dataclass
class Gradient:
    """Of one rollout.

    Attributes:
        parts: of each parameter, in their order; None of what has no influence.
        figures: of the loss.
        steps: how many the rollout had.
        returns, lengths: of episodes that ended in it.
        renewed: how many environments raised in it and were made anew.
        numbers: that were seen, for running statistics; None without.
        rewards: the state of the rewards' scale after it.
    """

    parts: list[Tensor | None]
    figures: dict[str, float]
    steps: int
    returns: list[float]
    lengths: list[int]
    renewed: int
    numbers: Tensor | None
    rewards: dict[str, Any]


class Worker(EnvRunner):
    """Samples, and computes gradients on its own copy of the parameters."""

    def gradient(self, weights: Mapping[str, Tensor], rewards: dict[str, Any] | None, began: int) -> Gradient:
        """The gradient of one rollout.

        Args:
            weights: the shared parameters.
            rewards: the state of this worker's rewards' scale; None at first.
            began: the run's step.
        """
        runner, told = self.runner(weights, began), self.job.algorithm
        network = runner.policy
        assert isinstance(network, ActorCritic)
        assert isinstance(told, A3C)
        scale = Rewards(self.job.normalize.reward, told.gamma)
        if rewards is not None:
            scale.load_state_dict(rewards)
        with self.counted():
            rollout = runner.sample(told.rollout)
            scale.take(rollout)
            batch = batch_of(network, rollout, scale.scaled(rollout.rewards), told.gamma, told.trace)
            with learning(network):
                figures = differentiate(network, batch, self.job)
        return Gradient(
            parts=[parameter.grad for parameter in network.parameters()],
            figures=figures,
            steps=rollout.steps,
            returns=rollout.returns,
            lengths=rollout.lengths,
            renewed=rollout.renewed,
            numbers=None if network.features.running is None else batch.seen[NUMBERS],
            rewards=scale.state_dict(),
        )


class A3CAgent(A2CAgent):
    """An iteration is as many gradients as make its steps.

    Figures: `updates_by_N`, how many of an iteration's gradients came from env runner N, from 1; `staleness`,
    how many updates by others there were between the parameters of a gradient and its use.
    """

    def __init__(self, job: RLJob) -> None:
        assert isinstance(job.algorithm, A3C)
        super().__init__(job, steps=job.algorithm.rollout, kind=Worker)
        # What is computed at the moment: env runner and update count, by call.
        self._flying: dict[Any, tuple[int, int]] = {}
        self._version = 0
        self._scales: list[dict[str, Any] | None] = [None] * len(self.runners.remote)

    def iterate(self) -> Iteration:
        began, waited, steps = time.perf_counter(), 0.0, 0
        found: list[Gradient] = []
        stale: list[int] = []
        updates: Counter[int] = Counter()
        while steps < STEPS:
            idle = set(range(len(self.runners.remote))) - {worker for worker, _ in self._flying.values()}
            self._ask(sorted(idle))
            waits = time.perf_counter()
            (call,) = self.runners.remote.wait(list(self._flying), 1)
            waited += time.perf_counter() - waits
            worker, version = self._flying.pop(call)
            gradient: Gradient = answer(call)
            stepped()
            self._take(gradient)
            self._scales[worker] = gradient.rewards
            self.runners.renewed += gradient.renewed
            steps += gradient.steps
            stale.append(self._version - version)
            self._version += 1
            updates[worker] += 1
            found.append(gradient)
        self.step += steps
        return Iteration(
            steps=steps,
            returns=[value for each in found for value in each.returns],
            lengths=[value for each in found for value in each.lengths],
            figures={
                **{name: float(np.mean([each.figures[name] for each in found])) for name in found[0].figures},
                **{f"updates_by_{worker + 1}": float(count) for worker, count in sorted(updates.items())},
                "staleness": float(np.mean(stale)),
                **self.faults(),
            },
            seconds={"sample": waited, "learn": time.perf_counter() - began - waited},
        )

    def _ask(self, workers: list[int]) -> None:
        """Gradients with the newest parameters."""
        if not workers:
            return
        weights = self.runners.weights()
        for worker in workers:
            asked = self.runners.remote.handles[worker].gradient
            call = asked.remote(weights, self._scales[worker], self.step)
            self._flying[call] = worker, self._version

    def _take(self, gradient: Gradient) -> None:
        for parameter, part in zip(self._parameters, gradient.parts, strict=True):
            parameter.grad = None if part is None else part.to(self.device)
        self._adam.step()
        if gradient.numbers is not None:
            self.network.features.update({NUMBERS: gradient.numbers.to(self.device)})

    def state(self) -> dict[str, Any]:
        return {**super().state(), "scales": self._scales}

    def load(self, state: dict[str, Any]) -> list[str]:
        if len(state["scales"]) == len(self._scales):
            self._scales = list(state["scales"])
        return super().load(state)
