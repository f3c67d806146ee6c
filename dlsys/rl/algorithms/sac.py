"""Soft actor-critic (Haarnoja et al. 2018): https://arxiv.org/abs/1812.05905

For discrete actions the sums over all of them stand where one drawn action does otherwise (Christodoulou
2019): https://arxiv.org/abs/1910.07207. What images and one's own networks make of what is seen is learned by
the values alone, and the policy sees it too (Yarats et al. 2021).
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any, NamedTuple

import torch
from torch import Generator, Tensor
from torch.optim import Adam

from dlsys.rl.actions import Actions
from dlsys.rl.adam import descend
from dlsys.rl.chances import Chances, Squashed, even, mask_of
from dlsys.rl.critics import Critics, Steps
from dlsys.rl.networks import Seeing, networks
from dlsys.rl.observations import Observations
from dlsys.rl.off_policy import OffPolicy
from dlsys.rl.own import Stateful
from dlsys.rl.sampler import Told
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.section import Deep
from dlsys.spec.rl.value import SAC

# The share of the highest entropy, log n, that a policy of n discrete actions aims at.
_OF_HIGHEST = 0.5


class May(NamedTuple):
    """What a policy may do where N observations were made: one action of each, or all there are."""

    actions: Tensor | None
    """Drawn, [N, A]; None: all of K."""
    chances: Tensor | None
    """Of all, [N, K]."""
    logp: Tensor
    """The logarithms of densities [N], or of chances [N, K]."""

    def mean(self, values: Tensor) -> Tensor:
        """What it expects of values of these actions, [N]."""
        return values if self.chances is None else (self.chances * values).sum(-1)


class SoftPolicy(Seeing):
    """Squashed normal numbers, or categories. Implements `dlsys.rl.runners.Policy`."""

    def __init__(self, observations: Observations, actions: Actions, job: RLJob) -> None:
        super().__init__(observations, job)
        told = job.algorithm
        assert isinstance(told, Deep)
        self._actions = actions
        outputs = actions.counts[0] if actions.single else 2 * actions.numbers
        self.layers = networks(1, self.width, outputs, told.hidden, told.activation)
        self._random = False

    def set(self, told: Mapping[str, float]) -> None:
        self._random = bool(told.get("random"))

    def head(self, features: Tensor) -> Tensor:
        """What its actions are drawn from, as outputs [N, …] of features [N, F]."""
        found: Tensor = self.layers(features[None])[0]
        return found

    def may(self, features: Tensor, mask: Tensor | None, generator: Generator) -> May:
        """What it may do where features [N, F] are seen."""
        if not self._actions.single:
            actions, logp = self.squashed(features).sample(generator)
            return May(actions, None, logp)
        (logp,) = self._chances(features, mask).categories
        return May(None, logp.exp(), logp)

    def squashed(self, features: Tensor) -> Squashed:
        return Squashed(self.head(features))

    def _chances(self, features: Tensor, mask: Tensor | None) -> Chances:
        return Chances(self._actions, self.head(features), None, mask)

    def explore(self, seen: dict[str, Tensor], memory: Tensor, generator: Generator | None) -> Told:
        features = self.features(seen)
        if self._actions.single:
            return self._chances(features, mask_of(seen)).sample(generator), {}, memory
        squashed = self.squashed(features)
        chosen = even(squashed.mean, generator) if self._random else squashed.sample(generator)[0]
        return chosen, {}, memory

    def best(self, seen: dict[str, Tensor], memory: Tensor) -> tuple[Tensor, Tensor]:
        """The best known actions [N, …], and what is remembered then, [N, 0]."""
        features = self.features(seen)
        if self._actions.single:
            return self._chances(features, mask_of(seen)).best(), memory
        return self.squashed(features).best(), memory


class SoftActorCritic:
    """What learns.

    Args:
        policy: the policy.
        actions: the environment's.
        told: widths, learning rate.
        average: how far the target values move at each update.
        twin: whether the lower one of two networks' values counts.
        temperature: the first weight of the entropy.
        entropy: what is aimed at; None: minus the number of the actions' parts, and of discrete ones half of
            the most that those which are legal could have.
        device: where it learns.

    Attributes:
        optimizers: by name.
    """

    def __init__(
        self,
        policy: SoftPolicy,
        actions: Actions,
        told: Deep,
        *,
        average: float,
        twin: bool = True,
        temperature: float = 1.0,
        entropy: float | None = None,
        device: str = "cpu",
    ) -> None:
        self.policy = policy
        self.critics = Critics(policy.features, actions, told, twin=twin, average=average).to(device)
        self.log_temperature = torch.tensor(math.log(temperature), device=device, requires_grad=True)
        self._actions, self._entropy, self._clip = actions, entropy, told.clip_norm
        values = [*self.critics.networks.parameters(), *policy.features.parameters()]
        parts = {
            "values": values,
            "policy": policy.layers.parameters(),
            "temperature": [self.log_temperature],
        }
        self.optimizers = {name: Adam(part, told.lr, fused=True) for name, part in parts.items()}

    def update(self, steps: Steps, generator: Generator) -> tuple[dict[str, Tensor], Tensor]:
        """One step of each optimizer; figures, and how wrong the values were [B]."""
        temperature = self.log_temperature.detach().exp()
        features = self.policy.features(steps.seen)
        with torch.no_grad():
            goal = self._goal(steps, temperature, generator)
        values = self.critics(features, steps.actions)
        value_loss = self.value_loss(values, goal, steps, features, generator)
        descend(self.optimizers["values"], value_loss, self._clip)

        mask, features = mask_of(steps.seen), features.detach()
        may = self.policy.may(features, mask, generator)
        self.critics.networks.requires_grad_(False)
        found = self.critics(features, may.actions).amin(0)
        self.critics.networks.requires_grad_(True)
        policy_loss = may.mean(temperature * may.logp - found).mean()
        descend(self.optimizers["policy"], policy_loss, self._clip)

        surprise = -may.mean(may.logp).detach()
        temperature_loss = self.log_temperature * (surprise - self.aim(mask)).mean()
        descend(self.optimizers["temperature"], temperature_loss, self._clip)
        self.critics.follow(self.policy.features)
        errors = (values.detach() - goal).abs().mean(0)
        figures = {
            "loss": value_loss + policy_loss + temperature_loss,
            "value_loss": value_loss,
            "policy_loss": policy_loss,
            "q": values.mean(),
            "td_error": errors.mean(),
            "entropy": surprise.mean(),
            "temperature": temperature,
        }
        return {name: value.detach() for name, value in figures.items()}, errors

    def _goal(self, steps: Steps, temperature: Tensor, generator: Generator) -> Tensor:
        """What the values should be, [B]."""
        may = self.policy.may(self.policy.features(steps.following), mask_of(steps.following), generator)
        later = self.critics.later(self.critics.target_features(steps.following), may.actions)
        return steps.rewards + steps.going * may.mean(later - temperature * may.logp)

    def value_loss(
        self, values: Tensor, goal: Tensor, steps: Steps, features: Tensor, generator: Generator
    ) -> Tensor:
        """Of values [E, B] that should be [B]; summed over the networks."""
        return (steps.weights * (values - goal).square()).mean(1).sum() / 2

    def aim(self, mask: Tensor | None) -> float | Tensor:
        """The entropy that the policy should have, or that of each of N observations."""
        if self._entropy is not None:
            return self._entropy
        if not self._actions.single:
            return -float(self._actions.numbers)
        if mask is None:
            return _OF_HIGHEST * math.log(self._actions.counts[0])
        return _OF_HIGHEST * mask.sum(-1).log()

    def worth(self, seen: dict[str, Tensor]) -> Tensor:
        """Of what the policy would do, [N]."""
        features = self.policy.features(seen)
        best, _ = self.policy.best(seen, self.policy.initial)
        return self.critics(features, best).amin(0)

    def state_dict(self) -> dict[str, Any]:
        """All but the policy and the optimizers."""
        return {"critics": self.critics.state_dict(), "log_temperature": self.log_temperature.detach()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self.critics.load_state_dict(state["critics"])
        self.log_temperature.data.copy_(state["log_temperature"])


class SACAgent(OffPolicy):
    """An iteration is a thousand steps of the environments, and the updates that they bring."""

    NETWORK = SoftPolicy
    network: SoftPolicy

    def __init__(self, job: RLJob) -> None:
        super().__init__(job)
        told = job.algorithm
        assert isinstance(told, SAC)
        self.learner = SoftActorCritic(
            self.network,
            self.actions,
            told,
            average=told.tau,
            twin=told.twin,
            temperature=told.temperature,
            entropy=told.entropy,
            device=self.device,
        )

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return self.learner.optimizers

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {**super().parts, "learner": self.learner}

    def worth(self, seen: dict[str, Tensor]) -> Tensor | None:
        return self.learner.worth(seen)

    def update(self) -> dict[str, Tensor]:
        drawn, columns = self.drawn()
        figures, errors = self.learner.update(Steps.of(drawn, columns, self.device), self.generator)
        self.replay.prioritize(drawn.rows, errors)
        return figures
