"""The value-based algorithms that RLlib has: our options as its own."""

from __future__ import annotations

import math
from typing import Any

import torch
from gymnasium import spaces
from ray.rllib.algorithms import AlgorithmConfig, sac
from ray.rllib.algorithms.sac.sac_learner import (
    ACTION_LOG_PROBS,
    ACTION_LOG_PROBS_NEXT,
    ACTION_PROBS,
    ACTION_PROBS_NEXT,
    QF_PREDS,
    QF_TWIN_PREDS,
)
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from dlsys.rl.algorithms.catalog import Catalog
from dlsys.rl.algorithms.off_policy import OffPolicy, WholeState, replayed
from dlsys.rl.algorithms.rllib import network
from dlsys.rl.learner import LeanUpdates
from dlsys.spec.rl.value import SAC

# The share of the highest entropy, log n, that a policy of n actions aims at.
_OF_HIGHEST = 0.5


class SoftModule(DefaultSACTorchRLModule):
    """RLlib's, whose best continuous action is squashed as those that it samples are, and whose discrete
    actions may become as unlikely as they like."""

    def _forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward_inference(batch)
        if isinstance(self.action_space, spaces.Discrete):
            return out
        return {Columns.ACTIONS: torch.tanh(out[Columns.ACTION_DIST_INPUTS].chunk(2, -1)[0])}

    def _forward_exploration(self, batch: dict[str, Any], **rest: Any) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward_inference(batch)
        return out

    def _forward_train_discrete(self, batch: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward_train_discrete(batch)
        for probabilities, logarithms in (
            (ACTION_PROBS, ACTION_LOG_PROBS),
            (ACTION_PROBS_NEXT, ACTION_LOG_PROBS_NEXT),
        ):  # RLlib's of 0 is -inf, and 0 times it no number
            found = out[probabilities]
            out[logarithms] = found.clamp_min(torch.finfo(found.dtype).tiny).log()
        out.setdefault(QF_TWIN_PREDS, out[QF_PREDS])  # RLlib's loss asks for it in any case
        return out


class _Learner(LeanUpdates, WholeState, SACTorchLearner):
    """RLlib's loss, which aims at an entropy that discrete actions can have."""

    def _get_target_entropy(self, module_id: str) -> Any:
        actions = self.module[module_id].action_space
        if isinstance(actions, spaces.Discrete) and self.config.target_entropy == "auto":
            return _OF_HIGHEST * math.log(actions.n)
        return super()._get_target_entropy(module_id)


class _SAC(OffPolicy, sac.SAC):
    """RLlib's algorithm."""


class _SACConfig(sac.SACConfig):
    """RLlib's configuration."""

    def __init__(self) -> None:
        super().__init__(algo_class=_SAC)
        self.replay_options: dict[str, Any] = {}

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=SoftModule, catalog_class=Catalog)

    def get_default_learner_class(self) -> type[_Learner]:
        return _Learner


def soft_actor_critic(told: SAC) -> AlgorithmConfig:
    config: Any = replayed(_SACConfig(), told)
    done: AlgorithmConfig = config.training(
        actor_lr=told.lr,
        critic_lr=told.lr,
        alpha_lr=told.lr,
        tau=told.tau,
        twin_q=told.twin,
        initial_alpha=told.temperature,
        target_entropy="auto" if told.entropy is None else told.entropy,
    ).rl_module(model_config=network(told))
    return done
