"""Updates from a memory, without RLlib's loop, are those of RLlib's."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.algorithms.dqn.torch.dqn_torch_learner import DQNTorchLearner
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.learner import Learner
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME, TD_ERROR_KEY

from dlsys.rl.environments import make
from dlsys.rl.rllib import configure
from dlsys.spec.rl.job import Environment, RLJob
from dlsys.train.seeding import seed_all

ROWS = 32


@pytest.mark.parametrize(
    ("environment", "algorithm"),
    [
        ("CartPole-v1", {"name": "dqn", "clip_norm": 0.01}),
        ("CartPole-v1", {"name": "dqn", "double": True, "dueling": "mean", "clip_norm": None}),
        ("CartPole-v1", {"name": "rainbow"}),
        ("CartPole-v1", {"name": "sac"}),
        ("Pendulum-v1", {"name": "sac", "clip_norm": 0.1}),
        ("Pendulum-v1", {"name": "ddpg"}),
        ("Pendulum-v1", {"name": "td3", "clip_norm": 0.1}),
    ],
)
def test_both_reach_the_same_weights(environment: str, algorithm: dict[str, Any]) -> None:
    every = {"target_every": 20} if environment == "CartPole-v1" and algorithm["name"] != "sac" else {}
    job = RLJob.model_validate(
        {
            "kind": "rl",
            "name": "agent",
            "environment": {"name": environment},
            "algorithm": {"hidden": [16], **every, **algorithm},
            "stop": {"epochs": 1},
        }
    )
    env = make(Environment(name=environment))
    lean = configure(job, env.observation_space).get_default_learner_class()
    updates = {"update": Learner.update, "register_optimizer": Learner.register_optimizer}
    if algorithm["name"] == "dqn":
        updates["compute_loss_for_module"] = DQNTorchLearner.compute_loss_for_module
    whole = type("Whole", (lean,), updates)
    weights, told, before = [], [], {}
    for kind in (lean, whole):
        config = configure(job, env.observation_space).copy(copy_frozen=False)
        seed_all(3)
        learner = config.learners(learner_class=kind).build_learner(env=env)
        before = _state(learner)
        random = np.random.default_rng(0)
        for update in range(1, 6):
            columns = _columns(random, env)
            batch = MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(columns)}, ROWS)
            found = learner.update(
                training_data=TrainingData(batch=batch),
                timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: 10 * update},
            )
        told.append(_figures(found))
        weights.append(_state(learner))
        assert any((weights[-1][name] != before[name]).any() for name in before)
    for name, value in weights[0].items():
        torch.testing.assert_close(value, weights[1][name], rtol=1e-4, atol=1e-5, msg=name)
    errors = [figures.pop(TD_ERROR_KEY) for figures in told]
    assert errors[0].shape == (ROWS,)
    np.testing.assert_allclose(*errors, rtol=1e-3, atol=1e-5)
    for name in ("total_loss", "qf_loss", "qf_mean"):
        ours, theirs = (float(torch.as_tensor(figures[name]).detach()) for figures in told)
        assert ours == pytest.approx(theirs, rel=1e-3, abs=1e-5), name


def _figures(found: dict[str, Any]) -> dict[str, Any]:
    """RLlib's, as the lean learner tells them."""
    if DEFAULT_MODULE_ID in found:
        found = {name: value.peek() for name, value in found[DEFAULT_MODULE_ID].items()}
        found[TD_ERROR_KEY] = torch.as_tensor(np.asarray(found[TD_ERROR_KEY])[-1])
    found[TD_ERROR_KEY] = found[TD_ERROR_KEY].detach().numpy()
    return found


def _columns(random: np.random.Generator, env: Any) -> dict[str, Any]:
    seen = env.observation_space.shape
    if isinstance(env.action_space, spaces.Discrete):
        chosen = random.integers(env.action_space.n, size=ROWS)
    else:
        chosen = random.uniform(-1, 1, (ROWS, *env.action_space.shape)).astype(np.float32)
    return {
        "obs": random.normal(size=(ROWS, *seen)).astype(np.float32),
        "new_obs": random.normal(size=(ROWS, *seen)).astype(np.float32),
        "actions": chosen,
        "rewards": random.normal(size=ROWS).astype(np.float32),
        "terminateds": random.random(ROWS) < 0.1,
        "n_step": np.full(ROWS, 3, np.float32),
        "weights": random.random(ROWS).astype(np.float32),
    }


def _state(learner: Any) -> dict[str, torch.Tensor]:
    found = learner.module[DEFAULT_MODULE_ID].state_dict()
    return {name: value.detach().clone() for name, value in found.items()}
