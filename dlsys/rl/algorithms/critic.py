"""A policy and a value function that learn apart: a step of the policy, then passes of the value function."""

from __future__ import annotations

from abc import abstractmethod
from typing import Any

import torch
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import VF_LOSS_KEY
from ray.rllib.core.learner.torch.torch_learner import TorchLearner
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor, nn

Rows = dict[str, Tensor]
POLICY, VALUE = "policy", "value"


class CriticLearner(TorchLearner):
    """Works on a whole batch at once; its module shares no layers.

    `learner_config_dict["told"]` is the algorithm's section.
    """

    @abstractmethod
    def improve(self, module_id: str, module: Any, rows: Rows) -> dict[str, Any]:
        """One step of the policy; returns figures.

        Args:
            module_id: the module's name.
            module: RLlib's module for actors and critics.
            rows: the batch [N, …], without the rows that only bootstrap values.
        """

    @property
    def told(self) -> Any:
        return self.config.learner_config_dict["told"]

    def parts(self, module: Any) -> dict[str, list[nn.Parameter]]:
        """What Adam updates, by optimizer."""
        return {VALUE: [*module.encoder.critic_encoder.parameters(), *module.vf.parameters()]}

    def policy_parameters(self, module: Any) -> list[nn.Parameter]:
        return [*module.encoder.actor_encoder.parameters(), *module.pi.parameters()]

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        for name, parameters in self.parts(self.module[module_id]).items():
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(parameters),
                params=parameters,
                lr_or_lr_schedule=config.lr,
            )

    def _uncompiled_update(self, batch: dict[str, Rows], **_: Any) -> tuple[Any, Any, Any]:
        self._compute_off_policyness(batch)  # type: ignore[no-untyped-call]
        losses = {}
        for module_id, whole in batch.items():
            module, rows = self.module[module_id], whole
            if Columns.LOSS_MASK in whole:
                rows = {name: value[whole[Columns.LOSS_MASK]] for name, value in whole.items()}
            figures = self.improve(module_id, module, rows)
            losses[module_id] = self.fit(module_id, rows) if VALUE in self.parts(module) else torch.zeros(())
            figures[VF_LOSS_KEY] = losses[module_id]
            self.metrics.log_dict(figures, key=module_id, window=1)
        return {}, losses, {}

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: Rows, fwd_out: dict[str, Any]
    ) -> Tensor:
        """The value function's mean squared error."""
        module: Any = self.module[module_id]
        values = module.compute_values(batch)
        return nn.functional.mse_loss(values, batch[Postprocessing.VALUE_TARGETS])

    def fit(self, module_id: str, rows: Rows) -> Tensor:
        """Passes of the value function over a batch; returns the last one's mean squared error."""
        observations, targets = rows[Columns.OBS], rows[Postprocessing.VALUE_TARGETS]
        total = torch.zeros(())
        for _ in range(self.told.passes):
            total = torch.zeros(())
            for some in torch.split(torch.randperm(len(targets)), self.told.minibatch_size):
                part = {Columns.OBS: observations[some], Postprocessing.VALUE_TARGETS: targets[some]}
                loss = self.compute_loss_for_module(
                    module_id=module_id, config=self.config, batch=part, fwd_out={}
                )
                self.step(module_id, VALUE, loss)
                total += loss.detach().cpu() * len(some) / len(targets)
        return total

    def step(self, module_id: str, name: str, loss: Tensor) -> None:
        """One step of an optimizer."""
        optimizer = self.get_optimizer(module_id, name)
        optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        if self.told.clip_norm is not None:
            nn.utils.clip_grad_norm_(optimizer.param_groups[0]["params"], self.told.clip_norm)
        optimizer.step()

    def distribution(self, module: Any, rows: Rows) -> Any:
        """What the policy would do now."""
        out = module.forward_train(rows)[Columns.ACTION_DIST_INPUTS]
        return module.get_train_action_dist_cls().from_logits(out)
