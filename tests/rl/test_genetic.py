from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from rl_models import check_resumes_exactly, job

from dlsys.rl.algorithms.genetic import GeneticAgent, Players, policy
from dlsys.rl.evaluate import play

SMALL: dict[str, Any] = {"name": "genetic", "population": 12, "elite": 3}


def test_children_mix_the_genes_of_two_parents_and_the_best_live_on() -> None:
    agent = GeneticAgent(job(SMALL | {"mutation": 1e-6, "crossover": 1.0}))
    parents = agent._genomes
    fitness = torch.arange(12.0)
    children = agent._children(fitness)
    nearest = (children[:, None] - parents).abs().argmin(1)  # whose gene each one is
    assert (children - parents.gather(0, nearest)).abs().max() < 1e-4
    several = [len(set(row.tolist())) for row in nearest]
    assert set(several) <= {1, 2}
    assert 2 in several
    agent.iterate()
    assert sum(bool((parents == row).all(1).any()) for row in agent._genomes) == 3


def test_the_better_have_more_children() -> None:
    agent = GeneticAgent(job(SMALL | {"mutation": 1e-6, "crossover": 0.0, "population": 40, "tournament": 8}))
    parents, fitness = agent._genomes, torch.arange(40.0)
    parent = (agent._children(fitness)[:, None] - parents).abs().sum(2).argmin(1)
    assert fitness[parent].mean() > 30


def test_a_policy_plays_alike_alone_and_among_others() -> None:
    told = job(SMALL, "CartPole-v1")
    agent = GeneticAgent(told)
    assert told.algorithm.name == "genetic"
    players = Players(told.environment, told.algorithm)
    _, returns, lengths = players.play(agent._genomes, [3, 5])
    assert (returns == lengths).all()
    for row in range(12):
        alone = Players(told.environment, told.algorithm).play(agent._genomes[row : row + 1], [5])
        assert alone[1][0, 0] == returns[row, 1]
    players.close()


def test_the_discount_counts_in_what_selects() -> None:
    told = job(SMALL | {"gamma": 0.5}, "CartPole-v1")
    assert told.algorithm.name == "genetic"
    agent = GeneticAgent(told)
    discounted, returns, _ = Players(told.environment, told.algorithm).play(agent._genomes, [1])
    np.testing.assert_allclose(discounted, 2 * (1 - 0.5**returns))


def test_it_goes_on_exactly() -> None:
    check_resumes_exactly(GeneticAgent(job(SMALL)), GeneticAgent(job(SMALL, seed=1)))


@pytest.mark.ray
@pytest.mark.usefixtures("one_ray")
def test_a_population_plays_alike_in_other_processes() -> None:
    alone = GeneticAgent(job(SMALL, "CartPole-v1"))
    apart = GeneticAgent(job(SMALL, "CartPole-v1", resources={"env_runners": 2, "cpus": 0.5}))
    for _ in range(2):
        expected, found = alone.iterate(), apart.iterate()
        assert found.returns == expected.returns
        assert found.figures == expected.figures
    apart.close()
    alone.close()


@pytest.mark.parametrize("environment", ["CartPole-v1", "rl_models:Point"])
def test_it_finds_a_policy_and_its_weights_act_alike(environment: str) -> None:
    told = job({"name": "genetic", "population": 24, "mutation": 0.5}, environment)
    agent = GeneticAgent(told)
    mean = [agent.iterate().figures["fitness_mean"] for _ in range(10)]
    assert mean[-1] > mean[0]
    best = play(agent, told.environment, 20, sees="vector", seed=0, split="valid").summary()["return"]
    assert best > {"CartPole-v1": 300, "rl_models:Point": -40}[environment]
    weights = {name: torch.as_tensor(value) for name, value in agent.weights().items()}
    seen = (
        np.random.default_rng(0).normal(size=(9, 4 if environment == "CartPole-v1" else 1)).astype(np.float32)
    )
    alone = policy(told, weights)(torch.as_tensor(seen)).detach().numpy()
    np.testing.assert_array_equal(alone, agent.act(seen))
    agent.close()
