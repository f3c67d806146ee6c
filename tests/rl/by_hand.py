"""RLlib's learners and env runners in this process, without Ray."""

from __future__ import annotations

from typing import Any

from ray.rllib.core import COMPONENT_RL_MODULE, DEFAULT_MODULE_ID
from ray.rllib.env.single_agent_env_runner import SingleAgentEnvRunner


class ByHand:
    """A learner and what samples for it.

    Args:
        config: RLlib's, of an algorithm.
        environment: a gymnasium id.
        steps: how many are sampled at a time; by default whole episodes.
    """

    def __init__(self, config: Any, environment: str = "CartPole-v1", **env_runners: Any) -> None:
        config = config.environment(environment).env_runners(num_env_runners=0, **env_runners)
        config = config.learners(num_learners=0).debugging(seed=0, log_level="ERROR")
        kind = config.env_runner_cls or SingleAgentEnvRunner
        self.runner = kind(config=config, worker_index=0, num_workers=0)
        self.learner = config.build_learner(env=self.runner.env)
        self.module: Any = self.learner.module[DEFAULT_MODULE_ID]

    def sample(self, **how: int) -> list[Any]:
        """Episodes of the learner's policy."""
        state = self.learner.get_state(components=COMPONENT_RL_MODULE)[COMPONENT_RL_MODULE]
        self.runner.set_state({COMPONENT_RL_MODULE: state})
        episodes: list[Any] = self.runner.sample(**how)
        return episodes

    def update(self, episodes: list[Any]) -> dict[str, float]:
        """One update; returns its figures."""
        self.learner.update(episodes=episodes, _no_metrics_reduce=True)
        found = self.learner.metrics.peek(DEFAULT_MODULE_ID)
        self.learner.metrics.reduce()
        return {name: float(value) for name, value in found.items()}
