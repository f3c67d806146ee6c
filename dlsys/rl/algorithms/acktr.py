"""Actor-critic with a Kronecker-factored trust region (ACKTR; Wu et al. 2017): https://arxiv.org/abs/1708.05144

A step follows the natural gradient, as far as the KL divergence that it is expected to make is below a limit.
The policy and the value function have a limit each, since a value function that is far off would leave the
policy no room. That of values is of normal distributions whose variance is the mean squared error.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils import clip_grad_norm_

from dlsys.rl.kfac import Curvature
from dlsys.rl.on_policy import Batch, OnPolicy
from dlsys.rl.own import Stateful
from dlsys.rl.runners import Runners
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.policy import ACKTR

# Steps of one iteration at least.
_STEPS = 2000
# The Fisher information of the logarithm of a normal distribution's deviation.
_OF_LOG_STD = 2.0


class ACKTRAgent(OnPolicy):
    """An iteration is several batches, each of which is learned from once.

    Figures: `kl`, what the policy's steps are expected to make of it.
    """

    def __init__(self, job: RLJob, runners: Runners | None = None) -> None:
        super().__init__(job, least=_STEPS, runners=runners)
        assert isinstance(job.algorithm, ACKTR)
        self._told = told = job.algorithm
        self._parameters = list(self.network.parameters())
        self._curvature = Curvature(self.network, told.decay, told.damping).to(self.device)
        self._momentum = torch.optim.SGD(self._parameters, 1.0, told.momentum, dampening=told.momentum)
        self._drawing = torch.Generator(self.device).manual_seed(job.seed)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"momentum": self._momentum}

    @property
    def parts(self) -> Mapping[str, Stateful]:
        return {**super().parts, "curvature": self._curvature}

    def learn(self, batch: Batch) -> dict[str, float]:
        told, rows = self._told, batch.flat()
        with self._curvature.watching() as move:
            chances, values = self.network.rows(rows.seen)
        # What the model itself would say, not what happened: values as if from a normal distribution.
        # Detached: drawn numbers would move with their means, and teach nothing.
        drawn = chances.sample(self._drawing).detach()
        noise = torch.randn(values.shape, generator=self._drawing, device=self.device)
        move(chances.logp(drawn).sum() + (values * noise).sum())
        policy_loss = -(chances.logp(rows.actions) * rows.advantages).mean()
        error, entropy = (values - rows.returns).square().mean(), chances.entropy().mean()
        loss = policy_loss - told.entropy * entropy + error / 2
        for parameter in self._parameters:
            parameter.grad = None
        loss.backward()  # type: ignore[no-untyped-call]
        if told.clip_norm is not None:
            clip_grad_norm_(self._parameters, told.clip_norm)
        parts = {"loss": loss, "policy_loss": policy_loss, "value_loss": error, "entropy": entropy}
        figures = {name: float(value.detach()) for name, value in parts.items()}
        figures["kl"] = self._limited(figures["value_loss"])
        self._momentum.step()
        return figures

    @torch.no_grad()
    def _limited(self, error: float) -> float:
        """Makes steps within the limits of gradients; the KL divergence that is expected of the policy's.

        Of a step x it is ½ xᵀFx, and xᵀ∇ is xᵀFx, or more by the damping.
        """
        told, network = self._told, self.network
        plain = [parameter.grad.clone() for parameter in self._parameters if parameter.grad is not None]
        self._curvature.natural()
        if network.log_std is not None and network.log_std.grad is not None:
            network.log_std.grad /= _OF_LOG_STD + told.damping
        body, value = set(network.body.parameters()), set(network.value.parameters())
        along = torch.zeros(2, device=self.device)
        for parameter, gradient in zip(self._parameters, plain, strict=True):
            product = gradient * _of(parameter)
            if parameter in body:
                along += product.flatten(1).sum(1)
            else:
                along[int(parameter in value)] += product.sum()
        along[1] /= max(error, 1e-8)
        lengths = (2 * told.max_kl / along.clamp(min=1e-12)).sqrt().clamp(max=told.lr)
        for parameter in self._parameters:
            own = lengths[:, None, None] if parameter in body else lengths[int(parameter in value)]
            _of(parameter).mul_(own)
        return float(along[0] * lengths[0].square() / 2)

    def state(self) -> dict[str, Any]:
        return {**super().state(), "drawing": self._drawing.get_state()}

    def load(self, state: dict[str, Any]) -> list[str]:
        self._drawing.set_state(state["drawing"])
        return super().load(state)


def _of(parameter: torch.nn.Parameter) -> Tensor:
    assert parameter.grad is not None
    return parameter.grad
