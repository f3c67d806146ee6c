"""An RLlib algorithm as an agent.

Facts behind the code (RLlib 2.60): environments cannot be saved, so a checkpoint cuts the episodes that
run, and everything random starts anew from the seed and the step, whether the run goes on or is resumed;
timers of `Algorithm.train()` are means of means, so what learns and what synchronizes is timed here; a
buffer's state is not part of an algorithm's.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

import gymnasium
import numpy as np
import torch
from gymnasium import spaces
from numpy.typing import NDArray
from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.callbacks.callbacks import RLlibCallback
from ray.rllib.core import (
    COMPONENT_LEARNER,
    COMPONENT_LEARNER_GROUP,
    COMPONENT_RL_MODULE,
    DEFAULT_MODULE_ID,
)
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner
from ray.rllib.utils.metrics import ENV_RUNNER_RESULTS, LEARNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME
from ray.rllib.utils.metrics.metrics_logger import MetricsLogger
from torch import Tensor

from dlsys.errors import DlsysError
from dlsys.registry import ALGORITHMS
from dlsys.rl.agent import Iteration
from dlsys.rl.algorithms.rllib import convolutions
from dlsys.rl.environments import Made, make
from dlsys.rl.plain import decode, encode
from dlsys.rl.policy import Policy, PolicyPlayer, policy_of
from dlsys.rl.runner import LeanEnvRunner
from dlsys.spec.rl.job import RLJob
from dlsys.spec.rl.section import Deep
from dlsys.train.seeding import seed_all

_RETURNS, _LENGTHS = "dlsys_returns", "dlsys_lengths"
_SAMPLED = (ENV_RUNNER_RESULTS, NUM_ENV_STEPS_SAMPLED_LIFETIME)


class _Episodes(RLlibCallback):
    """Tells each episode's return and length, where RLlib tells means over a window."""

    def on_episode_end(  # type: ignore[override]
        self, *, episode: Any, prev_episode_chunks: Any, metrics_logger: Any, **rest: Any
    ) -> None:
        parts = [*prev_episode_chunks, episode]
        metrics_logger.log_value(_RETURNS, sum(part.get_return() for part in parts), reduce="item_series")
        metrics_logger.log_value(_LENGTHS, sum(len(part) for part in parts), reduce="item_series")


