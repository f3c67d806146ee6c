"""Model-based policy optimization (Janner et al. 2019): https://arxiv.org/abs/1906.08253

Each iteration takes some steps in the environment, fits an ensemble of models to all of them, rolls the
policy out in the models for a few steps from where it has really been, and lets a soft actor-critic learn
from that, with a share of real steps. Unlike the paper's, a model also learns where episodes terminate.
"""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from dlsys.rl.agent import Iteration
from dlsys.rl.algorithms.sac import SoftActorCritic, SoftPolicy
from dlsys.rl.chances import normal
from dlsys.rl.critics import Steps
from dlsys.rl.networks import learning, networks
from dlsys.rl.observations import NUMBERS
from dlsys.rl.own import OwnAgent, Stateful
from dlsys.rl.sampler import Rollout
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.models import MBPO

# A tenth of the steps, at most _HOLDOUT, says when the models have learned enough: when for _PATIENCE rounds
# none of them has got better at these by a hundredth, or all are as good as they need to be. A round is as
# many batches as the steps make, and at least _ROUND: a few steps would make a single one.
_HOLDOUT = 1000
_ROUND = 20
_PATIENCE = 5
_BETTER = 0.99
_ENOUGH = 1e-3


class Rows(NamedTuple):
    """N steps of an environment that shows numbers alone, or of a model of one; actions in ±1."""

    observations: Tensor
    """[N, O]"""
    actions: Tensor
    """[N, A]"""
    rewards: Tensor
    """[N]"""
    following: Tensor
    """The next observations, [N, O]."""
    terminated: Tensor
    """[N], 1 where the episode came to its end by itself."""

    def rows(self, index: Tensor) -> Rows:
        return Rows(*(values[index] for values in self))

    def sample(self, count: int, generator: Generator) -> Rows:
        """Random ones, some of them more than once."""
        return self.rows(torch.randint(len(self.rewards), (count,), generator=generator))

    @staticmethod
    def join(parts: list[Rows]) -> Rows:
        return Rows(*(torch.cat(values) for values in zip(*parts, strict=True)))

    @staticmethod
    def of(rollout: Rollout, device: str) -> Rows:
        """What was sampled."""
        seen = rollout.seen[NUMBERS]
        following = seen[1:].copy()
        following[tuple(rollout.ends)] = rollout.finals[NUMBERS]
        columns = (seen[:-1], rollout.actions, rollout.rewards, following, rollout.terminated)
        return Rows(*(torch.from_numpy(each).flatten(0, 1).float().to(device) for each in columns))


