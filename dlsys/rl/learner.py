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
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.evaluation.postprocessing import Postprocessing
from ray.rllib.utils.torch_utils import explained_variance
from torch import Tensor

Rows = dict[str, Tensor]


class LeanPPOLearner(PPOTorchLearner):
    """For one policy without memory, learning in this process."""

    _module: Any
    config: Any

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        params = self.get_parameters(self._module[module_id])
        self.register_optimizer(
            module_id=module_id,
            optimizer=torch.optim.Adam(params, fused=True),
            params=params,
            lr_or_lr_schedule=config.lr,
        )

    def update(
        self,
        *,
        training_data: Any,
        timesteps: dict[str, Any],
        num_epochs: int,
        minibatch_size: int | None,
        shuffle_batch_per_epoch: bool,
        **more: Any,
    ) -> Any:
        self.before_gradient_based_update(timesteps=timesteps)
        self._weights_seq_no += 1
        batch = self._make_batch_if_necessary(training_data=training_data)
        rows = _valid(batch.policy_batches[DEFAULT_MODULE_ID])
        count = len(rows[Columns.OBS])
        module = self._module[DEFAULT_MODULE_ID].unwrapped().train()
        (optimizer,) = self._optimizer_parameters
        parameters = self._optimizer_parameters[optimizer]
        params = [self._params[reference] for reference in parameters]
        for _ in range(num_epochs):
            order = torch.randperm(count) if shuffle_batch_per_epoch else torch.arange(count)
            for part in order.split(minibatch_size or count):
                loss, figures = self._loss(module, {name: column[part] for name, column in rows.items()})
                for param in params:
                    param.grad = None  # the optimizer's way to do it takes ten times as long
                loss.backward()
                if self.config.grad_clip is not None:
                    norm = torch.nn.utils.clip_grad_norm_(params, self.config.grad_clip)
                    figures["gradients_default_optimizer_global_norm"] = norm
                optimizer.step()
        with torch.no_grad():
            explained = explained_variance(rows[Postprocessing.VALUE_TARGETS], module.compute_values(rows))
        told = {"total_loss": loss, **figures, "vf_explained_var": explained}
        told = {name: value.detach() for name, value in told.items()}
        self.metrics.log_dict(told, key=DEFAULT_MODULE_ID, window=1)
        self._log_steps_trained_metrics(batch)
        self.after_gradient_based_update(timesteps=timesteps)
        return self.metrics.reduce()

    def _loss(self, module: Any, rows: Rows) -> tuple[Tensor, dict[str, Tensor]]:
        """The loss of some rows, and what it is made of, by RLlib's names."""
        told = self.config
        out = module._forward_train(rows)
        new = module.get_train_action_dist_cls().from_logits(out[Columns.ACTION_DIST_INPUTS])
        ratio = torch.exp(new.logp(rows[Columns.ACTIONS]) - rows[Columns.ACTION_LOGP])
        gain = rows[Postprocessing.ADVANTAGES]
        clipped = ratio.clamp(1 - told.clip_param, 1 + told.clip_param)
        surrogate = torch.min(gain * ratio, gain * clipped).mean()
        values = module.compute_values(rows, embeddings=out.get(Columns.EMBEDDINGS))
        targets = rows[Postprocessing.VALUE_TARGETS]
        missed = (values - targets).square().clamp(max=told.vf_clip_param).mean()
        entropy = new.entropy().mean()
        weight = self.entropy_coeff_schedulers_per_module[DEFAULT_MODULE_ID].get_current_value()
        loss = told.vf_loss_coeff * missed - surrogate - weight * entropy
        figures = {"policy_loss": -surrogate, "vf_loss": missed, "entropy": entropy}
        if told.use_kl_loss:
            old = module.get_exploration_action_dist_cls().from_logits(rows[Columns.ACTION_DIST_INPUTS])
            kl = old.kl(new).mean()
            loss = loss + self.curr_kl_coeffs_per_module[DEFAULT_MODULE_ID] * kl
            figures["mean_kl_loss"] = kl
        return loss, figures


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


def _valid(batch: Any) -> Rows:
    """The rows that stand for steps: RLlib adds one to each episode, to value where it was cut."""
    wanted = (
        Columns.OBS,
        Columns.ACTIONS,
        Columns.ACTION_LOGP,
        Columns.ACTION_DIST_INPUTS,
        Postprocessing.ADVANTAGES,
        Postprocessing.VALUE_TARGETS,
    )
    mask = batch.get(Columns.LOSS_MASK)
    return {name: batch[name] if mask is None else batch[name][mask] for name in wanted}
