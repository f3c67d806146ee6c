"""Learned models of an environment that shows numbers alone: ensembles of Gaussian networks (Chua et al.
2018): https://arxiv.org/abs/1805.12114

Unlike the paper's, a model also learns where episodes terminate.
"""

from __future__ import annotations

from typing import Any, NamedTuple, Protocol

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional

from dlsys.rl.actions import Actions
from dlsys.rl.chances import normal
from dlsys.rl.networks import networks
from dlsys.rl.observations import NUMBERS
from dlsys.rl.progress import stepped
from dlsys.rl.sampler import Rollout

# A tenth of the steps, at most _HOLDOUT, says when the models have learned enough: when for _PATIENCE rounds
# none of them has got better at these by a hundredth, or all are as good as they need to be. A round is as
# many batches as the steps make, and at least _ROUND: a few steps would make a single one.
_HOLDOUT = 1000
_ROUND = 20
_PATIENCE = 5
_BETTER = 0.99
_ENOUGH = 1e-3


class Told(Protocol):
    """What an algorithm says of its models."""

    @property
    def models(self) -> int:
        """Networks of the ensemble, E."""

    @property
    def hidden(self) -> tuple[int, ...]:
        """Their widths."""

    @property
    def activation(self) -> str:
        """Between their layers."""

    @property
    def model_lr(self) -> float:
        """Their learning rate."""

    @property
    def batch_size(self) -> int:
        """Rows of one update of each."""


class Rows(NamedTuple):
    """N steps of an environment that shows numbers alone, or of a model of one."""

    observations: Tensor
    """[N, O]"""
    actions: Tensor
    """In ±1, or a one for the choice, [N, A]."""
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
    def of(rollout: Rollout, actions: Actions, device: str) -> Rows:
        """What was sampled."""
        seen = rollout.seen[NUMBERS]
        following = seen[1:].copy()
        following[tuple(rollout.ends)] = rollout.finals[NUMBERS]
        chosen = torch.from_numpy(rollout.actions)
        if actions.single:
            chosen = functional.one_hot(chosen, actions.counts[0])
        columns = (seen[:-1], rollout.rewards, following, rollout.terminated)
        before, rewards, after, over = (torch.from_numpy(each) for each in columns)
        whole = (before, chosen, rewards, after, over)
        return Rows(*(each.flatten(0, 1).float().to(device) for each in whole))


class Models(nn.Module):
    """An ensemble of Gaussian models: from an observation and an action to a change, a reward and an end.

    Args:
        observations: O.
        actions: A.
        told: how many, their widths and learning rate.

    Attributes:
        optimizer: of all of them.
    """

    def __init__(self, observations: int, actions: int, told: Told) -> None:
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
        self.optimizer = torch.optim.AdamW(self.parameters(), told.model_lr, weight_decay=1e-4, fused=True)

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
                self.optimizer.zero_grad()
                likely, _, ends = self._losses(rows[index])
                bounds = self.log_variances[1].sum() - self.log_variances[0].sum()
                loss = likely.sum() + ends.sum() + 0.01 * bounds
                loss.backward()  # type: ignore[no-untyped-call]
                self.optimizer.step()
                stepped()
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
        model = torch.randint(self._told.models, (count,), generator=generator)
        scaled = self._scaled(observations, actions)
        mean, log_variance, end = (
            each[model, rows] for each in self(scaled.expand(self._told.models, -1, -1))
        )
        outputs = mean + (log_variance / 2).exp() * normal(mean, generator)
        following, rewards = self._unscaled(observations, outputs)
        return Rows(observations, actions, rewards, following, (end > 0).float())

    def expected(self, observations: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """What each model expects after rows of its own [E, N, …]: the next observations [E, N, O], the
        rewards [E, N], and 1 where the episode ends [E, N]."""
        mean, _, end = self(self._scaled(observations, actions))
        following, rewards = self._unscaled(observations, mean)
        return following, rewards, (end > 0).float()

    def _scaled(self, observations: Tensor, actions: Tensor) -> Tensor:
        inputs = torch.cat((observations, actions), -1)
        return (inputs - self.mean[: self._inputs]) / self.std[: self._inputs]

    def _unscaled(self, observations: Tensor, outputs: Tensor) -> tuple[Tensor, Tensor]:
        """The next observations, and the rewards."""
        outputs = outputs * self.std[self._inputs :] + self.mean[self._inputs :]
        return observations + outputs[..., :-1], outputs[..., -1]

    def state(self) -> dict[str, Any]:
        return {"networks": self.state_dict(), "optimizer": self.optimizer.state_dict()}

    def load(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state["networks"])
        self.optimizer.load_state_dict(state["optimizer"])
