"""TRPO: steps inside the trust region, found by conjugate gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from by_hand import ByHand
from torch.distributions import Categorical, Normal, kl_divergence

from dlsys.rl.algorithms import trpo as module_of
from dlsys.rl.algorithms.trpo import TRPOLearner, conjugate_gradient, trpo
from dlsys.spec.rl.policy import TRPO


def test_conjugate_gradients_solve_a_positive_definite_system() -> None:
    torch.manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    found = conjugate_gradient(lambda vector: matrix @ vector, target, 12)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-3, atol=1e-4)


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What each update of the policy did, by formulas of this test's own."""
    updates: list[dict[str, float]] = []
    improve = TRPOLearner.improve

    def watch(self: TRPOLearner, module_id: str, module: Any, rows: Any) -> Any:
        def policy() -> Any:
            with torch.no_grad():
                out = module.forward_train(rows)["action_dist_inputs"]
            if rows["actions"].dim() == 1:
                return Categorical(logits=out)
            mean, log_std = out.chunk(2, -1)
            return Normal(mean, log_std.exp())

        def rowwise(values: torch.Tensor) -> torch.Tensor:
            return values if values.dim() == 1 else values.sum(-1)

        old = policy()
        figures = improve(self, module_id, module, rows)
        new = policy()
        log_ratio = rowwise(new.log_prob(rows["actions"]) - old.log_prob(rows["actions"]))
        gain = ((log_ratio.exp() - 1) * rows["advantages"]).mean()
        updates.append({"kl": float(rowwise(kl_divergence(old, new)).mean()), "surrogate": float(gain)})
        return figures

    monkeypatch.setattr(TRPOLearner, "improve", watch)
    return updates


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1"])
def test_no_update_leaves_the_trust_region_or_loses(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = _watched(monkeypatch)
    told = TRPO(name="trpo", max_kl=0.02, passes=1)
    agent = ByHand(trpo(told), environment, num_envs_per_env_runner=8)
    logged = [agent.update(agent.sample(num_timesteps=512)) for _ in range(8)]
    for own, figures in zip(updates, logged, strict=True):
        assert figures["kl"] == pytest.approx(own["kl"], abs=1e-5)
        assert figures["surrogate"] == pytest.approx(own["surrogate"], abs=1e-5)
        assert own["kl"] <= told.max_kl + 1e-5
        assert own["surrogate"] >= -1e-5
    # It uses what it is allowed, and gains by it.
    assert sum(own["kl"] for own in updates) / len(updates) > told.max_kl / 4
    assert sum(own["surrogate"] for own in updates) > 0


def test_a_direction_that_only_loses_leaves_the_policy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of, "conjugate_gradient", lambda product, target, iterations: -target)
    updates = _watched(monkeypatch)
    agent = ByHand(trpo(TRPO(name="trpo", passes=1)), num_envs_per_env_runner=4)
    values = [value.clone() for value in agent.module.vf.parameters()]
    policy = [value.clone() for value in agent.module.pi.parameters()]
    figures = agent.update(agent.sample(num_timesteps=256))
    assert figures["kl"] == figures["surrogate"] == updates[0]["kl"] == 0
    assert all(torch.equal(*pair) for pair in zip(policy, agent.module.pi.parameters(), strict=True))
    assert not any(torch.equal(*pair) for pair in zip(values, agent.module.vf.parameters(), strict=True))


def test_it_learns_to_balance_the_pole() -> None:
    agent = ByHand(trpo(TRPO(name="trpo")), num_envs_per_env_runner=8)
    lengths = []
    for _ in range(5):
        episodes = agent.sample(num_timesteps=1024)
        lengths.append(1024 / max(1, sum(episode.is_done for episode in episodes)))
        agent.update(episodes)
    assert lengths[-1] > 2 * lengths[0]
