"""ACKTR: Kronecker factors against whole Fisher matrices, and steps inside the trust region."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import Tensor, nn
from whole_agents import agent

from dlsys.rl.evaluate import play
from dlsys.rl.kfac import Curvature
from dlsys.rl.networks import Linears

ROWS = 6


def _watched(network: nn.Module, inputs: Tensor, likelihood: Any, **told: float) -> Curvature:
    curvature = Curvature(network, told.get("decay", 0.9), told.get("damping", 0.0))
    with curvature.watching() as move:
        out = network(inputs)
    move(likelihood(out))
    return curvature


def test_factors_are_the_exact_fisher_matrix_of_a_linear_layer() -> None:
    """Where gradients do not depend on what comes in: of weights of nought, all choices are as likely."""
    torch.manual_seed(0)
    layer, inputs = nn.Linear(3, 4), torch.randn(ROWS, 3)
    nn.init.zeros_(layer.weight)
    nn.init.zeros_(layer.bias)
    whole = torch.zeros(16, 16)
    for row in range(ROWS):
        for choice in range(4):
            logp = layer(inputs[row]).log_softmax(-1)[choice]
            weight, bias = torch.autograd.grad(logp, (layer.weight, layer.bias))
            slope = torch.cat([weight, bias[:, None]], 1).flatten()
            whole += logp.exp().detach() * torch.outer(slope, slope) / ROWS
    # Each choice is drawn once for each row: that is their chance.
    choices = torch.arange(4).repeat_interleave(ROWS)
    rows = torch.arange(4 * ROWS)
    curvature = _watched(
        nn.Sequential(layer), inputs.repeat(4, 1), lambda out: out.log_softmax(-1)[rows, choices].sum()
    )
    (a,), (g,) = curvature.factors("0")
    torch.testing.assert_close(torch.kron(g, a), whole, rtol=1e-4, atol=1e-6)


def test_factors_of_values_are_those_of_a_normal_distribution() -> None:
    torch.manual_seed(0)
    inputs, noise = torch.randn(ROWS, 3), torch.tensor([1.0, -1.0] * (ROWS // 2))
    curvature = _watched(nn.Sequential(nn.Linear(3, 1)), inputs, lambda out: (out[:, 0] * noise).sum())
    (a,), (g,) = curvature.factors("0")
    into = torch.cat([inputs, torch.ones(ROWS, 1)], 1)
    torch.testing.assert_close(a, into.T @ into / ROWS)
    torch.testing.assert_close(g, torch.ones(1, 1))


def test_layers_side_by_side_and_convolutions_are_linear_layers_too() -> None:
    torch.manual_seed(0)
    linear, side, filters = nn.Linear(8, 3), Linears(2, 8, 3), nn.Conv2d(2, 3, 2)
    with torch.no_grad():
        for layer in (side.weight[1].T, filters.weight.flatten(1)):
            layer.copy_(linear.weight)
        side.bias[1, 0].copy_(linear.bias)
        filters.bias.copy_(linear.bias)  # type: ignore[union-attr]
    images, goals = torch.randn(ROWS, 2, 2, 2), torch.randn(ROWS, 3)
    rows = images.flatten(1)
    found = []
    for layer, inputs, read in (
        (linear, rows, lambda out: out),
        (side, rows.expand(2, -1, -1), lambda out: out[1]),
        (filters, images, lambda out: out[:, :, 0, 0]),
    ):
        network = nn.Sequential(layer)
        curvature = _watched(network, inputs, lambda out, of=read: (of(out) * goals).sum(), damping=0.1)
        a, g = curvature.factors("0")
        (read(network(inputs)) * goals).tanh().sum().backward()
        curvature.natural()
        weight, bias = layer.weight.grad, layer.bias.grad
        weight = weight[1].T if weight.ndim == 3 else weight.flatten(1)
        found.append((a[-1], g[-1], weight, bias.reshape(-1, 3)[-1]))
    for other in found[1:]:
        for one, value in zip(found[0], other, strict=True):
            torch.testing.assert_close(value, one, rtol=1e-4, atol=1e-5)


def test_places_of_an_image_add_up() -> None:
    """Of an image of the same everywhere, a convolution's matrix is that of one place, times their number."""
    torch.manual_seed(0)
    filters = nn.Conv2d(1, 2, 1)
    inputs = torch.randn(ROWS, 1, 1, 1).expand(-1, 1, 3, 3)
    goals = torch.randn(ROWS, 2, 1, 1)
    (a,), (g,) = _watched(nn.Sequential(filters), inputs, lambda out: (out * goals).sum()).factors("0")
    into = torch.cat([inputs[:, 0, 0, :1], torch.ones(ROWS, 1)], 1)
    torch.testing.assert_close(a, 9 * into.T @ into / ROWS)
    torch.testing.assert_close(g, goals.flatten(1).T @ goals.flatten(1) / ROWS)


