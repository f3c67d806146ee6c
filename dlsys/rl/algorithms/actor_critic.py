"""https://arxiv.org/abs/1602.01783 — advantage actor-critic: the loss, and its synchronous form (A2C)."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY, VF_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing
from torch import Tensor

from dlsys.rl.algorithms.rllib import network
from dlsys.spec.rl.policy import A2C, A3C

# Steps of one iteration at least: it does several updates, since each is small.
_STEPS = 2000


def actor_critic(config: Any, told: A2C | A3C, batch_size: int) -> AlgorithmConfig:
    """What A2C and A3C have in common."""
    done: AlgorithmConfig = (
        config.training(
            lr=told.lr,
            gamma=told.gamma,
            lambda_=told.trace,
            train_batch_size_per_learner=batch_size,
            minibatch_size=None,
            num_epochs=1,
            entropy_coeff=told.entropy,
            vf_loss_coeff=told.value_weight,
            use_kl_loss=False,
            grad_clip=told.clip_norm,
            grad_clip_by="global_norm",
        )
        .learners(learner_class=ActorCriticLearner)
        .rl_module(model_config=network(told, vf_share_layers=False))
        .reporting(min_sample_timesteps_per_iteration=_STEPS)
    )
    return done


def a2c(told: A2C) -> AlgorithmConfig:
    """PPO's sampling, with one pass over each batch and the plain policy gradient."""
    return actor_critic(PPOConfig(), told, told.batch_size)  # type: ignore[no-untyped-call]


class ActorCriticLearner(PPOTorchLearner):
    def compute_loss_for_module(
        self, *, module_id: str, config: Any, batch: dict[str, Any], fwd_out: dict[str, Any]
    ) -> Tensor:
        module: Any = self.module[module_id]
        mask = batch[Columns.LOSS_MASK]
        policy = module.get_train_action_dist_cls().from_logits(fwd_out[Columns.ACTION_DIST_INPUTS][mask])
        values = module.compute_values(batch, embeddings=fwd_out[Columns.EMBEDDINGS])[mask]
        # Not RLlib's advantages, which are standardized: of one short rollout, that would take away
        # whether it was good.
        advantages = batch[Postprocessing.VALUE_TARGETS][mask] - values
        policy_loss = -(policy.logp(batch[Columns.ACTIONS][mask]) * advantages.detach()).mean()
        value_loss, entropy = advantages.square().mean(), policy.entropy().mean()
        figures = {POLICY_LOSS_KEY: policy_loss, VF_LOSS_KEY: value_loss, ENTROPY_KEY: entropy}
        self.metrics.log_dict(figures, key=module_id, window=1)
        loss: Tensor = policy_loss + config.vf_loss_coeff * value_loss - config.entropy_coeff * entropy
        return loss
