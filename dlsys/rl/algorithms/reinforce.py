"""https://doi.org/10.1007/BF00992696 — REINFORCE, with an optional learned baseline."""

from __future__ import annotations

from typing import Any

from ray.rllib.algorithms import AlgorithmConfig
from ray.rllib.algorithms.ppo import PPOConfig
from ray.rllib.connectors.connector_v2 import ConnectorV2
from ray.rllib.core.columns import Columns
from ray.rllib.core.learner.learner import ENTROPY_KEY, POLICY_LOSS_KEY
from ray.rllib.evaluation.postprocessing import Postprocessing, discount_cumsum
from torch import Tensor, nn

from dlsys.rl.algorithms.critic import POLICY, CriticLearner, Rows
from dlsys.rl.algorithms.rllib import network
from dlsys.spec.rl.policy import REINFORCE


def reinforce(told: REINFORCE) -> AlgorithmConfig:
    """PPO's sampling, with whole episodes and another learner."""
    return (
        PPOConfig()  # type: ignore[no-untyped-call]
        .training(
            lr=told.lr,
            gamma=told.gamma,
            train_batch_size_per_learner=told.batch_size,
            minibatch_size=None,
            num_epochs=1,
        )
        .learners(
            learner_class=REINFORCELearner,
            learner_config_dict={"told": told},
            learner_connector=lambda observations, actions: ReturnsToGo(told.gamma),
        )
        .env_runners(batch_mode="complete_episodes")
        .callbacks(on_sample_end=_from_new_starts)
        .rl_module(model_config=network(told, vf_share_layers=False))
    )


def _from_new_starts(*, env_runner: Any, **_: Any) -> None:
    """RLlib would seed environments before each sample of whole episodes, and start them all alike."""
    env_runner._needs_initial_reset = False


class ReturnsToGo(ConnectorV2):
    """Adds what a whole episode still brings at each step, discounted: Σ γᵏ r(t+k)."""

    def __init__(self, gamma: float) -> None:
        super().__init__()
        self.gamma = gamma

    def __call__(self, *, episodes: list[Any], batch: dict[str, Any], **_: Any) -> Any:
        for episode in self.single_agent_episode_iterator(episodes, agents_that_stepped_only=False):
            returns = discount_cumsum(episode.get_rewards(), self.gamma).astype("float32")
            self.add_n_batch_items(batch, Postprocessing.VALUE_TARGETS, list(returns), len(returns), episode)
        return batch


class REINFORCELearner(CriticLearner):
    def parts(self, module: Any) -> dict[str, list[nn.Parameter]]:
        value = super().parts(module) if self.told.baseline else {}
        return {POLICY: self.policy_parameters(module), **value}

    def policy_loss(self, module: Any, rows: Rows) -> tuple[Tensor, Tensor]:
        """The loss whose gradient is the policy gradient, and the policy's mean entropy."""
        advantages = rows[Postprocessing.VALUE_TARGETS]
        if self.told.baseline:
            advantages = advantages - module.compute_values(rows).detach()
        policy = self.distribution(module, rows)
        return -(policy.logp(rows[Columns.ACTIONS]) * advantages).mean(), policy.entropy().mean()

    def improve(self, module_id: str, module: Any, rows: Rows) -> dict[str, Any]:
        loss, entropy = self.policy_loss(module, rows)
        self.step(module_id, POLICY, loss - self.told.entropy * entropy)
        return {POLICY_LOSS_KEY: loss.detach(), ENTROPY_KEY: entropy.detach()}
