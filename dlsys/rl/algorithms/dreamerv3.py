"""DreamerV3 (Hafner et al. 2023): https://arxiv.org/abs/2301.04104

RLlib's networks and losses, on our memory of steps, but for two things: returns that hardly differ are not
scaled up, as in the paper, and dreams end by chances, as in the authors' later code.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from gymnasium import spaces
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms import dreamerv3 as rllib
from ray.rllib.algorithms.dreamerv3.dreamerv3_catalog import DreamerV3Catalog
from ray.rllib.algorithms.dreamerv3.torch.dreamerv3_torch_learner import DreamerV3TorchLearner
from ray.rllib.algorithms.dreamerv3.torch.dreamerv3_torch_rl_module import DreamerV3TorchRLModule
from ray.rllib.algorithms.dreamerv3.torch.models.components.continue_predictor import ContinuePredictor
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.columns import Columns
from ray.rllib.core.rl_module.rl_module import RLModuleSpec
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.policy.sample_batch import SampleBatch
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.torch_utils import symlog
from torch import Tensor
from torch.nn import functional

from dlsys.rl.episode_replay import Sequences
from dlsys.spec.rl.models import DreamerV3

# Parts of RLlib's module that are in its `dreamer_model` too.
_PARTS = ("encoder", "decoder", "world_model", "actor", "critic")
# RLlib's names of figures as ours; it tells a dozen more.
_FIGURES = {
    "total_loss": "total_loss",
    "WORLD_MODEL_L_total": "model_loss",
    "WORLD_MODEL_L_decoder": "observation_loss",
    "WORLD_MODEL_L_reward": "reward_loss",
    "WORLD_MODEL_L_continue": "continue_loss",
    "WORLD_MODEL_L_dynamics": "model_kl",
    "ACTOR_L_total": "policy_loss",
    "ACTOR_action_entropy": "entropy",
    "CRITIC_L_total": "value_loss",
}


class Continues(ContinuePredictor):
    """RLlib's, with the chance that an episode goes on, as in the authors' later code.

    RLlib asks whether the chance is above a half. An end whose exact step is uncertain, such as that of a
    slow drift out of bounds, would never come in a dream.
    """

    def forward(self, h: Tensor, z: Tensor, return_distribution: bool = False) -> Any:
        _, chances = super().forward(h, z, return_distribution=True)
        return (chances.probs, chances) if return_distribution else chances.probs


class Module(DreamerV3TorchRLModule):
    """RLlib's networks: where an episode begins, the state it is given says so."""

    dreamer_model: Any
    observation_space: Any
    action_space: Any
    world_model: Any
    actor: Any

    def setup(self) -> None:
        super().setup()
        self.world_model.continue_predictor = Continues(
            input_size=self.actor.input_size, model_size=self.model_config["model_size"]
        )
        # Registered once is enough: a checkpoint would hold a copy for each name.
        for name in _PARTS:
            object.__setattr__(self, name, self._modules.pop(name))

    def get_initial_state(self) -> dict[str, Tensor]:
        """As RLlib's, which draws random numbers on the way."""
        h, prior = torch.tanh(self.world_model.initial_h), self.world_model.dynamics_predictor
        space = self.action_space
        actions = int(space.n) if isinstance(space, spaces.Discrete) else int(np.prod(space.shape))
        return {"h": h, "z": _likely(prior.representation_layer, prior.mlp(h)), "a": h.new_zeros(actions)}

    def _forward_train(self, batch: dict[str, Any], **more: Any) -> dict[str, Any]:
        """As RLlib's, with what need not wait for the step before done at once for all of them."""
        world, actions = self.world_model, batch[Columns.ACTIONS]
        if isinstance(self.action_space, spaces.Discrete):
            actions = functional.one_hot(actions.long(), int(self.action_space.n)).float()
        first = batch["is_first"].float()
        count, length = first.shape
        before = actions.roll(1, dims=1) * (1 - first).unsqueeze(-1)
        seen = self._seen(batch)
        codes = world.encoder(seen).unflatten(0, (count, length))
        begin = self.get_initial_state()
        h = start = begin["h"].expand(count, -1)
        z = likely = begin["z"].expand(count, -1, -1)
        steps = []
        for t in range(length):
            h = torch.lerp(h, start, first[:, t, None])
            z = torch.lerp(z, likely, first[:, t, None, None])
            h = world.sequence_model(a=before[:, t], h=h, z=z)
            hidden = world.posterior_mlp(torch.cat([codes[:, t], h], dim=-1))
            z, chances = world.posterior_representation_layer(hidden, return_z_probs=True)
            steps.append((h, z, chances))
        h, z, chances = (torch.stack(values, dim=1).flatten(0, 1) for values in zip(*steps, strict=True))
        rewards, reward_logits = world.reward_predictor(h=h, z=z, return_logits=True)
        continues, continuing = world.continue_predictor(h=h, z=z, return_distribution=True)
        return {
            "sampled_obs_symlog_BxT": seen,
            "obs_distribution_means_BxT": world.decoder(h=h, z=z),
            "rewards_BxT": rewards,
            "reward_logits_BxT": reward_logits,
            "continues_BxT": continues,
            "continue_distribution_BxT": continuing,
            "h_states_BxT": h,
            "z_posterior_states_BxT": z,
            "z_posterior_probs_BxT": chances,
            "z_prior_probs_BxT": world.dynamics_predictor(h, return_z_probs=True)[1],
        }

    @torch.no_grad()
    def _forward_exploration(self, batch: dict[str, Any], **more: Any) -> dict[str, Any]:
        h, hidden = self._latents(batch)
        z = self.world_model.posterior_representation_layer(hidden)
        return self._out(h, z, self.actor(h=h, z=z))

    @torch.no_grad()
    def _forward_inference(self, batch: dict[str, Any], **more: Any) -> dict[str, Any]:
        """The most likely latents, and the actor's mode there: nothing random, so that an evaluation can be
        repeated, and an exported policy is a function."""
        h, hidden = self._latents(batch)
        z = _likely(self.world_model.posterior_representation_layer, hidden)
        best = self.actor.mlp(torch.cat([h, z.flatten(1)], dim=-1))
        discrete = isinstance(self.action_space, spaces.Discrete)
        return self._out(h, z, _one_hot(best) if discrete else torch.tanh(best))

    def _latents(self, batch: dict[str, Any]) -> tuple[Tensor, Tensor]:
        """What came before, h [N, H], and what it and the observation say of the latents z."""
        world, before = self.world_model, batch[Columns.STATE_IN]
        h = world.sequence_model(a=before["a"], h=before["h"], z=before["z"])
        return h, world.posterior_mlp(torch.cat([world.encoder(self._seen(batch)), h], dim=-1))

    def _out(self, h: Tensor, z: Tensor, a: Tensor) -> dict[str, Any]:
        actions = a.argmax(-1) if isinstance(self.action_space, spaces.Discrete) else a
        return {Columns.ACTIONS: actions.unsqueeze(1), Columns.STATE_OUT: {"h": h, "z": z, "a": a}}

    def _seen(self, batch: dict[str, Any]) -> Tensor:
        """What the encoder takes and the decoder should say, of observations [N, T, …]: [N × T, …].
        Images are numbers in 0 to 1 already."""
        seen = batch[Columns.OBS].flatten(0, 1)
        return symlog(seen) if self.world_model.symlog_obs else seen


