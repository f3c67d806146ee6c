"""DDPG and what makes it TD3, in process: what updates move, what they aim at, and how it explores."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from gymnasium import spaces
from rl_models import check_resumes_exactly, job
from steps_made_up import NUMBERS, made_up
from torch import Generator

from dlsys.rl.algorithms.ddpg import DDPGAgent, chosen

# As Pendulum's.
ONE = spaces.Box(-2, 2, (1,))


def made(name: str, **options: Any) -> DDPGAgent:
    return DDPGAgent(job({"name": name, "hidden": [16, 16], **options}, "Pendulum-v1"))


def _weights(agent: DDPGAgent) -> dict[str, torch.Tensor]:
    parts = {
        "policy": agent.network.layers,
        "values": agent.critics.networks,
        "targets": agent.critics.targets,
        "target_policy": agent.target_layers,
    }
    return {
        name: torch.cat([value.detach().flatten().clone() for value in part.parameters()])
        for name, part in parts.items()
    }


def test_ddpg_moves_everything_at_each_update_and_td3_the_policy_and_the_targets_at_each_second() -> None:
    for name, delay in (("ddpg", 1), ("td3", 2)):
        agent = made(name, tau=0.25)
        for now in range(1, 5):
            before = _weights(agent)
            figures, _ = agent.learn(made_up(NUMBERS, ONE, seed=now))
            after = _weights(agent)
            moved = {part for part, value in before.items() if not torch.equal(value, after[part])}
            assert moved == ({"values"} if now % delay else {*before})
            assert ("policy_loss" in figures) == (not now % delay)
            for mine, online in (("targets", "values"), ("target_policy", "policy")):
                if not now % delay:
                    torch.testing.assert_close(after[mine], 0.75 * before[mine] + 0.25 * after[online])
        agent.close()


def test_the_losses_are_the_papers() -> None:
    agent = made("ddpg", lr=1e-12)
    steps = made_up(NUMBERS, ONE)
    with torch.no_grad():

        def q(seen: torch.Tensor, actions: torch.Tensor) -> torch.Tensor:
            return agent.critics.networks(torch.cat((seen, actions), 1)[None])[0].squeeze(-1)

        here, there = steps.seen["numbers"], steps.following["numbers"]
        policy = agent.network.layers
        goal = steps.rewards + steps.going * q(there, policy(there[None])[0].tanh())
        wrong = q(here, steps.actions) - goal
        value_loss = (steps.weights * wrong**2).mean()
        policy_loss = -q(here, policy(here[None])[0].tanh()).mean()
    figures, errors = agent.learn(steps)
    assert float(figures["value_loss"]) == pytest.approx(float(value_loss), rel=1e-4)
    assert float(figures["policy_loss"]) == pytest.approx(float(policy_loss), rel=1e-4)
    torch.testing.assert_close(errors, wrong.abs(), rtol=1e-4, atol=1e-5)
    agent.close()


def test_the_policy_goes_where_the_values_are_higher() -> None:
    told: dict[str, Any] = {"going": torch.zeros(32), "weights": torch.ones(32)}
    for sign in (1, -1):
        agent = made("ddpg", lr=1e-2)
        for now in range(60):
            steps = made_up(NUMBERS, ONE, seed=now)
            agent.learn(steps._replace(rewards=sign * steps.actions[:, 0], **told))
        best = agent.act({"numbers": steps.seen["numbers"].numpy()})
        assert (sign * best).min() > 0.9
        agent.close()


def test_the_lower_of_twin_values_counts_at_smoothed_actions() -> None:
    agent = made("td3", smoothing=0.3, smoothing_limit=0.2)
    steps = made_up(NUMBERS, ONE, 4096)
    features = steps.following["numbers"]
    seen: list[torch.Tensor] = []
    whole = agent.critics.later

    def watched(features: torch.Tensor, actions: torch.Tensor | None = None) -> torch.Tensor:
        assert actions is not None
        seen.append(actions)
        return whole(features, actions)

    agent.critics.later = watched  # type: ignore[method-assign]
    with torch.no_grad():
        # As high as the other, so that each is the lower one at times.
        done = torch.cat((features, steps.actions), 1).expand(2, -1, -1)
        first, second = agent.critics.targets(done).mean((1, 2))
        [*agent.critics.targets.parameters()][-1][1] += first - second
        goal = agent.goal(steps)
        first, second = agent.critics.targets(torch.cat((features, seen[0]), 1).expand(2, -1, -1)).squeeze(-1)
        expected = steps.rewards + steps.going * torch.minimum(first, second)
        noise = seen[0] - chosen(agent.target_layers, features)
    torch.testing.assert_close(goal, expected)
    assert 0.05 < (first < second).float().mean() < 0.95
    assert noise.abs().max() <= 0.2 + 1e-6
    # Beyond ±0.2 = ±2σ/3 lies half of a normal distribution.
    assert 0.4 < (noise.abs() > 0.2 - 1e-6).float().mean() < 0.6
    agent.close()


def test_exploration_is_chance_at_first_and_then_noise_around_the_policy() -> None:
    agent = made("ddpg", starts=100, explore=0.1)
    seen, none = {"numbers": torch.rand(4000, 3)}, torch.zeros(4000, 0)
    best, _ = agent.network.best(seen, none)
    explored = {}
    for step in (99, 100):
        agent.step = step
        agent.network.set(agent.exploring())
        explored[step] = agent.network.explore(seen, none, Generator().manual_seed(0))[0]
    assert abs(explored[99].std().item() - 1 / 3**0.5) < 0.03
    assert abs((explored[100] - best).std().item() - 0.1) < 0.01
    assert all(each.abs().max() <= 1 for each in explored.values())
    agent.close()


def test_td3_goes_on_exactly_between_two_updates_of_its_policy() -> None:
    few = {
        "starts": 200,
        "fragment": 7,
        "updates": 0.031,
        "batch_size": 16,
        "n_step": 3,
        "replay": "prioritized",
    }
    whole, other = made("td3", **few), made("td3", **few)
    check_resumes_exactly(whole, other)
    assert whole._updates == other._updates
    whole.close()
    other.close()
