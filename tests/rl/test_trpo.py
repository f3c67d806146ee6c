"""TRPO: steps inside the trust region, found by conjugate gradients."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor
from torch.distributions import Categorical, Distribution, Independent, Normal, kl_divergence
from whole_agents import agent, copied, same

from dlsys.rl.algorithms import trpo as module_of
from dlsys.rl.algorithms.trpo import TRPOAgent, conjugate_gradient
from dlsys.rl.observations import NUMBERS


def test_conjugate_gradients_solve_a_positive_definite_system() -> None:
    torch.manual_seed(0)
    root = torch.randn(12, 12, dtype=torch.float64)
    matrix, target = root @ root.T + torch.eye(12, dtype=torch.float64), torch.randn(12, dtype=torch.float64)
    found = conjugate_gradient(lambda vector: matrix @ vector, target, 12)
    torch.testing.assert_close(found, torch.linalg.solve(matrix, target), rtol=1e-3, atol=1e-4)


def _policy(network: Any, seen: dict[str, Tensor]) -> Distribution:
    with torch.no_grad():
        out = network.policy(network.body(seen[NUMBERS].expand(2, -1, -1))[0])
    if network.log_std is None:
        return Categorical(logits=out)
    return Independent(Normal(out, network.log_std.detach().clone().exp()), 1)


def _watched(monkeypatch: pytest.MonkeyPatch) -> list[dict[str, float]]:
    """What each update of the policy did, by formulas of this test's own."""
    updates: list[dict[str, float]] = []
    improve = TRPOAgent.improve

    def watch(self: TRPOAgent, seen: dict[str, Tensor], actions: Tensor, gains: Tensor) -> Any:
        old = _policy(self.network, seen)
        figures = improve(self, seen, actions, gains)
        new = _policy(self.network, seen)
        ratio = (new.log_prob(actions) - old.log_prob(actions)).exp()
        gain, kl = ((ratio - 1) * gains).mean(), kl_divergence(old, new).mean()
        updates.append({"kl": float(kl), "surrogate": float(gain)})
        return figures

    monkeypatch.setattr(TRPOAgent, "improve", watch)
    return updates


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1"])
def test_no_update_leaves_the_trust_region_or_loses(
    environment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = _watched(monkeypatch)
    made = agent("trpo", environment, envs=8, max_kl=0.02, passes=1, batch_size=512)
    logged = [made.iterate().figures for _ in range(6)]
    for own, figures in zip(updates, logged, strict=True):
        assert figures["kl"] == pytest.approx(own["kl"], abs=1e-5)
        assert figures["surrogate"] == pytest.approx(own["surrogate"], abs=1e-5)
        assert own["kl"] <= 0.02 + 1e-5
        assert own["surrogate"] >= -1e-5
    # It uses what it is allowed, and gains by it.
    assert sum(own["kl"] for own in updates) / len(updates) > 0.02 / 4
    assert sum(own["surrogate"] for own in updates) > 0
    if made.network.log_std is not None:  # its deviations are the policy's too
        assert made.network.log_std.abs().item() > 1e-3


def test_products_with_the_fisher_matrix_are_those_of_the_whole_matrix(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The Fisher matrix is the mean of ∇ log p ∇ log pᵀ over all actions."""
    made = agent("trpo", hidden=[3], batch_size=16, cg_damping=0.0)
    batch = made.batch(made.runners.sample(16, 0)[0]).flat()
    chances, _ = made.network.rows(batch.seen)
    parameters = made.network.of_policy()
    sizes = [parameter.numel() for parameter in parameters]
    whole = torch.zeros(sum(sizes), sum(sizes))
    for row in range(16):
        for action in range(2):
            logp = chances.categories[0][row, action]
            parts = torch.autograd.grad(logp, parameters, retain_graph=True)
            slope = torch.cat([part.reshape(-1) for part in parts])
            whole += logp.exp().detach() * torch.outer(slope, slope) / 16
    asked: list[tuple[Tensor, Tensor]] = []

    def solve(product: Any, target: Tensor, iterations: int) -> Tensor:
        for _ in range(3):
            vector = torch.randn_like(target)
            asked.append((vector, product(vector)))
        return conjugate_gradient(product, target, iterations)

    monkeypatch.setattr(module_of, "conjugate_gradient", solve)
    made.improve(batch.seen, batch.actions, batch.advantages)
    for vector, found in asked:
        torch.testing.assert_close(found, whole @ vector, rtol=1e-3, atol=1e-5)


def test_a_direction_that_only_loses_leaves_the_policy_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module_of, "conjugate_gradient", lambda product, target, iterations: -target)
    updates = _watched(monkeypatch)
    made = agent("trpo", envs=4, passes=1, batch_size=256)
    network = made.network
    values, policy = copied(network.value.parameters()), copied(network.policy.parameters())
    body = copied(network.body.parameters())
    figures = made.iterate().figures
    assert figures["kl"] == figures["surrogate"] == updates[0]["kl"] == 0
    assert same(policy, network.policy.parameters())
    assert not same(values, network.value.parameters())
    # Of the layers that both have side by side, the value function's alone have moved.
    for before, now in zip(body, network.body.parameters(), strict=True):
        assert torch.equal(before[0], now[0])
        assert not torch.equal(before[1], now[1])


def test_it_learns_to_balance_the_pole() -> None:
    made = agent("trpo", envs=8, batch_size=1024)
    lengths = []
    for _ in range(5):
        lengths.append(1024 / max(1, len(made.iterate().returns)))
    assert lengths[-1] > 2 * lengths[0]
