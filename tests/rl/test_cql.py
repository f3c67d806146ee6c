"""Conservative Q-learning in process: its loss against numbers by hand, and what it does to values."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from ray.rllib.core import DEFAULT_MODULE_ID
from ray.rllib.policy.sample_batch import MultiAgentBatch, SampleBatch

from dlsys.registry import ALGORITHMS
from dlsys.rl.algorithms.cql import soft_maximum
from dlsys.spec.rl.offline import CQL

# Wider than ±1, in which networks choose.
SEEN, ACTIONS = spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-3, 3, (1,), np.float32)


def _learner(**options: Any) -> Any:
    torch.manual_seed(0)
    told = CQL.model_validate({"name": "cql", "episodes": "none", "hidden": (32, 32), **options})
    config = ALGORITHMS.load("cql")(told).debugging(seed=0)
    return config.build_learner(spaces={DEFAULT_MODULE_ID: (SEEN, ACTIONS)})


def _rows(count: int) -> dict[str, np.ndarray]:
    """Steps whose actions lie in 0.4 to 0.6, and are worth their reward alone."""
    random = np.random.default_rng(0)
    return {
        "obs": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "new_obs": random.uniform(-1, 1, (count, 2)).astype(np.float32),
        "actions": random.uniform(0.4, 0.6, (count, 1)).astype(np.float32),
        "rewards": random.normal(size=count).astype(np.float32),
        "terminateds": np.ones(count, bool),
    }


def test_the_soft_maximum_of_fixed_numbers() -> None:
    values = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    log_densities = torch.tensor([[0.0, 0.5], [-1.0, 0.5]])
    expected = [math.log((1 + math.exp(3)) / 2), 0.5]
    torch.testing.assert_close(soft_maximum(values, log_densities), torch.tensor(expected))


def test_the_soft_maximum_is_that_of_all_actions() -> None:
    module = _learner(samples=4000).module[DEFAULT_MODULE_ID]
    with torch.no_grad():  # values that differ
        for head in (module.qf, module.qf_twin):
            for parameter in head.parameters():
                parameter.mul_(20)
        batch = {name: torch.as_tensor(values) for name, values in _rows(5).items()}
        found = module.forward_train(batch)["soft_maxima"]
        grid = torch.linspace(-1, 1, 2001)
        many = {"obs": batch["obs"].repeat_interleave(len(grid), 0), "actions": grid.repeat(5)[:, None]}
        for estimate, parts in zip(
            found,
            ((module.qf_encoder, module.qf), (module.qf_twin_encoder, module.qf_twin)),
            strict=True,
        ):
            values = module._qf_forward_train_helper(many, *parts).view(5, -1)
            whole = torch.trapezoid(values.exp(), grid, dim=1).log()
            torch.testing.assert_close(estimate, whole, atol=0.05, rtol=0)


def test_the_loss_of_fixed_numbers() -> None:
    learner = _learner(weight=2.0, gamma=0.5)
    batch = {"rewards": torch.tensor([1.0, 1.0]), "terminateds": torch.tensor([False, True])}
    out = {
        "q_target_next": torch.tensor([4.0, 4.0]),  # targets 3 and 1
        "qf_preds": torch.tensor([2.0, 2.0]),
        "qf_twin_preds": torch.tensor([3.0, 1.0]),
        "soft_maxima": [torch.tensor([3.0, 5.0]), torch.tensor([2.0, 2.0])],
        "q_curr": torch.tensor([1.0, 2.0]),
        "logp_resampled": torch.tensor([1.5, 2.5]),
    }
    learner.compute_loss_for_module(
        module_id=DEFAULT_MODULE_ID, config=learner.config, batch=batch, fwd_out=out
    )
    losses = {name: loss.item() for (_, name), loss in learner._temp_losses.items()}
    expected = {
        "qf_loss": 2 * (4 - 2) + 0.5 * (1 + 1) / 2,
        "qf_twin_loss": 2 * (2 - 2) + 0,
        "policy_loss": 0.1 * 2 - 1.5,  # the temperature is 0.1 at first
        "alpha_loss": -math.log(0.1) * (2 - 1),  # the entropy aimed at is -1
    }
    assert losses == pytest.approx(expected)


def test_what_was_not_recorded_is_worth_less() -> None:
    rows = _rows(128)
    seen, done = torch.as_tensor(rows["obs"]), torch.as_tensor(rows["actions"])
    less = {}
    for weight in (0.0, 5.0):
        learner = _learner(weight=weight, lr=5e-3)
        for _ in range(120):
            learner.update(batch=MultiAgentBatch({DEFAULT_MODULE_ID: SampleBatch(rows)}, 128), timesteps={})
        module = learner.module[DEFAULT_MODULE_ID]
        with torch.no_grad():
            recorded = module.compute_q_values({"obs": seen, "actions": done}).mean()
            less[weight] = [
                (recorded - module.compute_q_values({"obs": seen, "actions": 0 * done + other}).mean()).item()
                for other in (-0.8, 0.0, 1.0)
            ]
    assert np.all(np.subtract(less[5.0], less[0.0]) > 0.5), less
