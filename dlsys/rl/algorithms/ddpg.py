"""DDPG (https://arxiv.org/abs/1509.02971) and, as three switches of it, TD3 (https://arxiv.org/abs/1802.09477).

These are twin values, delayed policies and smoothed targets. RLlib no longer has either; they are its SAC
with a deterministic policy.
"""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.algorithms import AlgorithmConfig, sac
from ray.rllib.algorithms.dqn.dqn_learner import (
    QF_LOSS_KEY,
    QF_MEAN_KEY,
    QF_PREDS,
    TD_ERROR_MEAN_KEY,
    DQNLearner,
)
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.algorithms.sac.sac_learner import QF_TWIN_PREDS
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.core import COMPONENT_OPTIMIZER
from ray.rllib.core.columns import Columns
from ray.rllib.core.distribution.torch.torch_distribution import TorchDeterministic
from ray.rllib.core.learner.learner import POLICY_LOSS_KEY
from ray.rllib.core.learner.utils import make_target_network
from ray.rllib.core.models.base import ENCODER_OUT
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.utils.metrics import TD_ERROR_KEY
from torch import Tensor

from dlsys.rl.algorithms.catalog import Catalog
from dlsys.rl.algorithms.off_policy import OffPolicy, WholeState, replayed
from dlsys.rl.algorithms.rllib import network
from dlsys.rl.learner import LeanUpdates
from dlsys.spec.rl.value import DDPG as Section

_Q_POLICY, _Q_NEXT = "q_of_policy", "q_target_next"


class Networks(Catalog):
    """SAC's networks, with one output for each part of an action."""

    def get_action_dist_cls(self, framework: str) -> type[TorchDeterministic]:
        return TorchDeterministic


