"""Model-predictive control by random shooting (Nagabandi et al. 2018): https://arxiv.org/abs/1708.02596

An ensemble of models learns what follows actions. Whoever acts tries many random plans in the models, does
the first action of the best one, and plans anew at the next step: there is no policy, and nothing is valued.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from dlsys.rl.actions import Actions
from dlsys.rl.agent import Iteration
from dlsys.rl.chances import even
from dlsys.rl.dynamics import Models, Rows
from dlsys.rl.observations import NUMBERS, Observations
from dlsys.rl.own import OwnAgent
from dlsys.rl.sampler import Told
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.models import MPC


class Planner(nn.Module):
    """Implements `dlsys.rl.runners.Policy`.

    The plans are drawn once, from the job's seed: whoever acts on the same models does the same.
    """

    initial: Tensor
    plans: Tensor

    def __init__(self, observations: Observations, actions: Actions, job: RLJob) -> None:
        super().__init__()
        told = job.algorithm
        assert isinstance(told, MPC)
        self._told, self._actions, self._random = told, actions, False
        width = actions.counts[0] if actions.single else actions.numbers
        self.models = Models(observations.shapes[NUMBERS][0], width, told)
        drawn = torch.Generator().manual_seed(job.seed)
        shape = told.plans, told.horizon
        if actions.single:
            plans = torch.randint(width, shape, generator=drawn)
        else:
            plans = torch.rand(*shape, width, generator=drawn) * 2 - 1
        self.register_buffer("plans", plans)
        self.register_buffer("initial", torch.zeros(0), persistent=False)

    def set(self, told: Mapping[str, float]) -> None:
        self._random = bool(told.get("random"))

    def explore(self, seen: dict[str, Tensor], memory: Tensor, generator: Generator | None) -> Told:
        if not self._random:
            best, memory = self.best(seen, memory)
            return best, {}, memory
        count = len(memory)
        if self._actions.single:
            return torch.randint(self._actions.counts[0], (count,), generator=generator), {}, memory
        return even(self.plans[:1, 0].expand(count, -1), generator), {}, memory

    def best(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The first actions of the plans that the models say earn most."""
        chosen = self.earned(seen[NUMBERS]).argmax(1)
        return self.plans[:, 0][chosen], memory

    def earned(self, observations: Tensor) -> Tensor:
        """What each plan earns from each observation [N, O]: the discounted rewards that models expect, their
        mean, [N, P]."""
        told, plans = self._told, self.plans
        actions = (
            functional.one_hot(plans, self._actions.counts[0]).float() if self._actions.single else plans
        )
        # [E, N, P, O], and of each whether its episode still goes on.
        shape = (told.models, observations.shape[0], told.plans)
        state = observations[:, None].expand(*shape, -1)
        total = observations.new_zeros(shape)
        going = torch.ones_like(total)
        for step in range(told.horizon):
            following, rewards, over = self.models.expected(
                state.flatten(1, 2), actions[:, step].expand(*shape, -1).flatten(1, 2)
            )
            total = total + going * told.gamma**step * rewards.unflatten(1, shape[1:])
            going = going * (1 - over.unflatten(1, shape[1:]))
            state = following.unflatten(1, shape[1:])
        return total.mean(0)


class MPCAgent(OwnAgent):
    """An iteration is `algorithm.every` steps, and what the models learn from all of them."""

    NETWORK = Planner
    network: Planner

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = job.algorithm
        assert isinstance(told, MPC)
        self._told = told
        self._steps: Rows | None = None

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"models": self.network.models.optimizer}

    def iterate(self) -> Iteration:
        told, began = self._told, time.perf_counter()
        steps = max(1, told.every // self.runners.count)
        rollout, _ = self.runners.sample(steps, self.step, {"random": float(self.step < told.start)})
        self.step += rollout.steps
        new = Rows.of(rollout, self.actions, self.device)
        parts = [new] if self._steps is None else [self._steps, new]
        self._steps = Rows(*(values[-told.memory :] for values in Rows.join(parts)))
        sampled = time.perf_counter()
        figures, seconds = self.faults(), {"sample": sampled - began}
        if self.step >= told.start:
            figures |= self.network.models.fit(self._steps, self.generator)
            seconds["model"] = time.perf_counter() - sampled
        return Iteration(rollout.steps, rollout.returns, rollout.lengths, figures, seconds)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "steps": None if self._steps is None else self._steps._asdict()}

    def load(self, state: dict[str, Any]) -> list[str]:
        kept = state["steps"]
        self._steps = kept and Rows(**{name: value.to(self.device) for name, value in kept.items()})
        return super().load(state)
