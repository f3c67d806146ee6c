"""REINFORCE: returns-to-go of whole episodes, and what a baseline does to the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from by_hand import ByHand
from torch.nn.utils import parameters_to_vector

from dlsys.rl.algorithms.reinforce import reinforce
from dlsys.spec.rl.policy import REINFORCE


def _rows(agent: ByHand, episodes: list[Any]) -> Any:
    """A batch as the learner makes it, for `policy_loss`."""
    pipeline = agent.learner._learner_connector
    batch = pipeline(rl_module=agent.learner.module, batch={}, episodes=episodes, shared_data={})
    return batch["default_policy"]


def test_returns_to_go_are_discounted_and_end_with_their_episode() -> None:
    agent = ByHand(reinforce(REINFORCE(name="reinforce", gamma=0.9)))
    episodes = agent.sample(num_episodes=1) + agent.sample(num_episodes=1)
    lengths = [len(episode) for episode in episodes]
    assert all(episode.is_done for episode in episodes)
    # Each step of CartPole brings 1: with k steps left, that is 1 + γ + … = (1 - γᵏ) / (1 - γ).
    left = np.concatenate([np.arange(length, 0, -1) for length in lengths])
    found = _rows(agent, episodes)["value_targets"].numpy()
    np.testing.assert_allclose(found, (1 - 0.9**left) / 0.1, rtol=1e-5)


def test_episodes_start_differently_each_time() -> None:
    agent = ByHand(reinforce(REINFORCE(name="reinforce")))
    agent.runner._seed = 0
    starts = {tuple(agent.sample(num_episodes=1)[0].get_observations(0)) for _ in range(4)}
    assert len(starts) == 4


def _gradient(agent: ByHand, episode: Any) -> torch.Tensor:
    loss, _ = agent.learner.policy_loss(agent.module, _rows(agent, [episode]))
    parameters = agent.learner.policy_parameters(agent.module)
    return parameters_to_vector(torch.autograd.grad(loss, parameters))


def test_a_baseline_lowers_the_gradients_variance() -> None:
    agent = ByHand(reinforce(REINFORCE(name="reinforce", lr=1e-2, passes=20)))
    start = {name: value.clone() for name, value in agent.module.state_dict().items()}
    agent.update([episode for _ in range(30) for episode in agent.sample(num_episodes=1)])
    # The baseline stays fitted; the policy is the one that it was fitted to.
    for name, value in agent.module.state_dict().items():
        if "critic" not in name and not name.startswith("vf"):
            value.copy_(start[name])
    episodes = [agent.sample(num_episodes=1)[0] for _ in range(60)]
    variance = {}
    for baseline in (False, True):
        told = agent.learner.told.model_copy(update={"baseline": baseline})
        agent.learner.config.learner_config_dict["told"] = told
        gradients = torch.stack([_gradient(agent, episode) for episode in episodes])
        variance[baseline] = float(gradients.var(dim=0).sum())
    assert variance[True] < 0.7 * variance[False]


@pytest.mark.parametrize("baseline", [True, False])
def test_without_a_baseline_the_value_function_stays(baseline: bool) -> None:
    agent = ByHand(reinforce(REINFORCE(name="reinforce", baseline=baseline)))
    before = parameters_to_vector(agent.module.vf.parameters()).clone()
    policy = parameters_to_vector(agent.module.pi.parameters()).clone()
    agent.update(agent.sample(num_episodes=1))
    assert torch.equal(before, parameters_to_vector(agent.module.vf.parameters())) is not baseline
    assert not torch.equal(policy, parameters_to_vector(agent.module.pi.parameters()))