class RllibAgent(PolicyPlayer):
    """Implements `Agent`.

    Args:
        job: the job.
    """

    def __init__(self, job: RLJob) -> None:
        _quiet()
        seed_all(job.seed)
        self._job = job
        env = make(job.environment)
        env.close()
        self._algorithm: Any = configure(job, env.observation_space).build_algo()
        _listen(self._algorithm.env_runner_group._worker_manager)
        self._seconds: dict[str, float] = {}
        self._time("learn", self._algorithm.learner_group, "update")
        self._time("sync", self._algorithm.env_runner_group, "sync_weights")
        self._start_anew(0)

    def _time(self, what: str, owner: Any, name: str) -> None:
        timed: Callable[..., Any] = getattr(owner, name)

        def call(*arguments: Any, **options: Any) -> Any:
            began = time.perf_counter()
            try:
                return timed(*arguments, **options)
            finally:
                self._seconds[what] = self._seconds.get(what, 0.0) + time.perf_counter() - began

        setattr(owner, name, call)

    def iterate(self) -> Iteration:
        began, before = time.perf_counter(), self._sampled()
        self._seconds = {"learn": 0.0, "sync": 0.0}
        result = self._algorithm.train()
        self._take_newest()
        rest = time.perf_counter() - began - sum(self._seconds.values())
        runners = result.get(ENV_RUNNER_RESULTS, {})
        learned = result.get(LEARNER_RESULTS, {}).get(DEFAULT_MODULE_ID, {})
        return Iteration(
            steps=self._sampled() - before,
            returns=[float(value) for value in _series(runners, _RETURNS)],
            lengths=[int(value) for value in _series(runners, _LENGTHS)],
            figures=_figures(learned),
            seconds={"sample": max(rest, 0.0), **self._seconds},
        )

    def _sampled(self) -> int:
        return int(self._algorithm.metrics.peek(_SAMPLED, default=0))

    def _take_newest(self) -> None:
        """Asynchronous algorithms bring the newest weights to remote env runners only."""
        if self._job.algorithm.ASYNCHRONOUS:
            place = f"{COMPONENT_LEARNER}/{COMPONENT_RL_MODULE}"
            found = self._algorithm.learner_group.get_state(components=place, inference_only=True)
            self._algorithm.get_module().set_state(
                found[COMPONENT_LEARNER][COMPONENT_RL_MODULE][DEFAULT_MODULE_ID]
            )

    @property
    def policy(self) -> Policy:  # type: ignore[override]
        """What acts, with the newest weights."""
        return policy_of(self._algorithm.get_module()).eval()

    def values(self, observations: NDArray[Any]) -> NDArray[Any] | None:
        """What observations [N, …] are worth [N], for agents that know."""
        learner = self._algorithm.learner_group._learner
        module: Any = None if learner is None else learner.module[DEFAULT_MODULE_ID]
        batch = {"obs": torch.as_tensor(observations, dtype=torch.float32)}
        if not hasattr(module, "compute_values"):
            return None
        with torch.inference_mode():
            return np.asarray(module.compute_values(batch).cpu().numpy())

    def state(self) -> dict[str, Any]:
        found = self._algorithm.get_state(components=COMPONENT_LEARNER_GROUP)
        state = {"learner": encode(found[COMPONENT_LEARNER_GROUP]), "sampled": self._sampled()}
        if (buffer := self._buffer()) is not None:
            state["buffer"] = encode(buffer.get_state())
        self._start_anew(self._sampled())
        return state

    def load(self, state: dict[str, Any]) -> None:
        self._algorithm.set_state({COMPONENT_LEARNER_GROUP: decode(state["learner"])})
        self._algorithm.learner_group.foreach_learner(_set_rates)
        if (buffer := self._buffer()) is not None:
            buffer.set_state(decode(state["buffer"]))
        counted = MetricsLogger(root=False)
        missing = state["sampled"] - self._sampled()
        counted.log_value(NUM_ENV_STEPS_SAMPLED_LIFETIME, missing, reduce="lifetime_sum")
        self._algorithm.metrics.aggregate([counted.reduce()], key=ENV_RUNNER_RESULTS)
        self._start_anew(state["sampled"])

    def _buffer(self) -> Any:
        return getattr(self._algorithm, "local_replay_buffer", None)

    def _start_anew(self, sampled: int) -> None:
        """New episodes and new random numbers, the same ones whenever a run is at this step."""
        seed = self._job.seed

        def start(runner: Any) -> None:
            index = int(runner.worker_index)
            seed_all(seed, (index + 1) + 1_000_003 * sampled)
            runner._seed = int(np.random.randint(2**31 - 1))
            runner._needs_initial_reset = True
            runner.num_env_steps_sampled_lifetime = sampled

        self._algorithm.env_runner_group.foreach_env_runner(start)
        if (buffer := self._buffer()) is not None:
            buffer.rng = np.random.default_rng([seed, sampled])
        seed_all(seed, 1_000_003 * sampled)

    def weights(self) -> dict[str, NDArray[Any]]:
        module = self._algorithm.get_module()
        return {name: value.detach().cpu().numpy() for name, value in module.state_dict().items()}

    def close(self) -> None:
        self._algorithm.stop()


def _listen(manager: Any) -> None:
    """Errors of the user's environment, and ours, end the run at once: where RLlib would start an env runner
    again, and meet them again, without a word.
    """
    fetch: Callable[..., tuple[Any, Any]] = manager._fetch_result

    def fetched(**told: Any) -> tuple[Any, Any]:
        ready, results = fetch(**told)
        for result in results:
            if isinstance(error := result.get(), DlsysError):
                raise error
        return ready, results

    manager._fetch_result = fetched


