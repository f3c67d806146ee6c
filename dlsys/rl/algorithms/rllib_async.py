"""RLlib's algorithms whose env runners sample while the learner learns: our options as its own."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.appo import APPOConfig
from ray.rllib.algorithms.impala import IMPALAConfig

from dlsys.rl.algorithms.rllib import network
from dlsys.spec.rl.policy import APPO, IMPALA

# Steps of one iteration at least: it does several updates, since each is small.
_STEPS = 2000


def impala(told: IMPALA) -> AlgorithmConfig:
    return _common(IMPALAConfig(), told)  # type: ignore[no-untyped-call]


def appo(told: APPO) -> AlgorithmConfig:
    config: Any = APPOConfig()  # type: ignore[no-untyped-call]
    # The target network is renewed after 4 · 2 updates: the loss is clipped about it, and RLlib's 32 of
    # them hold the policy back.
    config.training(
        clip_param=told.clip,
        circular_buffer_num_batches=4,
        circular_buffer_iterations_per_batch=2,
        target_network_update_freq=1,
    )
    return _common(config, told)


def _common(config: Any, told: IMPALA) -> AlgorithmConfig:
    done: AlgorithmConfig = (
        config.training(
            lr=told.lr,
            gamma=told.gamma,
            train_batch_size_per_learner=told.batch_size,
            vf_loss_coeff=told.value_weight,
            entropy_coeff=told.entropy,
            grad_clip=told.clip_norm,
            grad_clip_by="global_norm",
            # Seconds to wait for samples: with RLlib's 0 the learner's core would be busy with asking.
            timeout_s_sampler_manager=0.01,
        )
        .env_runners(rollout_fragment_length=told.rollout)
        .rl_module(model_config=network(told, vf_share_layers=False))
        .reporting(min_sample_timesteps_per_iteration=_STEPS)
    )
    return done
