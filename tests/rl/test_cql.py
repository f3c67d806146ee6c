"""Conservative Q-learning in process: its loss against numbers by hand, and what it does to values."""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from gymnasium import spaces
from rl_models import job
from scripted import SwingUp
from steps_made_up import made_up
from torch import Generator

from dlsys.rl.actions import Actions
from dlsys.rl.algorithms.cql import Conservative, CQLAgent, soft_maximum
from dlsys.rl.algorithms.sac import SoftPolicy
from dlsys.rl.critics import Steps
from dlsys.rl.episodes import record
from dlsys.rl.observations import Observations
from dlsys.spec.rl.job import Environment
from dlsys.spec.rl.offline import CQL

# Wider than ±1, in which networks choose.
SEEN, ACTIONS = spaces.Box(-1, 1, (2,), np.float32), spaces.Box(-3, 3, (1,), np.float32)


def _learner(**options: Any) -> Conservative:
    torch.manual_seed(0)
    told = job({"name": "cql", "episodes": "none", "hidden": (32, 32), **options})
    assert isinstance(told.algorithm, CQL)
    policy = SoftPolicy(Observations(SEEN), Actions(ACTIONS), told)
    return Conservative(policy, Actions(ACTIONS), told.algorithm, "cpu")


def _steps(count: int) -> Steps:
    """Steps whose actions lie in 0.4 to 0.6, and are worth their reward alone."""
    steps = made_up(SEEN, ACTIONS, count)
    alone = torch.zeros(count), torch.ones(count)
    return steps._replace(actions=0.5 + steps.actions / 10, going=alone[0], weights=alone[1])


def _worth(learner: Conservative, seen: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return learner.critics(seen, actions)


def test_the_soft_maximum_of_fixed_numbers() -> None:
    values = torch.tensor([[0.0, 1.0], [2.0, 1.0]])
    log_densities = torch.tensor([[0.0, 0.5], [-1.0, 0.5]])
    expected = torch.tensor([math.log((1 + math.exp(3)) / 2), 0.5])
    torch.testing.assert_close(soft_maximum(values, log_densities), expected)
    torch.testing.assert_close(
        soft_maximum(torch.stack((values, values + 1)), log_densities), torch.stack((expected, expected + 1))
    )


def test_the_soft_maximum_is_that_of_all_actions() -> None:
    learner = _learner(samples=4000)
    with torch.no_grad():  # values that differ
        [*learner.critics.networks.parameters()][-2].mul_(8)
        [*learner.policy.layers.parameters()][-1][..., 1] = 0.458  # deviations of 1: all of ±1 is drawn
        seen, grid = _steps(5).seen["numbers"], torch.linspace(-1, 1, 2001)
        found = learner.soft_maxima(seen, Generator().manual_seed(0))
        values = _worth(learner, seen.repeat_interleave(len(grid), 0), grid.repeat(5)[:, None]).view(2, 5, -1)
        whole = torch.trapezoid(values.exp(), grid, dim=2).log()
    assert values.std(2).mean() > 0.1
    torch.testing.assert_close(found, whole, atol=0.05, rtol=0)


def test_the_loss_of_fixed_numbers(monkeypatch: pytest.MonkeyPatch) -> None:
    learner = _learner(weight=2.0)
    maxima = torch.tensor([[3.0, 5.0], [2.0, 2.0]])
    monkeypatch.setattr(learner, "soft_maxima", lambda features, generator: maxima)
    values = torch.tensor([[2.0, 2.0], [3.0, 1.0]])
    found = learner.value_loss(values, torch.tensor([3.0, 1.0]), _steps(2), torch.zeros(2, 2), Generator())
    first = 2 * (4 - 2) + 0.5 * (1 + 1) / 2
    assert float(found) == pytest.approx(first + 2 * (2 - 2) + 0)


def test_it_begins_with_a_low_temperature_and_aims_at_less_entropy_than_parts() -> None:
    learner = _learner()
    assert learner.log_temperature.exp().item() == pytest.approx(0.1)
    assert learner.aim(None) == -1


def test_what_was_not_recorded_is_worth_less() -> None:
    steps = _steps(128)
    seen, done = steps.seen["numbers"], steps.actions
    less = {}
    for weight in (0.0, 5.0):
        learner, random = _learner(weight=weight, lr=5e-3), Generator().manual_seed(0)
        for _ in range(120):
            learner.update(steps, random)
        recorded = _worth(learner, seen, done).mean()
        less[weight] = [
            (recorded - _worth(learner, seen, 0 * done + other).mean()).item() for other in (-0.8, 0.0, 1.0)
        ]
    assert np.all(np.subtract(less[5.0], less[0.0]) > 0.5), less


def test_rewards_are_in_one_unit_and_values_in_the_environments(tmp_path: Path) -> None:
    record(SwingUp(), Environment(name="Pendulum-v1"), 2, 0, tmp_path / "a.parquet", 0.5)
    agent = CQLAgent(job({"name": "cql", "episodes": str(tmp_path), "hidden": [8]}, "Pendulum-v1"))
    unit = float(10 / agent.returns.std(unbiased=False))
    ends = torch.tensor([199, 399])
    torch.testing.assert_close(agent.recorded.rewards[ends], agent.returns[ends] * unit)
    seen = {"numbers": agent.recorded.seen["numbers"][:5].numpy()}
    values = agent.values(seen)
    assert values is not None
    torch.testing.assert_close(torch.as_tensor(values) * unit, agent.learner.worth(agent.shown(seen)))