def _one_hot(values: Tensor) -> Tensor:
    """1 for the highest of the last dimension."""
    return functional.one_hot(values.argmax(-1), values.shape[-1]).float()


def _likely(layer: Any, hidden: Tensor) -> Tensor:
    """The most likely latents z."""
    logits = layer.z_generating_layer(hidden)
    return _one_hot(logits.unflatten(-1, (layer.num_categoricals, layer.num_classes_per_categorical)))


class Learner(DreamerV3TorchLearner):
    """RLlib's losses. Returns that hardly differ are not scaled up: equation 12 has max(1, S)."""

    module: Any

    def _compute_scaled_value_targets(self, *, module_id: str, **more: Any) -> Tensor:
        scaled: Tensor = super()._compute_scaled_value_targets(module_id=module_id, **more)
        actor = self.module[module_id].unwrapped().actor
        range_ = actor.ema_value_target_pct95 - actor.ema_value_target_pct5
        return scaled * range_.clamp(1e-8, 1.0)


class Algorithm(rllib.DreamerV3):
    """RLlib's algorithm, learning from our memory."""

    config: Any
    metrics: Any
    env_runner_group: Any
    learner_group: Any
    local_replay_buffer: Sequences

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> Sequences:
        return Sequences(config.capacity)

    def training_step(self) -> None:
        """A fragment of every environment, then the updates that are due."""
        before = self._steps()
        episodes, sampled = synchronous_parallel_sample(
            worker_set=self.env_runner_group,
            sample_timeout_s=self.config.sample_timeout_s,
            _uses_new_env_runners=True,
            _return_metrics=True,
        )
        self.metrics.aggregate(sampled, key=ENV_RUNNER_RESULTS)
        self.local_replay_buffer.add(episodes)
        now, starts = self._steps(), self.config.num_steps_sampled_before_learning_starts
        # Counted from the run's first step, so that no part of an update is lost or comes twice.
        a_step = self.config.training_intensity / self.config.total_train_batch_size
        due = int(a_step * max(now - starts, 0)) - int(a_step * max(before - starts, 0))
        for _ in range(due):
            figures = self._update(now)
        if due:
            self.metrics.log_dict(figures, key=(LEARNER_RESULTS, DEFAULT_MODULE_ID), window=1)
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, inference_only=True
            )

    def _steps(self) -> int:
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    def _update(self, now: int) -> dict[str, float]:
        rows = self.local_replay_buffer.sequences(self.config.batch_size_B, self.config.batch_length_T)
        batch: Any = SampleBatch(rows)  # type: ignore[no-untyped-call]
        results = self.learner_group.update(
            batch=batch.as_multi_agent(), timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: now}
        )
        told = results[0][DEFAULT_MODULE_ID]
        return {ours: float(told[theirs].peek()) for theirs, ours in _FIGURES.items()}


