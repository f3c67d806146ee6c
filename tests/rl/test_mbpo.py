from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from rl_models import Point, check_resumes_exactly, job
from torch import Generator

from dlsys.errors import SpecError
from dlsys.rl.algorithms.mbpo import MBPOAgent, Models, policy
from dlsys.rl.algorithms.soft import Actor, Steps
from dlsys.rl.evaluate import play
from dlsys.spec.load import load
from dlsys.spec.rl.models import MBPO

SMALL: dict[str, Any] = {
    "name": "mbpo",
    "hidden": [32, 32],
    "start": 60,
    "every": 20,
    "rollouts": 200,
    "updates": 2,
}


def known(count: int, seed: int = 0) -> Steps:
    """Steps of a point in a plane; it ends where the first coordinate leaves ±1."""
    random = Generator().manual_seed(seed)
    seen = torch.rand(count, 2, generator=random) * 2 - 1
    actions = torch.rand(count, 2, generator=random) * 2 - 1
    following = seen + 0.3 * actions
    return Steps(seen, actions, -following.square().sum(-1), following, (following[:, 0].abs() > 1).float())


def fitted(steps: Steps) -> Models:
    torch.manual_seed(0)
    models = Models(2, 2, MBPO(name="mbpo", models=3, hidden=(32, 32)))
    models.fit(steps, Generator().manual_seed(0))
    return models


def test_models_learn_what_follows_what_it_pays_and_where_it_ends() -> None:
    told = known(500, seed=1)
    found = fitted(known(1000)).step(told.observations, told.actions, Generator().manual_seed(1))
    assert (found.following - told.following).abs().mean() < 0.05
    assert (found.rewards - told.rewards).abs().mean() < 0.2
    assert (found.terminated == told.terminated).float().mean() > 0.95
    assert 0.02 < told.terminated.mean() < 0.5


def test_a_models_outcomes_vary_as_much_as_the_environments() -> None:
    told = known(2000)
    noise = 0.2 * torch.randn(told.following.shape, generator=Generator().manual_seed(2))
    models = fitted(told._replace(following=told.following + noise))
    same = told.rows(torch.zeros(2000, dtype=torch.long))
    found = models.step(same.observations, same.actions, Generator().manual_seed(1))
    assert 0.15 < float(found.following.std(0).mean()) < 0.3


def test_rollouts_go_on_from_where_they_came_and_stop_where_they_end() -> None:
    agent = MBPOAgent(job(SMALL | {"horizon": 3}))
    agent.iterate()
    ends = 0

    def step(seen: torch.Tensor, actions: torch.Tensor, random: Generator) -> Steps:
        return Steps(seen, actions, seen[:, 0], seen + 1, ends * (torch.arange(len(seen)) % 2).float())

    agent._models.step = step  # type: ignore[method-assign]
    going = agent._imagine()
    assert len(going.rewards) == 3 * 200
    assert torch.equal(going.observations[200:], going.following[:-200])
    assert all(bool((agent._real.observations == row).all(1).any()) for row in going.observations[:5])
    ends = 1
    assert len(agent._imagine().rewards) == 200 + 100 + 50


def test_the_densities_of_squashed_actions_integrate_to_one() -> None:
    torch.manual_seed(0)
    actor = Actor(1, 1, MBPO(name="mbpo")).requires_grad_(False)
    _, log_density = actor.sample(torch.zeros(20_000, 1), Generator().manual_seed(0))
    # The mean of 1 / density over samples is the length of what they cover: ±1.
    assert float((-log_density).exp().mean()) == pytest.approx(2, rel=0.1)


def test_it_goes_on_exactly() -> None:
    check_resumes_exactly(MBPOAgent(job(SMALL)), MBPOAgent(job(SMALL, seed=1)))


@pytest.mark.quality
def test_it_learns_and_its_weights_act_alike() -> None:
    told = job(SMALL | {"updates": 4, "batch_size": 128, "lr": 3e-3, "models": 2})
    agent = MBPOAgent(told)
    before = play(agent, told.environment, 20, sees="vector", seed=0, split="valid").summary()["return"]
    while agent._sampled < 240:
        agent.iterate()
    after = play(agent, told.environment, 20, sees="vector", seed=0, split="valid").summary()["return"]
    assert after > before / 2
    weights = {name: torch.as_tensor(value) for name, value in agent.weights().items()}
    seen = np.linspace(-1, 1, 7, dtype=np.float32)[:, None]
    alone = policy(told, weights)(torch.as_tensor(seen)).detach().numpy()
    np.testing.assert_array_equal(alone, agent.act(seen))
    assert np.abs(alone).max() <= Point.action_space.high[0]
    agent.close()


def test_a_file_says_what_does_not_suit_it(tmp_path: Path) -> None:
    file = tmp_path / "job.yaml"
    file.write_text(
        "kind: rl\nname: x\nenvironment: {name: CartPole-v1}\nalgorithm: {name: mbpo}\n"
        "resources: {gpus: 1, env_runners: 2}\nstop: {epochs: 1}\n"
    )
    with pytest.raises(SpecError) as told:
        load(file)
    said = str(told.value)
    assert "algorithm.name: mbpo learns from continuous actions, and CartPole-v1 has discrete ones" in said
    assert "resources.gpus: mbpo learns on CPUs" in said
    assert "resources.env_runners: mbpo acts in its own process" in said
