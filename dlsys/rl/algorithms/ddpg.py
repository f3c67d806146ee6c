"""Deep deterministic policy gradient (https://arxiv.org/abs/1509.02971), and TD3
(https://arxiv.org/abs/1802.09477).

The latter are twin values, delayed policies and smoothed targets. What images and one's own networks make of
what is seen is learned by the values alone, as in `sac`.
"""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any

import torch
from torch import Generator, Tensor, nn
from torch.optim import Adam

from dlsys.rl.actions import Actions
from dlsys.rl.adam import descend
from dlsys.rl.chances import even, normal
from dlsys.rl.critics import Critics, Steps, approach
from dlsys.rl.networks import Seeing, networks
from dlsys.rl.observations import Observations
from dlsys.rl.off_policy import OffPolicy
from dlsys.rl.own import Stateful
from dlsys.rl.sampler import Told
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.value import DDPG


class Deterministic(Seeing):
    """A policy μ(s) in ±1. Implements `dlsys.rl.runners.Policy`.

    It explores by chance alone at first, and then with noise on what it would do.
    """

    def __init__(self, observations: Observations, actions: Actions, job: RLJob) -> None:
        super().__init__(observations, job)
        told = job.algorithm
        assert isinstance(told, DDPG)
        self.layers = networks(1, self.width, actions.numbers, told.hidden, told.activation)
        self._random, self._noise = False, told.explore

    def set(self, told: Mapping[str, float]) -> None:
        self._random = bool(told.get("random"))

    def explore(self, seen: dict[str, Tensor], memory: Tensor, generator: Generator | None) -> Told:
        best, _ = self.best(seen, memory)
        if self._random:
            return even(best, generator), {}, memory
        return (best + self._noise * normal(best, generator)).clamp(-1, 1), {}, memory

    def best(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The best known actions [N, A], and what is remembered then, [N, 0]."""
        return chosen(self.layers, self.features(seen)), memory


def chosen(layers: nn.Module, features: Tensor) -> Tensor:
    """Actions [N, A] of a policy's layers for features [N, F]."""
    outputs: Tensor = layers(features[None])[0]
    return outputs.tanh()


class DDPGAgent(OffPolicy):
    """An iteration is a thousand steps of the environments, and the updates that they bring."""

    NETWORK = Deterministic
    network: Deterministic

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told, policy = job.algorithm, self.network
        assert isinstance(told, DDPG)
        self._told = told
        self.critics = Critics(policy.features, self.actions, told, twin=told.twin, average=told.tau)
        self.critics.to(self.device)
        self.target_layers = copy.deepcopy(policy.layers).requires_grad_(False)
        self._updates = 0
        values = [*self.critics.networks.parameters(), *policy.features.parameters()]
        self._values = Adam(values, told.lr, fused=True)
        self._policy = Adam(policy.layers.parameters(), told.lr, fused=True)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"values": self._values, "policy": self._policy}

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {**super().parts, "critics": self.critics, "target_layers": self.target_layers}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        features = self.network.features(seen)
        return self.critics(features, chosen(self.network.layers, features)).amin(0)

    def exploring(self) -> Mapping[str, float]:
        return {"random": float(self.step < self._told.starts)}

    def update(self) -> dict[str, Tensor]:
        drawn, columns = self.drawn()
        figures, errors = self.learn(Steps.of(drawn, columns, self.device))
        self.replay.prioritize(drawn.rows, errors)
        return figures

    def learn(self, steps: Steps) -> tuple[dict[str, Tensor], Tensor]:
        """One update from steps; figures, and how wrong the values were [B]."""
        told, layers = self._told, self.network.layers
        self._updates += 1
        features = self.network.features(steps.seen)
        goal = self.goal(steps)
        values = self.critics(features, steps.actions)
        value_loss = (steps.weights * (values - goal).square()).mean(1).sum()
        descend(self._values, value_loss, told.clip_norm)
        errors = (values.detach() - goal).abs().mean(0)
        figures = {
            "loss": value_loss,
            "value_loss": value_loss,
            "q": values.mean(),
            "td_error": errors.mean(),
        }
        if self._updates % told.delay == 0:
            features = features.detach()
            self.critics.networks.requires_grad_(False)
            # The first network alone, as in TD3: the lower one of two would hold the policy back.
            policy_loss = -self.critics(features, chosen(layers, features))[0].mean()
            self.critics.networks.requires_grad_(True)
            descend(self._policy, policy_loss, told.clip_norm)
            self.critics.follow(self.network.features)
            approach(self.target_layers, layers, told.tau)
            figures |= {"loss": value_loss + policy_loss, "policy_loss": policy_loss}
        return {name: value.detach() for name, value in figures.items()}, errors

    @torch.no_grad()
    def goal(self, steps: Steps) -> Tensor:
        """What the values should be, [B]."""
        told = self._told
        features = self.critics.target_features(steps.following)
        actions = chosen(self.target_layers, features)
        if told.smoothing:
            noise = told.smoothing * normal(actions, self.generator)
            actions = (actions + noise.clamp(-told.smoothing_limit, told.smoothing_limit)).clamp(-1, 1)
        return steps.rewards + steps.going * self.critics.later(features, actions)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "updates": self._updates}

    def load(self, state: dict[str, Any]) -> list[str]:
        self._updates = state["updates"]
        return super().load(state)