class Config(rllib.DreamerV3Config):
    """RLlib's configuration."""

    def __init__(self) -> None:
        super().__init__(algo_class=Algorithm)
        self.capacity = 0
        self.num_steps_sampled_before_learning_starts = 0
        self.training_intensity = 1.0

    def get_default_rl_module_spec(self) -> RLModuleSpec:
        return RLModuleSpec(module_class=Module, catalog_class=DreamerV3Catalog)

    def get_default_learner_class(self) -> type[Learner]:
        return Learner


def dreamerv3(told: DreamerV3) -> AlgorithmConfig:
    config: Any = Config()
    config.capacity = told.capacity
    config.num_steps_sampled_before_learning_starts = told.starts
    steps = told.batch_size * told.length
    config.training_intensity = told.updates * steps
    done: AlgorithmConfig = (
        config.training(
            model_size=told.size,
            gamma=told.gamma,
            world_model_lr=told.model_lr,
            actor_lr=told.actor_lr,
            critic_lr=told.critic_lr,
            batch_size_B=told.batch_size,
            batch_length_T=told.length,
            horizon_H=told.horizon,
            gae_lambda=told.trace,
            entropy_scale=told.entropy,
            train_batch_size_per_learner=steps,
        )
        .env_runners(rollout_fragment_length=told.fragment)
        .reporting(min_sample_timesteps_per_iteration=250)
    )
    return done
