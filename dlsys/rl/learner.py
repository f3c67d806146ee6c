"""RLlib's learners, with updates of their own.

RLlib sends each minibatch through trees of dictionaries, tells its logger a dozen figures of it, and looks
at each parameter's gradient three times for NaNs that it would turn into zeros: twice the time of the
arithmetic of a small network. Here rows are picked from plain tensors, gradients are clipped in one call,
the optimizer is torch's fused Adam, figures are told once, and a loss that is not finite ends the run
(`dlsys.rl.loop`). Batches are made, and losses are computed, as RLlib does.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import DEFAULT_MODULE_ID
from torch import Tensor


class LeanUpdates:
    """Goes before RLlib's class among the bases of a learner that takes one batch of a memory at a time:
    one policy without memory, learning in this process.

    Its `update` returns the figures of RLlib's loss by their names, of which `TD_ERROR_KEY` has one value a
    row. They are tensors yet: who needs but the last of some updates asks for no others.
    """

    _module: Any
    _device: Any
    _params: Any
    _optimizer_parameters: Any
    _weights_seq_no: int
    config: Any
    metrics: Any

    def register_optimizer(self, *, optimizer: torch.optim.Optimizer, **rest: Any) -> None:
        for group in optimizer.param_groups:
            group["fused"] = True
        super().register_optimizer(optimizer=optimizer, **rest)  # type: ignore[misc]

    def update(self, *, training_data: Any, timesteps: dict[str, Any], **more: Any) -> dict[str, Tensor]:
        whole, self.metrics = self.metrics, _Told()
        try:
            self._learn(training_data.batch[DEFAULT_MODULE_ID], timesteps)
            figures: dict[str, Tensor] = self.metrics.figures
            return figures
        finally:
            self.metrics = whole

    def _learn(self, columns: Any, timesteps: dict[str, Any]) -> None:
        self._weights_seq_no += 1
        rows = {name: torch.as_tensor(column, device=self._device) for name, column in columns.items()}
        module = self._module[DEFAULT_MODULE_ID].unwrapped()
        if not module.training:
            module.train()
        learner: Any = self
        loss = learner.compute_loss_for_module(
            module_id=DEFAULT_MODULE_ID,
            config=self.config,
            batch=rows,
            fwd_out=module._forward_train(rows),
        )
        self.metrics.log_value((DEFAULT_MODULE_ID, "total_loss"), loss)
        gradients = learner.compute_gradients({DEFAULT_MODULE_ID: loss})
        for optimizer, references in self._optimizer_parameters.items():
            params = [self._params[reference] for reference in references]
            for reference, param in zip(references, params, strict=True):
                param.grad = gradients[reference]
            if self.config.grad_clip is not None:
                torch.nn.utils.clip_grad_norm_(params, self.config.grad_clip)
            optimizer.step()
        learner.after_gradient_based_update(timesteps=timesteps)


class _Told:
    """Takes figures as RLlib's logger does, and keeps the last of each."""

    def __init__(self) -> None:
        self.figures: dict[str, Any] = {}

    def log_value(self, key: tuple[str, str], value: Any, **how: Any) -> None:
        self.figures[key[-1]] = value.detach() if isinstance(value, Tensor) else value

    def log_dict(self, values: dict[str, Any], key: str, **how: Any) -> None:
        for name, value in values.items():
            self.log_value((key, name), value)
