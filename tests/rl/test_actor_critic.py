"""Advantage actor-critic: the loss of a rollout, and the gradient that a worker of A3C computes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from by_hand import ByHand
from ray.rllib.core.columns import Columns

from dlsys.rl.algorithms.a3c import a3c
from dlsys.rl.algorithms.actor_critic import a2c
from dlsys.spec.rl.policy import A2C, A3C

GAMMA = 0.9


def _loss(module: Any, episodes: list[Any]) -> torch.Tensor:
    """The paper's: n-step returns, the plain policy gradient, half the squared error, the entropy."""
    policy_losses, errors, entropies = [], [], []
    for episode in episodes:
        seen = torch.as_tensor(episode.get_observations())
        logits = module.forward_train({Columns.OBS: seen})[Columns.ACTION_DIST_INPUTS]
        values = module.compute_values({Columns.OBS: seen})
        target = 0.0 if episode.is_terminated else float(values[-1].detach())
        rewards, targets = episode.get_rewards(), []
        for reward in rewards[::-1]:
            target = float(reward) + GAMMA * target
            targets.insert(0, target)
        policy = torch.distributions.Categorical(logits=logits[:-1])
        advantages = torch.tensor(targets) - values[:-1]
        taken = torch.as_tensor(np.asarray(episode.get_actions()))
        policy_losses.append(-policy.log_prob(taken) * advantages.detach())
        errors.append(advantages**2)
        entropies.append(policy.entropy())
    means = [torch.cat(parts).mean() for parts in (policy_losses, errors, entropies)]
    return means[0] + 0.5 * means[1] - 0.01 * means[2]


def test_the_loss_is_the_papers() -> None:
    agent = ByHand(a2c(A2C(name="a2c", trace=1, gamma=GAMMA)), num_envs_per_env_runner=2)
    episodes = agent.sample(num_timesteps=100)
    assert {episode.is_terminated for episode in episodes} == {True, False}
    expected = _loss(agent.module, episodes)
    assert agent.update(episodes)["total_loss"] == pytest.approx(float(expected), rel=1e-4)


def test_a_worker_computes_the_gradient_of_its_own_rollout(monkeypatch: pytest.MonkeyPatch) -> None:
    told = A3C(name="a3c", trace=1, gamma=GAMMA, rollout=40, clip_norm=None)
    agent = ByHand(a3c(told))
    worker = agent.runner
    episodes = worker.sample()
    # Copies: the learner's pipeline lengthens the episodes that it is given.
    monkeypatch.setattr(worker, "sample", lambda: [episode.slice(slice(None)) for episode in episodes])
    arrays, _, _ = worker.gradient(agent.module.get_state())
    expected = torch.autograd.grad(_loss(agent.module, episodes), list(agent.module.parameters()))
    for found, wanted in zip(arrays, expected, strict=True):
        np.testing.assert_allclose(found, wanted.numpy(), rtol=1e-3, atol=1e-5)