@pytest.mark.parametrize("damping", [0.0, 0.3])
def test_natural_gradients_solve_with_the_damped_product(damping: float) -> None:
    torch.manual_seed(0)
    layer = nn.Linear(3, 4)
    curvature = Curvature(nn.Sequential(layer), 0.9, damping)
    a, g = curvature.factors("0")
    for factor in (a, g):
        root = torch.randn(1, factor.shape[1], 9)
        factor.copy_(root @ root.mT)
    layer.weight.grad, layer.bias.grad = torch.randn(4, 3), torch.randn(4)
    gradient = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1)
    curvature.natural()
    ratio = float((a.trace() if a.ndim == 2 else a[0].trace()) / 4 / (g[0].trace() / 4)) ** 0.5
    big = a[0] + ratio * damping**0.5 * torch.eye(4), g[0] + damping**0.5 / ratio * torch.eye(4)
    expected = torch.linalg.solve(torch.kron(big[1], big[0]), gradient.flatten()).reshape(4, 4)
    found = torch.cat([layer.weight.grad, layer.bias.grad[:, None]], 1)
    torch.testing.assert_close(found, expected, rtol=1e-3, atol=1e-4)


def test_averages_begin_as_means_and_then_decay() -> None:
    network = nn.Sequential(nn.Linear(1, 1))
    curvature = Curvature(network, 0.6, 0.0)
    seen = []
    for value in (1.0, 2.0, 3.0, 4.0):
        with curvature.watching() as move:
            out = network(torch.full((2, 1), value))
        move(out.sum())
        seen.append(float(curvature.factors("0")[0][0, 0, 0]))
    # Means of 1, 4, 9 and 16, while they are fewer than 1 / (1 - 0.6).
    assert seen == pytest.approx([1, 2.5, 0.6 * 2.5 + 0.4 * 9, 0.6 * (0.6 * 2.5 + 0.4 * 9) + 0.4 * 16])


@pytest.mark.parametrize("environment", ["CartPole-v1", "Pendulum-v1"])
def test_steps_are_as_long_as_the_divergence_allows(environment: str) -> None:
    made = agent("acktr", environment, envs=8, batch_size=1024, momentum=0.0, lr=100.0)
    measured = []
    for _ in range(8):
        batch = made.batch(made.runners.sample(128, 0)[0])
        rows = batch.flat()
        before = made.network.rows(rows.seen)[0].fixed()
        figures = made.learn(batch)
        after = made.network.rows(rows.seen)[0]
        assert figures["kl"] == pytest.approx(0.002, rel=1e-3)
        measured.append(float(before.kl(after).mean().detach()))
    # Three layers, each of which is taken to move alone, can make three times as much of it together.
    assert 0.001 < sum(measured) / 8 < 3 * 0.002


@pytest.mark.quality
def test_it_balances_the_pole_in_fewer_updates_than_a2c() -> None:
    updates = {}
    for name in ("acktr", "a2c"):
        made = agent(name, envs=8)
        learned: list[int] = []
        made.learn = lambda batch, learn=made.learn, to=learned: to.append(1) or learn(batch)
        while True:
            made.iterate()
            played = play(made, made.job.environment, 20, sees="parts", seed=0, split="valid")
            assert played is not None
            if played.summary()["return"] > 475:
                break
            assert len(learned) < 1000
        updates[name] = len(learned)
    assert updates["acktr"] < updates["a2c"]
