"""RLlib's learner of PPO with fewer and larger calls of torch.

RLlib looks at each parameter's gradient by itself three times a step, for NaNs that it would turn into
zeros, and steps an optimizer that does likewise. Here all of a step's gradients are clipped in one call, the
optimizer is torch's fused Adam, and what is not finite ends the run (`dlsys.rl.loop`).
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner


class LeanPPOLearner(PPOTorchLearner):
    """The same updates but for the order of some additions."""

    _module: Any

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        params = self.get_parameters(self._module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(params, fused=True),
            params=params,
            lr_or_lr_schedule=config.lr,
        )

    def postprocess_gradients_for_module(
        self, *, module_id: str, config: Any = None, module_gradients_dict: dict[Any, Any]
    ) -> dict[Any, Any]:
        if config.grad_clip is not None:
            params = [self._params[name] for name in module_gradients_dict]
            norm = torch.nn.utils.clip_grad_norm_(params, config.grad_clip)
            self.metrics.log_value((module_id, "gradients_default_optimizer_global_norm"), norm, window=1)
        return module_gradients_dict

    def apply_gradients(self, gradients_dict: dict[Any, Any]) -> None:
        for optimizer in self._optimizer_parameters:
            optimizer.step()
