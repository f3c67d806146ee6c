"""Value agents are reproducible: the same seed gives the same returns and weights, bit for bit."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from rl_models import job

from dlsys.rl.engine import build


def trained(seed: int, told: dict[str, Any]) -> tuple[list[float], dict[str, torch.Tensor]]:
    """The returns of a thousand steps and what updates from the hundredth on made of the weights."""
    agent = build(
        job({"starts": 100, "hidden": [32, 32], "batch_size": 32, **told}, "CartPole-v1", seed=seed)
    )
    did = agent.iterate()
    weights = {name: torch.as_tensor(value).clone() for name, value in agent.weights().items()}
    agent.close()
    return did.returns, weights


@pytest.mark.parametrize(
    "told",
    [{"name": "dqn"}, {"name": "dqn", "atoms": 51}, {"name": "rainbow"}],
    ids=["dqn", "c51", "rainbow"],
)
def test_a_seed_repeats_itself_and_another_does_not(told: dict[str, Any]) -> None:
    returns, weights = trained(3, told)
    torch.rand(5)  # what is drawn elsewhere in the process changes nothing
    again, same = trained(3, told)
    assert returns == again
    assert len(returns) > 10
    assert all(torch.equal(weights[name], same[name]) for name in weights)
    assert trained(4, told)[0] != returns