class Models(nn.Module):
    """An ensemble of Gaussian models: from an observation and an action to a change, a reward and an end.

    Args:
        observations: O.
        actions: A.
        told: how many, their widths and learning rate.
    """

    def __init__(self, observations: int, actions: int, told: MBPO) -> None:
        super().__init__()
        self.mean: Tensor
        self.std: Tensor
        inputs, outputs = observations + actions, observations + 1
        self._told, self._inputs, self._outputs = told, inputs, outputs
        self.network = networks(told.models, inputs, 2 * outputs + 1, told.hidden, told.activation)
        # What variances lie between is learned (Chua et al. 2018, appendix A.1).
        self.log_variances = nn.Parameter(torch.tensor([[-10.0], [0.5]]).repeat(1, outputs))
        self.register_buffer("mean", torch.zeros(inputs + outputs))
        self.register_buffer("std", torch.ones(inputs + outputs))
        self._optimizer = torch.optim.AdamW(self.parameters(), told.model_lr, weight_decay=1e-4, fused=True)

    def forward(self, inputs: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Means [E, N, O + 1], log-variances alike and logits of ends [E, N], of inputs [E, N, O + A].

        All of them are scaled.
        """
        mean, raw, ends = self.network(inputs).split([self._outputs, self._outputs, 1], -1)
        low, high = self.log_variances
        log_variance = high - functional.softplus(high - raw)
        return mean, low + functional.softplus(log_variance - low), ends.squeeze(-1)

    def fit(self, steps: Rows, generator: Generator) -> dict[str, float]:
        """Learns until steps that are held out are no longer predicted better.

        Returns:
            what is wrong there: the mean squared error of scaled changes and rewards, and the
            cross-entropy of ends; and the rounds that it took.
        """
        changes = steps.following - steps.observations
        columns = (steps.observations, steps.actions, changes, steps.rewards[:, None])
        rows = torch.cat(columns, -1)
        self.mean.copy_(rows.mean(0))
        self.std.copy_(rows.std(0).clamp_min(1e-6))
        rows = torch.cat(((rows - self.mean) / self.std, steps.terminated[:, None]), -1)
        rows = rows[torch.randperm(len(rows), generator=generator)]
        held = rows[: min(len(rows) // 10, _HOLDOUT)].expand(self._told.models, -1, -1)
        rows = rows[held.shape[1] :]
        shape = self._told.models, self._told.batch_size
        best, left, rounds = rows.new_full((2, self._told.models), torch.inf), _PATIENCE, 0
        while left:
            for _ in range(max(len(rows) // shape[1], _ROUND)):
                index = torch.randint(len(rows), shape, generator=generator)
                self._optimizer.zero_grad()
                likely, _, ends = self._losses(rows[index])
                bounds = self.log_variances[1].sum() - self.log_variances[0].sum()
                loss = likely.sum() + ends.sum() + 0.01 * bounds
                loss.backward()  # type: ignore[no-untyped-call]
                self._optimizer.step()
            with torch.no_grad():
                wrong = torch.stack(self._losses(held)[1:])
            rounds += 1
            better = (wrong < _BETTER * best) & (best > _ENOUGH)
            left = _PATIENCE if bool(better.any()) else left - 1
            best = torch.minimum(best, wrong)
        errors, ends = wrong.mean(1).tolist()
        return {"model_error": errors, "model_end_loss": ends, "model_rounds": float(rounds)}

    def _losses(self, rows: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Each model's losses on rows [E, N, O + A + O + 1 + 1].

        Returns:
            The negative log-likelihood of changes and rewards, their squared error, and the
            cross-entropy of ends; [E] each.
        """
        inputs, goal, ended = torch.split(rows, [self._inputs, self._outputs, 1], -1)
        mean, log_variance, end = self(inputs)
        errors = (mean - goal).square()
        # Weighted as by Seitzer et al. 2022: a large variance would excuse a bad mean for ever.
        weight = (log_variance.detach() / 2).exp()
        likely = (weight * (errors * (-log_variance).exp() + log_variance)).mean((1, 2))
        ends = functional.binary_cross_entropy_with_logits(end, ended.squeeze(-1), reduction="none")
        return likely, errors.mean((1, 2)), ends.mean(1)

    @torch.no_grad()
    def step(self, observations: Tensor, actions: Tensor, generator: Generator) -> Rows:
        """What may follow: each row as a random model says."""
        count = len(observations)
        rows = torch.arange(count)
        inputs = torch.cat((observations, actions), -1)
        scaled = (inputs - self.mean[: self._inputs]) / self.std[: self._inputs]
        model = torch.randint(self._told.models, (count,), generator=generator)
        mean, log_variance, end = (
            each[model, rows] for each in self(scaled.expand(self._told.models, -1, -1))
        )
        outputs = mean + (log_variance / 2).exp() * normal(mean, generator)
        outputs = outputs * self.std[self._inputs :] + self.mean[self._inputs :]
        return Rows(observations, actions, outputs[:, -1], observations + outputs[:, :-1], (end > 0).float())

    def state(self) -> dict[str, Any]:
        return {"networks": self.state_dict(), "optimizer": self._optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state["networks"])
        self._optimizer.load_state_dict(state["optimizer"])


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
        new = Rows.of(rollout, self.device)
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
        for _ in range(told.updates * steps):
            parts = [
                self._real.sample(real, self.generator),
                imagined.sample(told.batch_size - real, self.generator),
            ]
            with learning(self.network):
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