class Module(DefaultSACTorchRLModule):
    """A policy μ(s) in ±1, the values Q(s, a) of one network or two, and a target for each."""

    def make_target_networks(self) -> None:
        super().make_target_networks()
        self.target_pi_encoder = make_target_network(self.pi_encoder)
        self.target_pi = make_target_network(self.pi)

    def get_non_inference_attributes(self) -> list[str]:
        return [*super().get_non_inference_attributes(), "target_pi_encoder", "target_pi"]

    def get_target_network_pairs(self) -> list[tuple[Any, Any]]:
        policy = [(self.pi_encoder, self.target_pi_encoder), (self.pi, self.target_pi)]
        return [*super().get_target_network_pairs(), *policy]

    def _forward_inference(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        return {Columns.ACTIONS: torch.tanh(self.pi(self.pi_encoder(batch)[ENCODER_OUT]))}

    def _forward_exploration(self, batch: dict[str, Any], t: int) -> dict[str, Tensor]:
        actions = self._forward_inference(batch)[Columns.ACTIONS]
        if t < self.model_config["starts"]:
            return {Columns.ACTIONS: torch.empty_like(actions).uniform_(-1, 1)}
        noise = self.model_config["explore"] * torch.randn_like(actions)
        return {Columns.ACTIONS: (actions + noise).clamp(-1, 1)}

    def _forward_train(self, batch: dict[str, Any]) -> dict[str, Tensor]:
        seen, following = {Columns.OBS: batch[Columns.OBS]}, {Columns.OBS: batch[Columns.NEXT_OBS]}
        done = {**seen, Columns.ACTIONS: batch[Columns.ACTIONS]}
        out = {QF_PREDS: self._qf_forward_train_helper(done, self.qf_encoder, self.qf)}
        values = [self.qf_encoder, self.qf]
        if self.twin_q:
            out[QF_TWIN_PREDS] = self._qf_forward_train_helper(done, self.qf_twin_encoder, self.qf_twin)
        # What the policy learns from must not move the values.
        for part in values:
            part.requires_grad_(False)
        best = {**seen, **self._forward_inference(seen)}
        out[_Q_POLICY] = self._qf_forward_train_helper(best, self.qf_encoder, self.qf)
        for part in values:
            part.requires_grad_(True)
        with torch.no_grad():
            actions = torch.tanh(self.target_pi(self.target_pi_encoder(following)[ENCODER_OUT]))
            if smoothing := self.model_config["smoothing"]:
                limit = self.model_config["smoothing_limit"]
                noise = (smoothing * torch.randn_like(actions)).clamp(-limit, limit)
                actions = (actions + noise).clamp(-1, 1)
            out[_Q_NEXT] = self.forward_target({**following, Columns.ACTIONS: actions})
        return out


class Learner(LeanUpdates, WholeState, DQNTorchLearner):
    """Two optimizers, of the values and of the policy; the latter and the targets move at each `delay`-th
    update."""

    def build(self) -> None:
        super().build()
        self._updates = 0

    def configure_optimizers_for_module(self, module_id: str, config: Any = None) -> None:
        module = self._module[module_id]
        values = [module.qf_encoder, module.qf]
        if config.twin_q:
            values += [module.qf_twin_encoder, module.qf_twin]
        for name, parts, lr in (
            ("qf", values, config.critic_lr),
            ("policy", [module.pi_encoder, module.pi], config.actor_lr),
        ):
            params = [param for part in parts for param in part.parameters()]
            self.register_optimizer(
                module_id=module_id,
                optimizer_name=name,
                optimizer=torch.optim.Adam(params),
                params=params,
                lr_or_lr_schedule=lr,
            )

    @property
    def _due(self) -> bool:
        return self._updates % int(self.config.delay) == 0

    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Tensor]
    ) -> Tensor:
        self._updates += 1
        going = 1.0 - batch[Columns.TERMINATEDS].float()
        target = batch[Columns.REWARDS] + config.gamma ** batch["n_step"] * going * fwd_out[_Q_NEXT]
        found = [fwd_out[name] for name in (QF_PREDS, QF_TWIN_PREDS) if name in fwd_out]
        errors = torch.stack([values - target for values in found])
        loss = (batch["weights"] * errors.square()).mean(1).sum()
        policy_loss = -fwd_out[_Q_POLICY].mean()
        self.metrics.log_value((module_id, TD_ERROR_KEY), errors.abs().mean(0), reduce="item_series")
        told = {
            POLICY_LOSS_KEY: policy_loss,
            QF_LOSS_KEY: loss,
            QF_MEAN_KEY: found[0].mean(),
            TD_ERROR_MEAN_KEY: errors.abs().mean(),
        }
        self.metrics.log_dict(told, key=module_id, window=1)
        return loss + policy_loss if self._due else loss

    def after_gradient_based_update(self, *, timesteps: dict[str, Any]) -> None:
        if self._due:
            super().after_gradient_based_update(timesteps=timesteps)
        else:
            super(DQNLearner, self).after_gradient_based_update(timesteps=timesteps)

    def get_state(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        state = super().get_state(*arguments, **options)
        return {**state, "updates": self._updates} if COMPONENT_OPTIMIZER in state else state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)
        self._updates = state.get("updates", self._updates)


class DDPG(OffPolicy, sac.SAC):
    """RLlib's SAC but for its module and its learner."""


class Config(sac.SACConfig):
    """RLlib's configuration of SAC, and what a deterministic policy has besides."""

    def __init__(self) -> None:
        super().__init__(algo_class=DDPG)
        self.replay_options: dict[str, Any] = {}
        self.delay = 1
        self.policy_options: dict[str, float] = {}

    @property
    def _model_config_auto_includes(self) -> dict[str, Any]:
        return super()._model_config_auto_includes | self.policy_options

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=Module, catalog_class=Networks, model_config=self.model_config)

    def get_default_learner_class(self) -> type[Learner]:
        return Learner


def ddpg(told: Section) -> AlgorithmConfig:
    """RLlib's configuration of our options."""
    config: Any = replayed(Config(), told)
    config.delay = told.delay
    config.policy_options = {
        "starts": told.starts,
        "explore": told.explore,
        "smoothing": told.smoothing,
        "smoothing_limit": told.smoothing_limit,
    }
    done: AlgorithmConfig = config.training(
        actor_lr=told.lr, critic_lr=told.lr, tau=told.tau, twin_q=told.twin
    ).rl_module(model_config=network(told))
    return done
