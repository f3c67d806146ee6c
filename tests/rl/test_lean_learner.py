"""The lean learner's updates are those of RLlib's."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from test_lean_runner import runner

from dlsys.rl.environments import make
from dlsys.rl.learner import LeanPPOLearner
from dlsys.rl.runner import LeanEnvRunner
from dlsys.spec.rl.job import Environment
from dlsys.train.seeding import seed_all

FIGURES = ("policy_loss", "vf_loss", "entropy", "total_loss", "gradients_default_optimizer_global_norm")


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1"])
@pytest.mark.parametrize("more", [{}, {"use_kl_loss": True, "kl_coeff": 0.3}, {"entropy_coeff": 0.01}])
def test_both_learners_reach_the_same_weights(environment: str, more: dict[str, Any]) -> None:
    """Three passes over a whole batch; how minibatches are drawn is each learner's own."""
    acting = runner(LeanEnvRunner, environment, 2)
    episodes = acting.sample(num_timesteps=256, explore=True)
    weights, told = [], []
    for kind in (LeanPPOLearner, PPOTorchLearner):
        config = acting.config.copy(copy_frozen=False).training(**more).learners(learner_class=kind)
        seed_all(3)
        learner = config.build_learner(env=make(Environment(name=environment)))
        before = state(learner)
        for _ in range(2):
            found = learner.update(
                training_data=TrainingData(episodes=[episode.slice(slice(None)) for episode in episodes]),
                timesteps={"num_env_steps_sampled_lifetime": 256},
                num_epochs=3,
                minibatch_size=None,
                shuffle_batch_per_epoch=False,
            )
        told.append({name: float(found[DEFAULT_MODULE_ID][name].peek()) for name in FIGURES})
        weights.append(state(learner))
        assert any((weights[-1][name] != before[name]).any() for name in before)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=2e-5)
    assert told[0] == pytest.approx(told[1], rel=1e-3, abs=1e-5)
    acting.stop()


def test_each_row_is_learned_from_once_a_pass() -> None:
    acting = runner(LeanEnvRunner, "CartPole-v1", 2)
    episodes = acting.sample(num_timesteps=100, explore=True)
    sampled = [float(row[0]) for episode in episodes for row in episode.get_observations()[:-1]]
    learner = acting.config.build_learner(env=make(Environment(name="CartPole-v1")))
    seen: list[float] = []
    whole = learner._loss

    def loss(module: Any, rows: dict[str, torch.Tensor]) -> Any:
        seen.extend(rows["obs"][:, 0].tolist())
        return whole(module, rows)

    learner._loss = loss
    told = {"timesteps": {}, "num_epochs": 2, "minibatch_size": 32, "shuffle_batch_per_epoch": True}
    learner.update(training_data=TrainingData(episodes=episodes), **told)
    assert len(sampled) >= 100
    assert sorted(seen) == sorted(2 * sampled)
    assert seen[: len(sampled)] != seen[len(sampled) :], "each pass is shuffled anew"
    acting.stop()


def state(learner: Any) -> dict[str, torch.Tensor]:
    found = learner.module[DEFAULT_MODULE_ID].state_dict()
    return {name: value.detach().clone() for name, value in found.items()}
