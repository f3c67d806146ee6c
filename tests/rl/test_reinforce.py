"""REINFORCE: whole episodes, their returns, and what a baseline does to the gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rl_models import job
from torch.nn.utils import parameters_to_vector
from whole_agents import agent, copied, same

from dlsys.rl.runners import Runner
from dlsys.rl.sampler import joined


def test_episodes_are_whole_and_the_policys_that_acts_now() -> None:
    made = agent("reinforce", batch_size=150)
    starts = set()
    for _ in range(4):
        rollout, _ = made.runners.sample(150, made.step)
        over = (rollout.terminated | rollout.truncated)[:, 0]
        assert rollout.first[0, 0]
        assert over[-1]
        assert rollout.steps == sum(rollout.lengths) >= 150
        # Without the last episode it were too few steps.
        assert rollout.steps - rollout.lengths[-1] < 150
        np.testing.assert_array_equal(rollout.ends[0], np.flatnonzero(over))
        np.testing.assert_array_equal(rollout.ends[1], 0)
        np.testing.assert_array_equal(rollout.first[1:, 0], over)
        np.testing.assert_array_equal(np.cumsum(rollout.lengths) - 1, np.flatnonzero(over))
        # What is seen is in a row: the cart goes on where it was.
        seen = rollout.seen["numbers"][:, 0]
        assert len(seen) == rollout.steps + 1
        moved = np.abs(seen[1:] - seen[:-1] - 0.02 * seen[:-1, [1]] * [1, 0, 0, 0])[:, 0]
        assert moved[~over].max() < 1e-6
        starts |= {tuple(row) for row in seen[:-1][rollout.first[:-1, 0]]}
    assert len(starts) >= 4


def test_episodes_of_several_runners_follow_each_other() -> None:
    told = job({"name": "reinforce"}, "CartPole-v1")
    runners = [Runner(told, type(agent("reinforce").network), index, 0) for index in range(2)]
    parts = [runner.sample(40) for runner in runners]
    both = joined(parts, after=True)
    steps = [part.steps for part in parts]
    assert both.steps == sum(steps)
    assert both.lengths == parts[0].lengths + parts[1].lengths
    np.testing.assert_array_equal(both.rewards[steps[0] :], parts[1].rewards)
    np.testing.assert_array_equal(both.seen["numbers"][: steps[0]], parts[0].seen["numbers"][:-1])
    np.testing.assert_array_equal(both.seen["numbers"][steps[0] :], parts[1].seen["numbers"])
    assert both.ends[0, -1] == sum(steps) - 1
    for runner in runners:
        runner.close()


def test_returns_to_go_are_discounted_and_end_with_their_episode() -> None:
    made = agent("reinforce", gamma=0.9)
    rollout, _ = made.runners.sample(100, 0)
    # Each step of CartPole brings 1: with k steps left, that is 1 + γ + … = (1 - γᵏ) / (1 - γ).
    left = np.concatenate([np.arange(length, 0, -1) for length in rollout.lengths])
    batch = made.batch(rollout)
    np.testing.assert_allclose(batch.returns[:, 0].numpy(), (1 - 0.9**left) / 0.1, rtol=1e-5)
    np.testing.assert_allclose(batch.advantages.numpy(), (batch.returns - batch.values).numpy(), rtol=1e-5)


def test_the_step_is_the_policy_gradients() -> None:
    """Σ ∇ log p(aₜ) Gₜ over the number of steps, by torch's own distribution."""
    made = agent("reinforce", baseline=False, clip_norm=None)
    batch = made.batch(made.runners.sample(60, 0)[0]).flat()
    network = made.network
    out = network.policy(network.body(batch.seen["numbers"].expand(2, -1, -1))[0])
    logp = torch.distributions.Categorical(logits=out).log_prob(batch.actions)
    expected = torch.autograd.grad(-(logp * batch.returns).sum() / len(batch), network.policy.weight)[0]
    (found,) = torch.autograd.grad(made.policy_loss(batch)[0], network.policy.weight)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-5)


def _gradient(made: Any, rollout: Any) -> torch.Tensor:
    loss, _ = made.policy_loss(made.batch(rollout).flat())
    parts = torch.autograd.grad(loss, made.network.of_policy())
    return torch.cat([part.reshape(-1) for part in parts])


def test_a_baseline_lowers_the_gradients_variance() -> None:
    made = agent("reinforce", lr=1e-2, passes=20, batch_size=600)
    network = made.network
    policy = copied(network.policy.parameters()), copied(network.body.parameters())
    made.iterate()
    # The baseline stays fitted; the policy is the one that it was fitted to.
    with torch.no_grad():
        for before, now in zip(policy[0], network.policy.parameters(), strict=True):
            now.copy_(before)
        for before, now in zip(policy[1], network.body.parameters(), strict=True):
            now[0].copy_(before[0])
    rollouts = [made.runners.sample(1, 0)[0] for _ in range(60)]
    variance = {}
    for baseline in (False, True):
        made._told = made._told.model_copy(update={"baseline": baseline})
        gradients = torch.stack([_gradient(made, rollout) for rollout in rollouts])
        variance[baseline] = float(gradients.var(dim=0).sum())
    assert variance[True] < 0.7 * variance[False]


@pytest.mark.parametrize("baseline", [True, False])
def test_without_a_baseline_the_value_function_stays(baseline: bool) -> None:
    made = agent("reinforce", baseline=baseline, batch_size=50)
    network = made.network
    before = parameters_to_vector(network.value.parameters()).clone()
    body = copied(network.body.parameters())
    policy = copied(network.policy.parameters())
    made.iterate()
    assert torch.equal(before, parameters_to_vector(network.value.parameters())) is not baseline
    for old, now in zip(body, network.body.parameters(), strict=True):
        assert torch.equal(old[1], now[1]) is not baseline
        assert not torch.equal(old[0], now[0])
    assert not same(policy, network.policy.parameters())
