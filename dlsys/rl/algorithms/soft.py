"""Soft actor-critic (Haarnoja et al. 2018): https://arxiv.org/abs/1812.05905

The learner alone, for agents that bring their own steps.
"""

from __future__ import annotations

import copy
import math
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor, nn
from torch.nn import functional
from torch.nn.utils import clip_grad_norm_

from dlsys.rl.networks import networks
from dlsys.spec.rl.section import Deep

_LOG_STD = (-5.0, 2.0)


class Steps(NamedTuple):
    """N steps of an environment, or of a model of one; actions in ±1."""

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

    def rows(self, index: Tensor) -> Steps:
        return Steps(*(values[index] for values in self))

    def sample(self, count: int, generator: Generator) -> Steps:
        """Random rows, some of them more than once."""
        return self.rows(torch.randint(len(self.rewards), (count,), generator=generator))

    @staticmethod
    def join(parts: list[Steps]) -> Steps:
        return Steps(*(torch.cat(values) for values in zip(*parts, strict=True)))


class Actor(nn.Module):
    """A squashed Gaussian policy."""

    def __init__(self, observations: int, actions: int, told: Deep) -> None:
        super().__init__()
        self.network = networks(1, observations, 2 * actions, told.hidden, told.activation)

    def forward_inference(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The middle of what the policy does, as `dlsys.rl.policy.Policy` asks for it."""
        mean, _ = self.network(batch["obs"][None])[0].chunk(2, -1)
        return {"actions": mean.tanh()}

    def forward_exploration(self, batch: dict[str, Tensor]) -> dict[str, Tensor]:
        """The same of what it draws."""
        return {"actions": self.sample(batch["obs"])[0]}

    def sample(self, observations: Tensor, generator: Generator | None = None) -> tuple[Tensor, Tensor]:
        """Actions [N, A] for observations [N, O], and the logarithms of their densities [N]."""
        mean, raw = self.network(observations[None])[0].chunk(2, -1)
        low, high = _LOG_STD
        log_std = low + (high - low) * (raw.tanh() + 1) / 2
        noise = torch.randn(mean.shape, generator=generator)
        before = mean + log_std.exp() * noise
        density = -noise.square() / 2 - log_std - math.log(2 * math.pi) / 2
        # log(1 - tanh(x)²), where that would be the logarithm of 0
        squashed = 2 * (math.log(2) - before - functional.softplus(-2 * before))
        return before.tanh(), (density - squashed).sum(-1)


class SoftActorCritic(nn.Module):
    """A policy and two value functions of it.

    Args:
        observations: O.
        actions: A.
        told: widths, learning rate, discount.
        average: how far the target value functions move at each update.
    """

    def __init__(self, observations: int, actions: int, told: Deep, average: float) -> None:
        super().__init__()
        self.actor = Actor(observations, actions, told)
        self.critics = networks(2, observations + actions, 1, told.hidden, told.activation)
        self.targets = copy.deepcopy(self.critics).requires_grad_(False)
        self.log_temperature = nn.Parameter(torch.tensor(0.0))
        self._entropy = -float(actions)
        self._gamma, self._average, self._clip = told.gamma, average, told.clip_norm
        parts = (self.actor.parameters(), self.critics.parameters(), [self.log_temperature])
        self._optimizers = [torch.optim.Adam(part, told.lr, fused=True) for part in parts]

    def update(self, steps: Steps, generator: Generator) -> dict[str, Tensor]:
        """One gradient step of each part; its losses."""
        temperature = self.log_temperature.detach().exp()
        with torch.no_grad():
            actions, density = self.actor.sample(steps.following, generator)
            later = self._values(self.targets, steps.following, actions).amin(0) - temperature * density
            goal = steps.rewards + self._gamma * (1 - steps.terminated) * later
        values = self._values(self.critics, steps.observations, steps.actions)
        critic_loss = (values - goal).square().mean(1).sum()
        self._step(1, critic_loss)

        actions, density = self.actor.sample(steps.observations, generator)
        self.critics.requires_grad_(False)
        found = self._values(self.critics, steps.observations, actions).amin(0)
        self.critics.requires_grad_(True)
        actor_loss = (temperature * density - found).mean()
        self._step(0, actor_loss)
        self._step(2, -self.log_temperature * (density.detach().mean() + self._entropy))
        torch._foreach_lerp_(
            list(self.targets.parameters()),
            [value.detach() for value in self.critics.parameters()],
            self._average,
        )
        return {
            "critic_loss": critic_loss.detach(),
            "actor_loss": actor_loss.detach(),
            "entropy": -density.detach().mean(),
            "temperature": temperature,
        }

    @staticmethod
    def _values(critics: nn.Module, observations: Tensor, actions: Tensor) -> Tensor:
        """[2, N]."""
        both = torch.cat((observations, actions), -1).expand(2, -1, -1)
        values: Tensor = critics(both).squeeze(-1)
        return values

    def _step(self, index: int, loss: Tensor) -> None:
        optimizer = self._optimizers[index]
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self._clip is not None:
            clip_grad_norm_(optimizer.param_groups[0]["params"], self._clip)
        optimizer.step()

    def state(self) -> dict[str, Any]:
        """Networks and optimizers."""
        optimizers = [optimizer.state_dict() for optimizer in self._optimizers]
        return {"networks": self.state_dict(), "optimizers": optimizers}

    def load(self, state: dict[str, Any]) -> None:
        self.load_state_dict(state["networks"])
        for optimizer, saved in zip(self._optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(saved)