def _set_rates(learner: Any) -> None:
    """A trial of a population goes on with another rate than the one that was saved."""
    for optimizer, schedule in learner._optimizer_lr_schedules.items():
        learner._set_optimizer_lr(optimizer, schedule.get_current_value())


def module_of(job: RLJob, weights: Mapping[str, Tensor]) -> Policy:
    """The policy of an agent's weights, without the agent."""
    _quiet()
    env = make(job.environment)
    try:
        module: Any = (
            configure(job, env.observation_space).get_rl_module_spec(env=env, inference_only=True).build()
        )
        module.load_state_dict(dict(weights))
        return policy_of(module)
    finally:
        env.close()


def configure(job: RLJob, seen: spaces.Space[Any]) -> AlgorithmConfig:
    """RLlib's configuration of a job, for what its networks see."""
    needs, algorithm = job.resources, job.algorithm
    config: Any = ALGORITHMS.load(algorithm.name)(algorithm)
    if isinstance(algorithm, Deep) and seen.shape and len(seen.shape) == 3:
        height, width, _ = seen.shape
        config.rl_module(model_config=replace(config._model_config, **convolutions(algorithm, height, width)))
    if config.env_runner_cls in (None, SingleAgentEnvRunner):
        config.env_runners(env_runner_cls=LeanEnvRunner)
    done: AlgorithmConfig = (
        config.environment(
            normalize_actions=False,
            env=Made,
            env_config=Made.context(job.environment, ends=algorithm.WHOLE_EPISODES),
        )
        .env_runners(
            num_env_runners=needs.env_runners,
            num_envs_per_env_runner=needs.envs,
            num_cpus_per_env_runner=needs.cpus,
        )
        .learners(num_learners=0, num_gpus_per_learner=needs.gpus)
        .fault_tolerance(restart_failed_env_runners=True)
        .callbacks(_Episodes)
        .reporting(min_time_s_per_iteration=0, metrics_num_episodes_for_smoothing=1)
        .debugging(seed=job.seed, log_level="ERROR")
    )
    return done


def _series(results: Mapping[str, Any], name: str) -> list[Any]:
    """Of a single value RLlib makes no list, and of none a NaN."""
    return [value for value in np.atleast_1d(results.get(name, ())) if value == value]


# RLlib's names of figures as ours, and those that say nothing of learning.
_NAMES = {
    "total_loss": "loss",
    "vf_loss": "value_loss",
    "vf_explained_var": "explained_variance",
    "mean_kl_loss": "kl",
    "gradients_default_optimizer_global_norm": "gradient_norm",
    "default_optimizer_learning_rate": "lr",
}
_UNSAID = (
    "module_train_batch_size_mean",
    "diff_num_grad_updates_vs_sampler_policy",
    "vf_loss_unclipped",
    "curr_entropy_coeff",
    "curr_kl_coeff",
    "weights_seq_no",
    "num_module_steps_trained",
    "num_module_steps_trained_lifetime",
    "num_trainable_parameters",
    "num_non_trainable_parameters",
)


def _figures(learned: Mapping[str, Any]) -> dict[str, float]:
    return {
        _NAMES.get(name, name): float(value)
        for name, value in learned.items()
        if name == "total_loss" or (name not in _UNSAID and _is_number(value))
    }


def _is_number(value: Any) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and bool(np.isfinite(value))


def _quiet() -> None:
    """RLlib warns about its own old names, and gymnasium about how RLlib registers environments."""
    warnings.filterwarnings("ignore", category=DeprecationWarning)
    gymnasium.logger.min_level = gymnasium.logger.ERROR
    for name in ("ray.rllib", "ray.tune", "ray"):
        logging.getLogger(name).setLevel(logging.ERROR)
