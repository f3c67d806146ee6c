"""Yogi: Zaheer et al., "Adaptive Methods for Nonconvex Optimization", NeurIPS 2018, algorithm 2."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.optim.optimizer import ParamsT


class Yogi(torch.optim.Optimizer):
    """Adam whose second moment moves by at most (1 − β₂)·g² a step, up or down.

        m ← β₁·m + (1 − β₁)·g
        v ← v − (1 − β₂)·sign(v − g²)·g²
        θ ← θ − lr·m / (√v + eps)

    Adam's v forgets a large gradient exponentially, and its effective rate shoots up afterwards;
    here v falls no faster than the small gradients that follow. As in the paper there is no bias
    correction: `initial_accumulator` keeps the first steps bounded.

    Args:
        params: parameters or parameter groups.
        lr: the learning rate.
        betas: β₁ and β₂.
        eps: added to the denominator.
        initial_accumulator: the value that m and v start from.
        weight_decay: added to the gradient as weight_decay × parameter.
    """

    def __init__(
        self,
        params: ParamsT,
        lr: float = 0.01,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-3,
        initial_accumulator: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        defaults = {
            "lr": lr,
            "betas": betas,
            "eps": eps,
            "initial_accumulator": initial_accumulator,
            "weight_decay": weight_decay,
        }
        super().__init__(params, defaults)

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> float | None:  # type: ignore[override]
        """One update of every parameter that has a gradient.

        Args:
            closure: computes the loss anew, with its gradients; its value is returned.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        for group in self.param_groups:
            for parameter in group["params"]:
                if parameter.grad is not None:
                    self._update(parameter, group)
        return loss

    def _update(self, parameter: nn.Parameter, group: dict[str, Any]) -> None:
        state, gradient = self.state[parameter], parameter.grad
        assert gradient is not None
        if not state:
            for moment in ("exp_avg", "exp_avg_sq"):
                state[moment] = torch.full_like(parameter, group["initial_accumulator"])
        if group["weight_decay"]:
            gradient = gradient.add(parameter, alpha=group["weight_decay"])
        beta1, beta2 = group["betas"]
        mean, variance = state["exp_avg"], state["exp_avg_sq"]
        square = gradient * gradient
        mean.mul_(beta1).add_(gradient, alpha=1 - beta1)
        variance.addcmul_(torch.sign(variance - square), square, value=-(1 - beta2))
        parameter.addcdiv_(mean, variance.sqrt().add_(group["eps"]), value=-group["lr"])
