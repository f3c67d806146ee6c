"""https://arxiv.org/abs/1602.01783 — asynchronous advantage actor-critic (A3C).

Each env runner samples a rollout with its own copy of the parameters and computes a gradient of it. The
shared parameters take each gradient when it comes, whatever the others have changed since, and hand the
newest ones to that env runner.
"""

from __future__ import annotations

from typing import Any

import ray
from ray.exceptions import RayError
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPO, PPOConfig
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS
from ray.rllib.utils.numpy import convert_to_numpy
from ray.rllib.utils.torch_utils import convert_to_torch_tensor

from dlsys.rl.algorithms.actor_critic import actor_critic
from dlsys.rl.runner import LeanEnvRunner
from dlsys.spec.rl.policy import A3C

# Seconds to wait for a gradient before looking for dead env runners.
_PATIENCE = 5.0


def a3c(told: A3C) -> AlgorithmConfig:
    config = Config(algo_class=Asynchronous)  # type: ignore[no-untyped-call]
    config.env_runners(env_runner_cls=Worker, rollout_fragment_length=told.rollout)
    return actor_critic(config, told, told.rollout)


class Config(PPOConfig):
    def validate_train_batch_size_vs_rollout_fragment_length(self) -> None:
        """Nothing to check: each rollout is a batch."""


class Worker(LeanEnvRunner):
    """Samples, and computes gradients on its own copy of the parameters."""

    def make_module(self) -> None:
        if self.env is None:  # the one beside the learner, which only acts in evaluations
            super().make_module()  # type: ignore[no-untyped-call]
            return
        spaces = self.get_spaces()  # type: ignore[no-untyped-call]
        self.learner: Any = self.config.build_learner(spaces=spaces)
        self.module = self.learner.module[DEFAULT_MODULE_ID]

    def gradient(self, weights: dict[str, Any]) -> tuple[list[Any], list[Any], Any]:
        """The gradient of one rollout.

        Args:
            weights: the shared parameters.

        Returns:
            The gradient, in the parameters' order; the learner's figures; the sampling's.
        """
        learner = self.learner
        self.module.set_state(weights)
        episodes: list[Any] = self.sample()
        data = TrainingData(episodes=episodes)
        batch = learner._make_batch_if_necessary(training_data=data).policy_batches
        losses = learner.compute_losses(fwd_out=learner.module.forward_train(batch), batch=batch)
        gradient = learner.postprocess_gradients(learner.compute_gradients(losses))
        arrays = [convert_to_numpy(gradient[parameter]) for parameter in learner._params]
        return arrays, learner.metrics.reduce(), self.get_metrics()


class Asynchronous(PPO):
    """One gradient a training step, from whichever env runner has it.

    Figures: `updates_by_N`, how many of an iteration's gradients came from env runner N; `staleness`, how
    many updates by others there were between the parameters of a gradient and its use.
    """

    learner_group: Any
    env_runner_group: Any
    metrics: Any

    def setup(self, config: Any) -> None:
        super().setup(config)
        # What is computed at the moment: env runner and update count, by future.
        self._flying: dict[Any, tuple[int, int]] = {}

    def training_step(self) -> None:
        learner, manager = self.learner_group._learner, self.env_runner_group._worker_manager
        flying = {worker for worker, _ in self._flying.values()}
        if idle := set(manager.healthy_actor_ids()) - flying:
            weights = ray.put(learner.module[DEFAULT_MODULE_ID].get_state())
            for worker in idle:
                future = manager.actors()[worker].gradient.remote(weights)
                self._flying[future] = worker, learner._weights_seq_no
        ready, _ = ray.wait(list(self._flying), timeout=_PATIENCE)
        for future in ready:
            worker, version = self._flying.pop(future)
            try:
                gradient, learned, sampled = ray.get(future)
            except RayError:
                # Ray starts it again, and RLlib asks it whether it is well before each training step.
                manager.set_actor_state(worker, healthy=False)
                continue
            tensors = convert_to_torch_tensor(gradient, device=learner.device)
            learner.apply_gradients(dict(zip(learner._params, tensors, strict=True)))
            stale = learner._weights_seq_no - version
            learner._weights_seq_no += 1
            place = (LEARNER_RESULTS, DEFAULT_MODULE_ID)
            self.metrics.aggregate([learned], key=LEARNER_RESULTS)
            self.metrics.aggregate([sampled], key=ENV_RUNNER_RESULTS)
            self.metrics.log_value((*place, f"updates_by_{worker}"), 1, reduce="sum")
            self.metrics.log_value((*place, "staleness"), stale, reduce="mean")
