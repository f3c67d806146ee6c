"""Soft actor-critic with discrete actions, in process: what RLlib's leaves to chance, and that it learns."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.core.learner.training_data import TrainingData
from ray.rllib.utils.metrics import NUM_ENV_STEPS_SAMPLED_LIFETIME

from dlsys.registry import ALGORITHMS
from dlsys.spec.rl.value import SAC

SEEN, ACTIONS = spaces.Box(-1, 1, (3,), np.float32), spaces.Discrete(4)


def _learner(**options: Any) -> Any:
    torch.manual_seed(0)
    told = SAC.model_validate({"name": "sac", "hidden": (16, 16), **options})
    config = ALGORITHMS.load("sac")(told).debugging(seed=0)
    return config.build_learner(spaces={DEFAULT_MODULE_ID: (SEEN, ACTIONS)})


def _update(learner: Any, now: int) -> None:
    """One of a game of one step: the best action is 1 where the first number is positive, otherwise 3."""
    random = np.random.default_rng(now)
    seen, actions = random.uniform(-1, 1, (64, 3)).astype(np.float32), random.integers(4, size=64)
    rows = {
        "obs": seen,
        "new_obs": seen,
        "actions": actions,
        "rewards": (actions == np.where(seen[:, 0] > 0, 1, 3)).astype(np.float32),
        "terminateds": np.ones(64, bool),
        "n_step": np.ones(64, np.float32),
        "weights": np.ones(64, np.float32),
    }
    batch = TrainingData(batch={DEFAULT_MODULE_ID: rows})
    learner.update(training_data=batch, timesteps={NUM_ENV_STEPS_SAMPLED_LIFETIME: now})


@pytest.mark.parametrize("twin", [True, False])
def test_it_learns_the_best_actions_and_keeps_its_entropy(twin: bool) -> None:
    learner = _learner(twin=twin, lr=1e-2, temperature=0.3)
    for now in range(200):
        _update(learner, now)
    module = learner.module[DEFAULT_MODULE_ID]
    seen = torch.rand(200, 3) * 2 - 1
    logits = module.forward_inference({"obs": seen})["action_dist_inputs"]
    right = logits.argmax(-1) == torch.where(seen[:, 0] > 0, 1, 3)
    assert right.float().mean() > 0.9
    entropy = torch.distributions.Categorical(logits=logits).entropy().mean().item()
    assert entropy == pytest.approx(math.log(4) / 2, abs=0.25)


def test_the_entropy_that_is_aimed_at() -> None:
    assert _learner().target_entropy[DEFAULT_MODULE_ID].item() == pytest.approx(math.log(4) / 2)
    assert _learner(entropy=0.3).target_entropy[DEFAULT_MODULE_ID].item() == pytest.approx(0.3)


def test_impossible_actions_leave_numbers() -> None:
    learner = _learner()
    module = learner.module[DEFAULT_MODULE_ID]
    with torch.no_grad():
        [*module.pi.parameters()][-1][0] = 200.0
    _update(learner, 1)
    for name, value in module.state_dict().items():
        assert value.isfinite().all(), name
