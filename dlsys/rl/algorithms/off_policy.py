"""What RLlib's DQN, SAC and what is built on them have in common here: a memory that is fast, and a state
that is whole."""

from __future__ import annotations

from typing import Any

import torch
from ray.rllib.core import COMPONENT_OPTIMIZER, DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.execution.rollout_ops import synchronous_parallel_sample
from ray.rllib.utils.metrics import (
    ENV_RUNNER_RESULTS,
    LEARNER_RESULTS,
    NUM_ENV_STEPS_SAMPLED_LIFETIME,
    TD_ERROR_KEY,
)

from dlsys.rl.episode_replay import Replay
from dlsys.spec.rl.value import Replayed


class OffPolicy:
    """Goes before RLlib's class among the bases of an algorithm, whose training step this is then."""

    config: Any
    metrics: Any
    env_runner_group: Any
    learner_group: Any
    local_replay_buffer: Replay

    def _create_local_replay_buffer_if_necessary(self, config: Any) -> Replay:
        return Replay(**config.replay_options)

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
            told = {name: float(value) for name, value in figures.items()}
            self.metrics.log_dict(told, key=(LEARNER_RESULTS, DEFAULT_MODULE_ID), window=1)
            self.env_runner_group.sync_weights(
                from_worker_or_learner_group=self.learner_group, inference_only=True
            )

    def _steps(self) -> int:
        return int(self.metrics.peek((ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME), default=0))

    def _update(self, now: int) -> dict[str, Any]:
        rows, columns = self.local_replay_buffer.sample(self.config.total_train_batch_size)
        (figures,) = self.learner_group.update(
            training_data=TrainingData(batch={DEFAULT_MODULE_ID: columns}),
            timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: now},
        )
        self.local_replay_buffer.prioritize(rows, figures.pop(TD_ERROR_KEY))
        return dict(figures)


class WholeState:
    """Goes before RLlib's class among the bases of a learner, whose state then has what RLlib leaves out:
    when the target networks were last updated, and SAC's temperature."""

    last_update_ts_by_mid: dict[str, int]
    curr_log_alpha: dict[str, torch.Tensor]

    def get_state(self, *arguments: Any, **options: Any) -> dict[str, Any]:
        state: dict[str, Any] = super().get_state(*arguments, **options)  # type: ignore[misc]
        if COMPONENT_OPTIMIZER in state:
            state["target_updated"] = dict(self.last_update_ts_by_mid)
            if hasattr(self, "curr_log_alpha"):
                values = self.curr_log_alpha.items()
                state["log_alpha"] = {name: value.detach().clone() for name, value in values}
        return state

    def set_state(self, state: dict[str, Any]) -> None:
        super().set_state(state)  # type: ignore[misc]
        self.last_update_ts_by_mid.update(state.get("target_updated", {}))
        with torch.no_grad():
            for name, value in state.get("log_alpha", {}).items():
                self.curr_log_alpha[name].copy_(value)


def replayed(config: Any, told: Replayed) -> Any:
    """The options that all of them share, on RLlib's configuration of one."""
    config.replay_options = {
        "capacity": told.capacity,
        "gamma": told.gamma,
        "n_step": told.n_step,
        "draw": told.replay,
        "alpha": told.priority,
        "beta": told.correction,
    }
    return (
        config.training(
            gamma=told.gamma,
            grad_clip=told.clip_norm,
            grad_clip_by="global_norm",
            train_batch_size_per_learner=told.batch_size,
            num_steps_sampled_before_learning_starts=told.starts,
            training_intensity=told.updates * told.batch_size,
        )
        .env_runners(rollout_fragment_length=told.fragment)
        .reporting(min_sample_timesteps_per_iteration=1000)
    )
