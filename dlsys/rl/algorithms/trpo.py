"""https://arxiv.org/abs/1502.05477 — trust region policy optimization.

The policy takes the longest step along the natural gradient that keeps the mean KL divergence under a
limit: conjugate gradients solve F x = g with products of the Fisher information matrix F and a vector
(appendix C.1), and a line search makes sure of the limit and of the surrogate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dlsys.rl.algorithms.critic import CriticLearner, Rows
from dlsys.rl.algorithms.rllib import network
from dlsys.spec.rl.policy import TRPO


def trpo(told: TRPO) -> AlgorithmConfig:
    """PPO's sampling and advantages, with another learner."""
    return (
        PPOConfig()  # type: ignore[no-untyped-call]
        .training(
            lr=told.lr,
            gamma=told.gamma,
            lambda_=told.trace,
            train_batch_size_per_learner=told.batch_size,
            minibatch_size=None,
            num_epochs=1,
            use_kl_loss=False,
        )
        .learners(learner_class=TRPOLearner, learner_config_dict={"told": told})
        .rl_module(model_config=network(told, vf_share_layers=False))
    )


class TRPOLearner(CriticLearner, PPOTorchLearner):
    """Figures: `kl` and `surrogate` are what the step did to the mean KL divergence and the surrogate."""

    def improve(self, module_id: str, module: Any, rows: Rows) -> dict[str, Any]:
        told: TRPO = self.told
        parameters = self.policy_parameters(module)
        actions, advantages = rows[Columns.ACTIONS], rows[Postprocessing.ADVANTAGES]

        def flat_gradient(of: Tensor, *, graph: bool = False) -> Tensor:
            return parameters_to_vector(
                torch.autograd.grad(of, parameters, retain_graph=True, create_graph=graph)
            )

        new = self.distribution(module, rows)
        with torch.no_grad():
            old = self.distribution(module, rows)
            before, old_logp = advantages.mean(), old.logp(actions)

        def measured(new: Any) -> tuple[Tensor, Tensor]:
            """The mean KL divergence KL(old ‖ new), and how much the surrogate gained."""
            ratio = torch.exp(new.logp(actions) - old_logp)
            return old.kl(new).mean(), (ratio * advantages).mean() - before

        kl, surrogate = measured(new)
        gradient = flat_gradient(surrogate)
        slope = flat_gradient(kl, graph=True)

        def fisher(vector: Tensor) -> Tensor:
            return flat_gradient(slope @ vector) + told.cg_damping * vector

        direction = conjugate_gradient(fisher, gradient, told.cg_iterations)
        # The KL divergence of a small step x is ½ xᵀFx. A zero gradient makes this 0 · ∞ = NaN, which no
        # comparison below accepts.
        step = direction * torch.sqrt(2 * told.max_kl / (direction @ fisher(direction)))
        start = parameters_to_vector(parameters).detach()
        with torch.no_grad():
            for tried in range(told.line_search):
                vector_to_parameters(start + step * 0.5**tried, parameters)
                kl, surrogate = measured(self.distribution(module, rows))
                if kl <= told.max_kl and surrogate >= 0:
                    break
            else:
                vector_to_parameters(start, parameters)
                kl = surrogate = torch.zeros(())
        return {"kl": kl, "surrogate": surrogate, ENTROPY_KEY: old.entropy().mean()}


def conjugate_gradient(
    product: Callable[[Tensor], Tensor], target: Tensor, iterations: int, tolerance: float = 1e-10
) -> Tensor:
    """Solves A x = b for a symmetric positive definite A (Hestenes & Stiefel 1952).

    Args:
        product: A v for a vector v [n].
        target: b, of shape [n].
        iterations: at most so many; n of them would be exact.
        tolerance: ends it once the squared residual is below.
    """
    found = torch.zeros_like(target)
    residual = direction = target
    squared = residual @ residual
    for _ in range(iterations):
        if squared < tolerance:
            break
        along = product(direction)
        length = squared / (direction @ along)
        found = found + length * direction
        residual = residual - length * along
        squared, before = residual @ residual, squared
        direction = residual + squared / before * direction
    return found
