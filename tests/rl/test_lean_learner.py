"""The lean learner's updates are those of RLlib's."""

from __future__ import annotations

import numpy as np
import torch
from ray.rllib.algorithms.ppo.torch.ppo_torch_learner import PPOTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from test_lean_runner import runner

from dlsys.rl.environments import make
from dlsys.rl.learner import LeanPPOLearner
from dlsys.rl.runner import LeanEnvRunner
from dlsys.train.seeding import seed_all


def test_both_learners_reach_the_same_weights() -> None:
    acting = runner(LeanEnvRunner, "CartPole-v1", 2)
    episodes = acting.sample(num_timesteps=256, explore=True)
    found = []
    for kind in (LeanPPOLearner, PPOTorchLearner):
        seed_all(3)
        np.random.seed(3)
        config = acting.config.copy(copy_frozen=False)
        config.learners(learner_class=kind)
        learner = config.build_learner(env=make_env())
        before = {name: value.clone() for name, value in weights(learner).items()}
        told = learner.update(
            episodes=[episode.slice(slice(None)) for episode in episodes],
            timesteps={"num_env_steps_sampled_lifetime": 256},
            num_epochs=4,
            minibatch_size=64,
            shuffle_batch_per_epoch=True,
        )
        assert told[DEFAULT_MODULE_ID]["gradients_default_optimizer_global_norm"].peek() > 0
        found.append(weights(learner))
        assert any((found[-1][name] != before[name]).any() for name in before)
    for name, value in found[0].items():
        torch.testing.assert_close(value, found[1][name], rtol=1e-4, atol=1e-5)
    acting.stop()


def make_env():  # type: ignore[no-untyped-def]
    from dlsys.spec.rl import Environment

    return make(Environment(name="CartPole-v1"))


def weights(learner) -> dict[str, torch.Tensor]:  # type: ignore[no-untyped-def]
    return {name: value.detach() for name, value in learner.module[DEFAULT_MODULE_ID].state_dict().items()}
