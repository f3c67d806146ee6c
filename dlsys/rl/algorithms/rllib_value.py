"""The value-based algorithms that RLlib has: our options as its own."""

from __future__ import annotations

from typing import Any

import torch
from gymnasium import spaces
from ray.rllib.algorithms import AlgorithmConfig, sac
from ray.rllib.algorithms.sac.torch.default_sac_torch_rl_module import DefaultSACTorchRLModule
from ray.rllib.algorithms.sac.torch.sac_torch_learner import SACTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec

from dlsys.rl.algorithms.catalog import Catalog
from dlsys.rl.algorithms.dqn import DQNConfig
from dlsys.rl.algorithms.off_policy import OffPolicy, WholeState, replayed
from dlsys.rl.algorithms.rllib import network
from dlsys.rl.learner import LeanUpdates
from dlsys.spec.rl_value import DQN, SAC


def dqn(told: DQN) -> AlgorithmConfig:
    config: Any = replayed(DQNConfig(), told)
    done: AlgorithmConfig = config.training(
        lr=told.lr,
        double_q=told.double,
        dueling=told.dueling,
        num_atoms=told.atoms,
        v_min=told.v_min,
        v_max=told.v_max,
        noisy=told.noisy,
        sigma0=told.noise,
        epsilon=0.0 if told.noisy else [(0, 1.0), (told.epsilon_steps, told.epsilon)],
        target_network_update_freq=told.target_every,
    ).rl_module(model_config=network(told))
    return done


class SoftModule(DefaultSACTorchRLModule):
    """RLlib's, whose best continuous action is squashed as those that it samples are."""

    def _forward_inference(self, batch: dict[str, Any]) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward_inference(batch)
        if isinstance(self.action_space, spaces.Discrete):
            return out
        return {Columns.ACTIONS: torch.tanh(out[Columns.ACTION_DIST_INPUTS].chunk(2, -1)[0])}

    def _forward_exploration(self, batch: dict[str, Any], **rest: Any) -> dict[str, Any]:
        out: dict[str, Any] = super()._forward_inference(batch)
        return out


class _Learner(LeanUpdates, WholeState, SACTorchLearner):
    """RLlib's loss."""


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
