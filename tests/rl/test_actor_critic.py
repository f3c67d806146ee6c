"""Advantage actor-critic: the gradient of a rollout, with and without a memory, and what a worker of A3C
computes of it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rl_models import job
from torch import Tensor, nn
from whole_agents import agent, copied, same

from dlsys.rl.actor_critic import ActorCritic
from dlsys.rl.algorithms.a2c import differentiate
from dlsys.rl.algorithms.a3c import Worker
from dlsys.rl.environments import forms
from dlsys.rl.rewards import Rewards
from dlsys.rl.sampler import Rollout
from dlsys.spec.rl.job import Environment

GAMMA = 0.9


def _loss(network: Any, rollout: Rollout, memory: str | None = None) -> Tensor:
    """The paper's: n-step returns, the plain policy gradient, half the squared error, the entropy."""
    steps, envs = rollout.rewards.shape

    def heads(features: Tensor) -> tuple[Tensor, Tensor]:
        parts = network.body(features.expand(2, -1, -1))
        return network.policy(parts[0]), network.value(parts[1])[:, 0]

    policy_losses, errors, entropies = [], [], []
    for env in range(envs):
        seen = torch.as_tensor(rollout.seen["numbers"][:, env])
        state = torch.as_tensor(rollout.memories[0, env])[None]
        logits, values = [], []
        for step in range(steps + 1):
            features = seen[step : step + 1]
            if memory is not None:
                state = torch.zeros_like(state) if rollout.first[step, env] else state
                state = network.memory.cell(features, state)
                features = state
            found = heads(features)
            logits.append(found[0])
            values.append(found[1])
        finals = {
            int(rollout.ends[0, index]): index
            for index in range(rollout.ends.shape[1])
            if rollout.ends[1, index] == env
        }
        targets, target = [], float(values[-1].detach())
        for step in reversed(range(steps)):
            if rollout.terminated[step, env]:
                target = 0.0
            elif step in finals:
                final = torch.as_tensor(rollout.finals["numbers"][finals[step]])[None]
                target = float(heads(final)[1].detach())
            target = float(rollout.rewards[step, env]) + GAMMA * target
            targets.insert(0, target)
        policy = torch.distributions.Categorical(logits=torch.cat(logits[:-1]))
        advantages = torch.tensor(targets) - torch.cat(values[:-1])
        taken = torch.as_tensor(rollout.actions[:, env])
        policy_losses.append(-policy.log_prob(taken) * advantages.detach())
        errors.append(advantages**2)
        entropies.append(policy.entropy())
    means = [torch.cat(parts).mean() for parts in (policy_losses, errors, entropies)]
    return means[0] + 0.5 * means[1] - 0.01 * means[2]


def _same_gradients(network: nn.Module, found: list[Tensor | None], expected: Tensor) -> None:
    wanted = torch.autograd.grad(expected, list(network.parameters()))
    for one, other in zip(found, wanted, strict=True):
        assert one is not None
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("memory", [None, "gru"])
def test_the_gradient_is_the_papers(memory: str | None) -> None:
    told = {"name": "a2c", "trace": 1, "gamma": GAMMA, "clip_norm": None}
    # Rollouts of 50 steps of CartPole have ends, and cut episodes at their own.
    made = agent(**told, envs=2, batch_size=100, model={"memory": memory, "units": 5})
    rollout, _ = made.runners.sample(50, 0)
    assert rollout.terminated.any()
    assert not rollout.first[-1].all()
    expected = _loss(made.network, rollout, memory)
    # Of a memory the gradient goes back through all of these steps.
    whole = made.job.model_copy(update={"model": made.job.model.model_copy(update={"sequence": 50})})
    figures = differentiate(made.network, made.batch(rollout), whole)
    assert figures["loss"] == pytest.approx(float(expected.detach()), rel=1e-4)
    _same_gradients(made.network, [each.grad for each in made.network.parameters()], expected)


def test_a_memorys_gradient_ends_after_a_sequence() -> None:
    made = agent("a2c", envs=2, batch_size=64, clip_norm=None, model={"memory": "gru", "sequence": 16})
    batch = made.batch(made.runners.sample(32, 0)[0])
    found = []
    for length in (16, 32):
        told = made.job.model.model_copy(update={"sequence": length})
        figures = differentiate(made.network, batch, made.job.model_copy(update={"model": told}))
        found.append((figures["loss"], copied([made.network.memory.cell.weight_hh.grad])))
    assert found[0][0] == pytest.approx(found[1][0], rel=1e-4)
    assert not torch.allclose(found[0][1][0], found[1][1][0])


def test_an_iteration_is_several_updates() -> None:
    made = agent("a2c", envs=8)
    first = copied(made.network.parameters())
    learned = []
    made.learn = lambda batch, learn=made.learn: learned.append(batch.first.numel()) or learn(batch)
    did = made.iterate()
    assert learned == [128] * 16
    assert did.steps == 2048
    assert not same(first, made.network.parameters())


def test_a_worker_computes_the_gradient_of_its_own_rollout() -> None:
    told = {"name": "a3c", "trace": 1, "gamma": GAMMA, "rollout": 40, "clip_norm": None}
    made = job(told, "CartPole-v1", resources={"env_runners": 1, "envs": 2})
    worker = Worker(made, ActorCritic, 0)
    shared = agent("a2c").network
    kept: list[Rollout] = []
    runner = worker.runner(shared.state_dict(), 0)
    runner.sample = lambda steps, own=runner.sample: kept.append(own(steps)) or kept[-1]  # type: ignore[method-assign]
    gradient = worker.gradient(shared.state_dict(), None, 0)
    assert gradient.steps == kept[0].steps == 80
    assert gradient.returns == kept[0].returns
    _same_gradients(shared, gradient.parts, _loss(shared, kept[0]))


def test_a_workers_running_statistics_are_the_shared_ones() -> None:
    """Observations come back with the gradient; the scale of rewards goes there and back."""
    normal = {"observation": True, "reward": True}
    told = job({"name": "a3c", "rollout": 30}, "CartPole-v1", resources={"env_runners": 1}, normalize=normal)
    worker, shared = Worker(told, ActorCritic, 0), agent("a2c", normalize={"observation": True}).network
    first = worker.gradient(shared.state_dict(), None, 0)
    assert first.numbers is not None
    assert first.numbers.shape == (30, 1, 4)
    shared.features.update({"numbers": first.numbers})
    second = worker.gradient(shared.state_dict(), first.rewards, 30)
    assert second.rewards["running"]["count"] == 60
    scale = Rewards(True, 0.99)
    scale.load_state_dict(second.rewards)
    assert np.all(scale.scaled(np.ones(1, np.float32)) < 1)


@pytest.mark.parametrize("kind", ["nested", "tuple"])
def test_a_workers_gradient_is_of_any_spaces(kind: str) -> None:
    place = {"name": "spaces_table:Both", "options": {"seen": kind, "taken": kind}}
    told = job({"name": "a3c", "rollout": 10}, resources={"env_runners": 1, "envs": 2})
    told = told.model_copy(update={"environment": Environment.model_validate(place)})
    worker = Worker(told, ActorCritic, 0)
    network = ActorCritic(*forms(told.environment), told)
    gradient = worker.gradient(network.state_dict(), None, 0)
    assert gradient.steps == 20
    for parameter, part in zip(network.parameters(), gradient.parts, strict=True):
        assert part is not None
        assert part.shape == parameter.shape
