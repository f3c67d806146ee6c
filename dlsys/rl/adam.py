"""How agents follow the gradient of a loss; Adam on all parameters as one vector.

Networks of agents are small: clipping gradients and stepping, tensor by tensor, takes as long as the
arithmetic. Here parameters and gradients are views of two vectors, so that each is a few operations.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.utils import clip_grad_norm_

from dlsys.rl.progress import stepped


class Adam:
    """Of one network, whose parameters stay where they are put here.

    Args:
        module: the network, on its device.
        lr: the learning rate.
        eps: as of `torch.optim.Adam`.
        clip: scales the whole gradient down to this norm; None leaves it.
    """

    def __init__(self, module: nn.Module, lr: float, *, eps: float = 1e-8, clip: float | None = None) -> None:
        parameters = list(module.parameters())
        self._whole = nn.Parameter(torch.cat([each.data.flatten() for each in parameters]))
        self._whole.grad = torch.zeros_like(self._whole)
        sizes = [each.numel() for each in parameters]
        for each, value, gradient in zip(
            parameters, self._whole.data.split(sizes), self._whole.grad.split(sizes), strict=True
        ):
            each.data, each.grad = value.view_as(each), gradient.view_as(each)
        self._clip = clip
        self._adam = torch.optim.Adam([self._whole], lr, eps=eps, fused=True)

    def step(self, loss: Tensor, lr: float) -> Tensor:
        """Follows the gradient of a loss; returns its norm, before it was clipped."""
        gradient = self._whole.grad
        assert gradient is not None
        gradient.zero_()
        loss.backward()  # type: ignore[no-untyped-call]
        norm = torch.linalg.vector_norm(gradient)
        if self._clip is not None:
            gradient.mul_((self._clip / (norm + 1e-6)).clamp(max=1.0))
        self._adam.param_groups[0]["lr"] = lr
        self._adam.step()
        stepped()
        return norm

    def state_dict(self) -> dict[str, Any]:
        return self._adam.state_dict()

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        self._adam.load_state_dict(dict(state))


def descend(optimizer: torch.optim.Optimizer, loss: Tensor, clip: float | None) -> None:
    """One step of an optimizer down a loss, its gradient scaled down to a norm."""
    parameters = [value for group in optimizer.param_groups for value in group["params"]]
    for parameter in parameters:
        parameter.grad = None  # the optimizer's own way to do it takes ten times as long
    loss.backward()  # type: ignore[no-untyped-call]
    if clip is not None:
        clip_grad_norm_(parameters, clip)
    optimizer.step()
    stepped()
