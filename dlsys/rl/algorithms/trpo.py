"""Trust region policy optimization (Schulman et al. 2015): https://arxiv.org/abs/1502.05477

The policy takes the longest step along the natural gradient that keeps the mean KL divergence under a
limit: conjugate gradients solve F x = g with products of the Fisher information matrix F and a vector
(appendix C.1), and a line search makes sure of the limit and of the surrogate.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping

import torch
from torch import Tensor
from torch.nn.utils import parameters_to_vector, vector_to_parameters

from dlsys.rl.chances import Chances
from dlsys.rl.on_policy import Batch, OnPolicy
from dlsys.rl.runners import Runners
from dlsys.rl.value_passes import ValuePasses
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.policy import TRPO


class TRPOAgent(OnPolicy):
    """An iteration is a batch: a step of the policy, then passes of the value function.

    Figures: `kl` and `surrogate` are what the step did to the mean KL divergence and the surrogate.
    """

    def __init__(self, job: RLJob, runners: Runners | None = None) -> None:
        super().__init__(job, runners=runners)
        assert isinstance(job.algorithm, TRPO)
        self._told = job.algorithm
        self._parameters = self.network.of_policy()
        self._values = ValuePasses(self.network, job.algorithm, self.generator)

    @property
    def optimizers(self) -> Mapping[str, torch.optim.Optimizer]:
        return {"value": self._values.adam}

    def learn(self, batch: Batch) -> dict[str, float]:
        rows = batch.flat()
        gains = rows.advantages
        gains = (gains - gains.mean()) / (gains.std(unbiased=False) + 1e-8)
        figures = self.improve(rows.seen, rows.actions, gains)
        error = self._values.fit(rows)
        return {**figures, "value_loss": error, "loss": error}

    def improve(self, seen: dict[str, Tensor], actions: Tensor, gains: Tensor) -> dict[str, float]:
        """One step of the policy, of R rows; figures by name."""
        told, parameters = self._told, self._parameters

        def flat_gradient(of: Tensor, *, graph: bool = False) -> Tensor:
            parts = torch.autograd.grad(of, parameters, retain_graph=True, create_graph=graph)
            return torch.cat([part.reshape(-1) for part in parts])

        new = self.network.rows(seen)[0]
        old = new.fixed()
        before, old_logp = gains.mean(), old.logp(actions)

        def measured(new: Chances) -> tuple[Tensor, Tensor]:
            """The mean KL divergence KL(old ‖ new), and how much the surrogate gained."""
            ratio = torch.exp(new.logp(actions) - old_logp)
            return old.kl(new).mean(), (ratio * gains).mean() - before

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
                kl, surrogate = measured(self.network.rows(seen)[0])
                if kl <= told.max_kl and surrogate >= 0:
                    break
            else:
                vector_to_parameters(start, parameters)
                kl = surrogate = torch.zeros(())
        return {"kl": float(kl), "surrogate": float(surrogate), "entropy": float(old.entropy().mean())}


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
